"""`panoptic check-data`: every fault of a data set at once, and what it holds."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import cv2
from rich.console import Console
from rich.progress import track

from panoptic.analysis.data_report import contents_table, findings_table, frequency_figure, frequency_table
from panoptic.configuration import parse_overrides, resolved
from panoptic.data.checking import SplitCheck, compare_categories
from panoptic.data.coco import CocoPanoptic
from panoptic.data.faults import Finding, Kind
from panoptic.data.recounting import write_recounted
from panoptic.drawing import overlay
from panoptic.instantiation import build
from panoptic.run_folder import whole_folder

SPLITS = ("train", "val", "test")
FIXABLE = (Kind.AREA, Kind.BOX)


def main(argv: Sequence[str]) -> int:
    """Check as configured; returns the exit status, 1 if there is an error."""
    composed = parse_overrides("check_data", "Find every fault of a data set at once, and count what it holds.", argv)
    if composed is None:
        return 0
    if "data" not in composed:
        raise ValueError("give data=<name>, such as data=coco_panoptic; panoptic train --help lists them")
    config = resolved(composed)
    names = chosen_splits(config)
    target = None if config["fix"] is None else Path(str(config["fix"])).expanduser()
    if target is not None and (len(names) != 1 or target.exists()):
        raise ValueError(f"expected one split= and a file that does not exist for fix=, got {names} and {target}")
    with whole_folder(Path(str(config["out"] or f"runs/check_data-{datetime.now():%Y%m%d-%H%M%S}"))) as folder:
        checks = [SplitCheck(name, partial(build, config["data"][name])) for name in names]
        for check in checks:
            steps = check.read(config["num_workers"])
            for _ in track(steps, check.name, total=check.num_images, console=Console(stderr=True)):
                pass
        overall = compare_categories(checks)
        write_files(folder, checks, overall, config["pictures"])
    show(checks, overall)
    print(f"report, plot and pictures: {folder}")
    if target is not None:
        fix(checks[0], target)
    return int(any(check.errors for check in checks) or bool(overall))


def chosen_splits(config: Mapping[str, Any]) -> list[str]:
    """The splits to check, in the order of `SPLITS`.

    Raises:
        ValueError: one that the data does not have.
    """
    there = [name for name in SPLITS if config["data"].get(name) is not None]
    chosen = [config["split"]] if isinstance(config["split"], str) else config["split"]
    unknown = [name for name in chosen or [] if name not in there]
    if unknown or not there:
        raise ValueError(f"expected split= among {there}, got {unknown}")
    return [name for name in there if chosen is None or name in chosen]


def write_files(folder: Path, checks: Sequence[SplitCheck], overall: Sequence[Finding], pictures: int) -> None:
    """Write `report.json`, `frequencies.png` and `pictures/`."""
    splits = {check.name: check.as_dict() for check in checks}
    report = {
        "num_errors": sum(len(check.errors) for check in checks) + len(overall),
        "num_warnings": sum(len(check.warnings) for check in checks),
        "errors": [vars(finding) for finding in overall],
        "splits": splits,
    }
    (folder / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    labelled = {name: split["categories"] for name, split in splits.items() if split["images_with_truth"]}
    if labelled and not overall:
        frequency_figure(labelled).savefig(folder / "frequencies.png")
    (folder / "pictures").mkdir()
    for check in checks:
        rarest = check.contents.rarest(pictures)
        crowded = check.contents.most_crowded(pictures)
        for number, (category, index) in enumerate(rarest, start=1):
            draw(check, index, folder / "pictures" / f"{check.name}_rarest_{number}_{_plain(category.name)}.png")
        for number, (total, index) in enumerate(crowded, start=1):
            draw(check, index, folder / "pictures" / f"{check.name}_crowded_{number}_{total}_instances.png")


def draw(check: SplitCheck, index: int, path: Path) -> None:
    """Write an overlay of one sample."""
    assert check.samples is not None, "it has been read"
    sample = check.samples[index]
    assert sample.panoptic_map is not None, "it has pixels of a category"
    picture = overlay(sample.image, sample.panoptic_map, check.contents.categories)
    if not cv2.imwrite(str(path), picture[..., ::-1]):
        raise OSError(f"could not write {path}")


def _plain(name: str) -> str:
    """A category's name as part of a file's."""
    return re.sub(r"\W+", "_", name)


def show(checks: Sequence[SplitCheck], overall: Sequence[Finding]) -> None:
    """Print tables of contents and findings."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    splits = {check.name: check.as_dict() for check in checks}
    for name, split in splits.items():
        if split["images_with_truth"]:
            console.print(frequency_table(name, split["categories"]))
    console.print(contents_table(splits))
    findings = [("", vars(finding)) for finding in overall]
    findings += [(check.name, vars(finding)) for check in checks for finding in check.findings]
    if findings:
        console.print(findings_table(findings))
    errors = sum(finding["is_error"] for _, finding in findings)
    console.print(f"{errors} errors, {len(findings) - errors} warnings", highlight=False)


def fix(check: SplitCheck, target: Path) -> None:
    """Write a JSON with areas and boxes counted anew.

    Raises:
        ValueError: the data set is not in COCO panoptic format, or has other errors.
    """
    others = [finding for finding in check.errors if finding.kind not in FIXABLE]
    if not isinstance(check.samples, CocoPanoptic) or others:
        reason = f"it has {len(others)} other errors" if others else f"{check.name} is not in COCO panoptic format"
        raise ValueError(f"fix= counts areas and boxes of a panoptic JSON anew and nothing else, but {reason}")
    file = check.samples.panoptic_file
    changed = write_recounted(file, target)
    print(f"{changed} segments changed: {target}; its PNGs are those of png_folder={file.png_folder}")
