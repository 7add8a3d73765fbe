"""What the commands make of the folders of a samples root, as one Markdown table.

Each folder is checked, converted where it is not in COCO panoptic format, trained on for ten steps at tiny size, and
evaluated. What every command printed is in the output folder, beside what it wrote. Ten steps teach nothing: the
columns of training and evaluation show that the commands run, and on which numbers.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import track

from panoptic.__main__ import main as panoptic

STEPS = 10
TINY = (
    "data.train_transform.size=[65,81]",
    "data.eval_transform.longest_side=160",
    "data.batch_size=1",
    "data.num_workers=0",
    "scheduler.warmup_steps=0",
    "pictures=0",
    f"trainer.max_steps={STEPS}",
    f"trainer.max_epochs={STEPS}",  # of one image, if need be
    f"trainer.check_val_every_n_epoch={2 * STEPS}",
    "trainer.log_every_n_steps=1",
)
PANOPTIC = ("experiment=deeperlab_scenes",)
SEMANTIC = ("experiment=deeplabv3_scenes",)


@dataclass(frozen=True)
class SampleFolder:
    """One folder and how it is read; "{root}" in words is its path.

    Args:
        name: of the folder.
        data: words of `panoptic check-data` and `panoptic train`.
        experiment: words of `panoptic train`.
        convert: words of `panoptic convert`, empty for what is in COCO panoptic format.
        is_refused: it lacks what is needed, and the check must say so.
    """

    name: str
    data: tuple[str, ...]
    experiment: tuple[str, ...] = PANOPTIC
    convert: tuple[str, ...] = ()
    is_refused: bool = False


def _same_for_both(*words: str) -> tuple[str, ...]:
    """Words of `data.train` that hold for `data.val` too."""
    return tuple(f"data.{split}.{word}" for split in ("train", "val") for word in words)


FOLDERS = (
    SampleFolder(
        "coco_panoptic",
        (
            "data=coco_panoptic",
            "data.root={root}",
            *_same_for_both("panoptic_json={root}/annotations/panoptic_val2017.json", "image_folder={root}/val2017"),
        ),
    ),
    SampleFolder(
        "coco_instances",
        ("data=coco_instances", "data.root={root}", "data.train_transform.scale=[0.15,0.3]"),
        convert=(
            "from=cvat",
            "from.instances_json={root}/annotations/instances_val2017.json",
            "from.images={root}/val2017",
        ),
    ),
    SampleFolder(
        "coco_stuff",
        (
            "data=coco_stuff",
            "data.root={root}",
            *(
                f"data.{split}.{kind}_folder={{root}}/{split}_{folder}"
                for split in ("train", "val")
                for kind, folder in (("image", "img"), ("label", "label"))
            ),
        ),
        SEMANTIC,
        (
            "from=spade",
            "from.class_maps={root}/val_label",
            "from.instance_maps={root}/val_inst",
            "from.images={root}/val_img",
            "from.categories={root}/annotations/panoptic_stuffthing_val.json",
        ),
    ),
    SampleFolder(
        "cityscapes",
        ("data=cityscapes", "data.root={root}", "data.train.split=val"),
        convert=("from=cityscapes_ids", "from.maps={root}/gtFine/val", "from.images={root}/leftImg8bit/val"),
    ),
    SampleFolder(
        "cityscapes_panoptic_deeplab2",
        (
            "data=coco_panoptic",
            "data.root={root}",
            *_same_for_both(
                "panoptic_json={root}/gtFine/cityscapes_panoptic_dummy_trainId.json", "image_folder={root}/leftImg8bit"
            ),
        ),
        is_refused=True,
    ),
    SampleFolder(
        "mapillary_vistas",
        ("data=mapillary", "data.root={root}", "data.val.split=training", "data.train_transform.longest_side=160"),
        convert=(
            "from=mapillary_ids",
            "from.maps={root}/training/instances",
            "from.images={root}/training/images",
            "from.config={root}/config.json",
        ),
    ),
    SampleFolder(
        "voc2012_style",
        ("data=voc_panoptic", "data.root={root}/VOCdevkit/VOC2012"),
        convert=("from=voc_pngs", "from.root={root}/VOCdevkit/VOC2012"),
    ),
    SampleFolder("camvid", ("data=camvid", "data.root={root}")),
    SampleFolder(
        "dsb2018",
        ("data=nuclei", "data.root={root}"),
        convert=("from=object_masks", "from.folder={root}/stage1_train_sample", "from.category=nucleus"),
    ),
)


class FailedError(RuntimeError):
    """A command that ended with an error; the message is its last word."""


def send_messages_of_lightning(stream: TextIO | None) -> None:
    """Its handlers keep the stream that they found when it was imported."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(stream)


