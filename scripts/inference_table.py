"""Evaluations of trained runs under several inference strategies in one table, as DeepLabv3's Tables 4, 6 and 12."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from panoptic.analysis.tables import percent

COLUMNS = ("run", "output stride", "scales", "flip", "mIoU", "PQ")


def row_of(folder: Path) -> list[str]:
    """The cells of one evaluation.

    Raises:
        FileNotFoundError: the folder has no evaluation.json.
        ValueError: it does not say with which options it was made.
    """
    path = folder / "evaluation.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give the output folder of a panoptic evaluate")
    report: dict[str, Any] = json.loads(path.read_text())
    options = report.get("options")
    if options is None:
        raise ValueError(f"{path} does not say with which options it was made; evaluate the run again")
    stride, scales = options["output_stride"], options["scales"]
    return [
        Path(options["run"]).name,
        "as trained" if stride is None else str(stride),
        " ".join(f"{scale:g}" for scale in scales),
        "yes" if options["flip"] else "no",
        percent(report["all"]["miou"]),
        percent(report["all"]["pq"]),
    ]


def main(argv: Sequence[str]) -> int:
    """Print the table in Markdown; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("evaluations", type=Path, nargs="+", help="output folders of panoptic evaluate")
    options = parser.parse_args(argv)
    try:
        rows = [row_of(folder) for folder in options.evaluations]
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for cells in (COLUMNS, ["---"] * len(COLUMNS), *rows):
        print(f"| {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
