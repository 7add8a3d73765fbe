"""`panoptic table FILE_OR_FOLDER`: the table of a sweep, with the paper's numbers beside ours."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

FORMATS = ("text", "markdown", "latex")

# The imports within functions take up to a second; without them `--help` answers at once.


def main(argv: Sequence[str]) -> int:
    """Print the table; returns the exit status."""
    options = _parser().parse_args(argv)

    from panoptic.sweeps.layout import plain_layout, read_layout
    from panoptic.sweeps.ledger import read_ledger
    from panoptic.sweeps.rendering import FORMATS as RENDERERS
    from panoptic.sweeps.rendering import difference_grid, quality_grid

    folder, file = _locate(options.sweep)
    config, stored_file, trials = read_ledger(options.folder or folder)
    file = file or stored_file
    chosen = options.layout or file.parent / "tables" / file.name
    if options.layout is not None and not chosen.is_file():
        raise FileNotFoundError(f"no such layout: {chosen}")
    layout = read_layout(chosen, config, trials) if chosen.is_file() else plain_layout(file.stem, config, trials)
    grids = [quality_grid(layout, trials), difference_grid(layout, trials)]
    print("\n\n".join(RENDERERS[options.format](grid) for grid in grids if grid is not None))
    return 0


def _locate(sweep: Path) -> tuple[Path, Path | None]:
    """The sweep's folder, and the sweep file where that was given."""
    if sweep.suffix in (".yaml", ".yml"):
        if not sweep.is_file():
            raise FileNotFoundError(f"no such sweep file: {sweep}")
        return Path("runs") / sweep.stem, sweep
    return (sweep if sweep.is_dir() else Path("runs") / sweep), None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="panoptic table",
        description="Print the table of a sweep: mean and spread over seeds, paired differences with an interval, and "
        "the paper's numbers. The layout is tables/<name> beside the sweep file; without it each combination is a row.",
    )
    parser.add_argument("sweep", type=Path, metavar="FILE_OR_FOLDER", help="sweep file, its folder, or a name in runs/")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="of the sweep, where it is not runs/<name of the file>"
    )
    parser.add_argument("--layout", type=Path, metavar="FILE", help="another layout than tables/<name>")
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    return parser
