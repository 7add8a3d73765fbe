"""Tables of qualities for the terminal, in percent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

_QUALITIES = {"pq": "PQ", "sq": "SQ", "rq": "RQ", "pc": "PC", "miou": "mIoU"}
_WITH_INSTANCES = {"mask_ap": "AP", "mask_ap50": "AP50", "semantic_map_miou": "mIoU of semantic map"}
_PERCENTAGES = {"pq": "PQ", "sq": "SQ", "rq": "RQ", "pc": "PC", "semantic_iou": "IoU"}
_OF_INSTANCES = {"mask_ap": "AP", "mask_ap50": "AP50", "semantic_map_iou": "IoU of semantic map"}
_COUNTS = {"tp": "TP", "fp": "FP", "fn": "FN"}


def percent(fraction: float | None) -> str:
    """A fraction as percent with two decimals; "-" where there is none (None or nan)."""
    return "-" if fraction is None or math.isnan(fraction) else f"{100 * fraction:.2f}"


def quality_table(values: Mapping[str, float], title: str) -> Table:
    """Rows all, things and stuff; columns PQ, SQ, RQ, PC and mIoU in percent, and mask AP where there is one.

    Args:
        values: fractions under the names that the metrics' `compute` gives (`pq`, `pq_things`, `pc_stuff`, `miou`, ..),
            as numbers or scalar tensors; a name that is missing is shown as "-".
        title: above the table.

    Raises:
        ValueError: none of the values is a quality.
    """
    if not set(_QUALITIES) & set(values):
        raise ValueError(
            f"expected at least one of {sorted(_QUALITIES)}, got {sorted(values)}; pass what compute() gave"
        )
    table = Table(title=escape(title))
    table.add_column("")
    columns = _QUALITIES | {name: heading for name, heading in _WITH_INSTANCES.items() if name in values}
    for heading in columns.values():
        table.add_column(heading, justify="right")
    for row, suffix in (("all", ""), ("things", "_things"), ("stuff", "_stuff")):
        cells = [values.get(name + suffix) for name in columns]
        table.add_row(row, *(percent(None if cell is None else float(cell)) for cell in cells))
    return table


def category_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """One row per category: its name, its kind, and those of PQ, SQ, RQ, PC, IoU (percent), TP, FP, FN that it has.

    Args:
        rows: as `join_category_rows` or `PanopticQuality.per_category` give them, all with the same keys.
        title: above the table.
    """
    return _table_of_rows(rows, title, _PERCENTAGES, _COUNTS)


def instance_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """One row per category: mask AP, AP50 and IoU of the semantic map in percent, of fusions that return instances.

    Args:
        rows: as `PanopticModule.category_rows` gives them; without these keys the table has no columns for them.
        title: above the table.
    """
    return _table_of_rows(rows, title, _OF_INSTANCES, {})


def _table_of_rows(
    rows: Sequence[Mapping[str, Any]], title: str, fractions: Mapping[str, str], numbers: Mapping[str, str]
) -> Table:
    """Name, kind, and of the columns {key: heading} those that the rows have: fractions in percent, then numbers."""
    keys = set().union(*rows) if rows else set()
    percentages = [name for name in fractions if name in keys]
    counts = [name for name in numbers if name in keys]
    table = Table(title=escape(title))
    table.add_column("category")
    table.add_column("kind")
    for heading in [fractions[name] for name in percentages] + [numbers[name] for name in counts]:
        table.add_column(heading, justify="right")
    for row in rows:
        cells = [percent(row[name]) for name in percentages] + [str(row[name]) for name in counts]
        table.add_row(escape(row["name"]), "thing" if row["is_thing"] else "stuff", *cells)
    return table
