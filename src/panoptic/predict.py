"""`panoptic predict`: photographs to panoptic maps, with an overlay picture each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import cv2
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from panoptic.configuration import options_and_fusion, parse_overrides, with_fusion
from panoptic.data.panoptic_writer import PanopticWriter
from panoptic.data.transforms import EvalTransform
from panoptic.drawing import overlay
from panoptic.inference.networks import SecondRun, try_fusion
from panoptic.inference.predictor import Predictor
from panoptic.inference.stream import StageTimes, predict_stream
from panoptic.inference.test_time import TestTime
from panoptic.run_folder import whole_folder
from panoptic.structures import PanopticMap

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
IMAGE_IDS = ("number", "name")


def main(argv: Sequence[str]) -> int:
    """Predict as configured; returns the exit status."""
    composed = parse_overrides("predict", "Segment photographs of any size; writes PNG + JSON and overlays.", argv)
    if composed is None:
        return 0
    config, fusion = options_and_fusion(composed)
    if config["image_ids"] not in IMAGE_IDS:
        raise ValueError(f"expected image_ids=number or name, got {config['image_ids']!r}")
    if config["longest_side"] is not None and type(config["longest_side"]) is not int:
        raise ValueError(f"expected a whole number for longest_side, got {config['longest_side']!r}")
    images = find_images(config["images"])
    predictor = Predictor.from_run(
        config["run"],
        config["checkpoint"],
        second=SecondRun.of(config),
        configure=partial(with_fusion, change=fusion),
        infer=TestTime.of(config),
    )
    try_fusion(predictor.network, predictor.fusion, predictor.categories, predictor.infer)
    if config["longest_side"] is not None:
        predictor.resize = EvalTransform(config["longest_side"])
    with whole_folder(Path(str(config["out"]))) as folder:
        times = _predict(predictor, images, folder, config)
    print(f"{len(images)} images: maps in {folder / 'panoptic.json'}, pictures in {folder / 'overlays'}")
    print(times.summary())
    return 0


def _predict(predictor: Predictor, images: Sequence[Path], folder: Path, config: Mapping[str, Any]) -> StageTimes:
    """Write maps and overlays of all images into the folder, with a progress bar."""
    (folder / "overlays").mkdir()

    def draw(path: Path, photograph: Tensor, panoptic_map: PanopticMap) -> None:
        target = folder / "overlays" / f"{path.stem}.png"
        if not cv2.imwrite(str(target), overlay(photograph, panoptic_map, predictor.categories)[..., ::-1]):
            raise OSError(f"could not write {target}")

    def write(number: int, path: Path, panoptic_map: PanopticMap) -> None:
        image_id = number if config["image_ids"] == "number" else path.stem
        writer.add(panoptic_map, image_id=image_id, image_name=path.name)

    stream = predict_stream(predictor, images, draw=draw, write=write, fusion_threads=config["fusion_threads"])
    columns = (TextColumn("predict"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        PanopticWriter(folder / "panoptic.json", predictor.categories) as writer,
        Progress(*columns) as progress,
        closing(stream),  # its threads end before the folder may go
    ):
        task = progress.add_task("", total=len(images))
        for times in stream:
            progress.update(task, completed=times.images)
    return times


def find_images(chosen: str | Sequence[str]) -> list[Path]:
    """Files, or every image of a folder, in order of their names.

    Raises:
        FileNotFoundError: a path that does not exist, or a folder without an image.
        ValueError: two files of one name, whose results would overwrite each other.
    """
    paths: list[Path] = []
    for entry in chosen if isinstance(chosen, list | tuple) else [chosen]:
        path = Path(str(entry)).expanduser()
        found = [path] if path.is_file() else []
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise FileNotFoundError(f"images={path}: no such file, or a folder without {', '.join(SUFFIXES)}")
        paths += found
    if not paths:
        raise ValueError("expected at least one photograph, got an empty list; give images=<file, folder or list>")
    stems = [path.stem for path in paths]
    repeated = sorted({stem for stem in stems if stems.count(stem) > 1})
    if repeated:
        raise ValueError(f"images named {repeated} occur more than once; results are named after them")
    return paths
