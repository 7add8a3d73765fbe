"""Reading the metrics.csv of a trial, also while it is being written."""

from __future__ import annotations

import csv
from pathlib import Path


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv; a row has the columns that are not empty in it.

    Args:
        path: of the file; a line at its end that is still being written is left out.

    Returns:
        Nothing where there is no file yet.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    lines = text[: text.rfind("\n") + 1].splitlines()
    return [
        {name: float(value) for name, value in row.items() if name and isinstance(value, str) and _is_number(value)}
        for row in csv.DictReader(lines)
    ]


def last_values(rows: list[dict[str, float]]) -> dict[str, float]:
    """The last value of each column: with `panoptic train`, the validation of the best checkpoint ends the file."""
    values: dict[str, float] = {}
    for row in rows:
        values |= row
    return values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
