"""`panoptic convert`: annotations of other formats to COCO's panoptic format, and predictions to benchmarks' forms."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panoptic.configuration import config_folder, parse_overrides, resolved
from panoptic.run_folder import whole_folder

if TYPE_CHECKING:
    from panoptic.conversion.contract import Source, Target

# The imports within functions take seconds; without them `--help` and a wrong argument answer at once.


def main(argv: Sequence[str]) -> int:
    """Convert as configured; returns the exit status."""
    composed = parse_overrides("convert", "Convert annotations to COCO's panoptic format, or to another one.", argv)
    if composed is None:
        return 0
    config = resolved(composed)
    if config.get("from") is None:
        choices = sorted(path.stem for path in (config_folder() / "from").glob("*.yaml"))
        raise ValueError(f"give from=..., one of {', '.join(choices)}")
    out = Path(str(config["out"])).expanduser()
    if out.exists() or out.is_symlink():
        raise FileExistsError(f"{out} exists; results are never overwritten; choose another out=")
    print("\n".join(_convert(config, out)))
    return 0


def _convert(config: Mapping[str, Any], out: Path) -> list[str]:
    """Convert into a folder that gets its name when all of it is there; returns what to tell the user."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from panoptic.conversion.panoptic_files import PanopticTarget
    from panoptic.conversion.stream import convert
    from panoptic.instantiation import build, complete

    source: Source = build(config["from"])
    columns = (TextColumn("convert"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with whole_folder(out.with_name(f".{out.name}.{os.getpid()}.tmp")) as folder:
        target: Target = complete("to", config["to"], folder, source.categories)
        with Progress(*columns) as progress:
            task = progress.add_task("", total=len(source))
            report = convert(source, target, num_workers=config["num_workers"], advance=lambda: progress.advance(task))
        folder.rename(out)
    lines = report.lines()
    if isinstance(target, PanopticTarget) and source.image_folder is not None:
        words = [f"data.root={out}", f"data.train.panoptic_json={out / 'panoptic.json'}"]
        words.append(f"data.train.image_folder={source.image_folder}")
        lines.append(f"to train on it: data=coco_panoptic {shlex.join(words)} (data.val likewise)")
    return [f"{out}: {lines[0]}", *lines[1:]]
