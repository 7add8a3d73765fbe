"""`panoptic table FILE_OR_FOLDER`: the table of a sweep, with the paper's numbers beside ours."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from panoptic.sweeps.ledger import Trial

FORMATS = ("text", "markdown", "latex")

# The imports within functions take up to a second; without them `--help` answers at once.


def main(argv: Sequence[str]) -> int:
    """Print the table; returns the exit status."""
    options = _parser().parse_args(argv)

    from panoptic.sweeps.layout import plain_layout, read_layout
    from panoptic.sweeps.rendering import FORMATS as RENDERERS
    from panoptic.sweeps.rendering import difference_grid, quality_grid

    config, file, trials = _read(options)
    chosen = options.layout or file.parent / "tables" / file.name
    if options.layout is not None and not chosen.is_file():
        raise FileNotFoundError(f"no such layout: {chosen}")
    layout = read_layout(chosen, config, trials) if chosen.is_file() else plain_layout(file.stem, config, trials)
    grids = [quality_grid(layout, trials), difference_grid(layout, trials)]
    print("\n\n".join(RENDERERS[options.format](grid) for grid in grids if grid is not None))
    return 0


def _read(options: argparse.Namespace) -> tuple[dict[str, Any], Path, list[Trial]]:
    """What decides the trials, the sweep file's path, and the trials: of the ledger, or of W&B."""
    folder, file = _locate(options.sweep)
    if options.wandb is None:
        from panoptic.sweeps.ledger import read_ledger

        config, stored_file, trials = read_ledger(options.folder or folder)
        return config, file or stored_file, trials
    if file is None or options.folder is not None:
        raise ValueError(f"--wandb takes a sweep file and no --folder, got {options.sweep}; pass sweeps/<name>.yaml")
    from panoptic.sweeps.sweep_file import read_sweep_file
    from panoptic.sweeps.wandb_project import read_project

    config = read_sweep_file(file, None).config
    return config, file, read_project(options.wandb, str(config.get("name", file.stem)), config["parameters"])


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
    parser.add_argument(
        "--wandb", metavar="PATH", help="trials of W&B's agents: entity/project, or entity/project/sweep with its id"
    )
    parser.add_argument("--layout", type=Path, metavar="FILE", help="another layout than tables/<name>")
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    return parser