def run(log: Path, *words: str) -> None:
    """Run one command, what it prints goes to a file.

    Raises:
        FailedError: it did not end well.
    """
    with log.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        send_messages_of_lightning(file)
        status = panoptic(words)
        send_messages_of_lightning(sys.__stderr__)
    if status:
        lines = [line for line in log.read_text().splitlines() if line.startswith("panoptic ")]
        raise FailedError(lines[-1] if lines else f"status {status}, see {log}")


def check(folder: SampleFolder, words: Sequence[str], out: Path) -> tuple[dict[str, str], str | None]:
    """Cells of `panoptic check-data`, what is in the folder; and what is wrong with it, None if nothing is."""
    fault = None
    try:
        run(out / "check.log", "check-data", *words, f"out={out / 'check'}")
    except FailedError as error:
        fault = error
    report = out / "check" / "report.json"
    if not report.is_file():
        raise fault or FailedError(f"no {report}")
    content = json.loads(report.read_text())
    splits = content["splits"].values()
    cells = {
        "images": ", ".join(str(split["images"]) for split in splits),
        "instances": ", ".join(str(split["instances"]) for split in splits),
        "errors": str(content["num_errors"]),
        "warnings": str(content["num_warnings"]),
    }
    if (content["num_errors"] > 0) == folder.is_refused:
        return cells, None
    first = next((finding["message"] for split in splits for finding in split["errors"]), "no error was found")
    return cells, f"{content['num_errors']} errors in check-data: {first}"


def convert(words: Sequence[str], out: Path) -> dict[str, str]:
    """The cell of `panoptic convert`: what was written."""
    run(out / "convert.log", "convert", *words, f"out={out / 'converted'}")
    content = json.loads((out / "converted" / "panoptic.json").read_text())
    segments = sum(len(annotation["segments_info"]) for annotation in content["annotations"])
    return {"converted": f"{len(content['annotations'])} images, {segments} segments"}


def train_and_evaluate(words: Sequence[str], out: Path) -> dict[str, str]:
    """Cells of `panoptic train` and `panoptic evaluate`: losses of the first and the last step, and qualities."""
    run(out / "train.log", "train", *words, *TINY, f"run={out / 'run'}")
    losses = [row["train_loss"] for path in (out / "run").rglob("metrics.csv") for row in _rows(path)]
    kept = [float(loss) for loss in losses if loss]
    if len(kept) != STEPS:
        raise FailedError(f"expected {STEPS} steps of training, got {len(kept)}")
    evaluation = out / "evaluation"
    run(out / "evaluate.log", "evaluate", f"run={out / 'run'}", "checkpoint=last", "pictures=0", f"out={evaluation}")
    values = json.loads((evaluation / "evaluation.json").read_text())["all"]
    qualities = [f"{name} {_percent(values.get(key))}" for name, key in (("PQ", "pq"), ("mIoU", "miou"))]
    return {"loss, step 1 to 10": f"{kept[0]:.2f} to {kept[-1]:.2f}", "evaluation": ", ".join(qualities)}


def _rows(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


COLUMNS = ("images", "instances", "errors", "warnings", "converted", "loss, step 1 to 10", "evaluation")


def process(folder: SampleFolder, root: Path, out: Path) -> tuple[dict[str, str], str | None]:
    """All cells of one folder, and what failed, None if nothing did."""
    out.mkdir()
    data = [word.format(root=root / folder.name) for word in folder.data]
    cells: dict[str, str] = {}
    try:
        cells, fault = check(folder, data, out)
        if folder.is_refused or fault:
            return cells, fault
        if folder.convert:
            cells |= convert([word.format(root=root / folder.name) for word in folder.convert], out)
        cells |= train_and_evaluate([*folder.experiment, *data], out)
    except FailedError as error:
        return cells, str(error)
    return cells, None


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, process the folders and write `table.md`; 1 if one fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path, help="the samples root")
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the table, logs and what is written")
    names = [folder.name for folder in FOLDERS]
    parser.add_argument("--folder", action="append", choices=names, help="only this one; may be repeated")
    options = parser.parse_args(arguments)
    chosen = [folder for folder in FOLDERS if options.folder is None or folder.name in options.folder]
    missing = [folder.name for folder in chosen if not (options.root / folder.name).is_dir()]
    if missing or options.out.exists():
        fault = f"{options.root} lacks {missing}" if missing else f"{options.out} exists; choose another --out"
        print(f"error: {fault}", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True)
    lines = [f"| folder | {' | '.join(COLUMNS)} |", f"|{'---|' * (len(COLUMNS) + 1)}"]
    failures = []
    for folder in track(chosen, "samples", console=Console(stderr=True)):
        cells, failure = process(folder, options.root.resolve(), (options.out / folder.name).resolve())
        lines.append(f"| {folder.name} | {' | '.join(cells.get(column, '-') for column in COLUMNS)} |")
        failures += [f"{folder.name}: {failure}"] if failure else []
    (options.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return int(bool(failures))


if __name__ == "__main__":
    raise SystemExit(main())
