"""`panoptic predict`: photographs to panoptic maps, with an overlay picture each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
from rich.progress import track

from panoptic.configuration import parse_overrides, resolved
from panoptic.data.panoptic_writer import PanopticWriter
from panoptic.drawing import overlay
from panoptic.inference.predictor import Predictor, as_image
from panoptic.run_folder import whole_folder

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def main(argv: Sequence[str]) -> int:
    """Predict as configured; returns the exit status."""
    composed = parse_overrides("predict", "Segment photographs of any size; writes PNG + JSON and overlays.", argv)
    if composed is None:
        return 0
    config = resolved(composed)
    images = find_images(config["images"])
    predictor = Predictor.from_run(config["run"], config["checkpoint"])
    with (
        whole_folder(Path(str(config["out"]))) as folder,
        PanopticWriter(folder / "panoptic.json", predictor.categories) as writer,
    ):
        (folder / "overlays").mkdir()
        for number, path in enumerate(track(images, description="predict")):
            image = as_image(path)
            panoptic_map = predictor(image)
            writer.add(panoptic_map, image_id=number, image_name=path.name)
            picture = overlay(image, panoptic_map, predictor.categories)
            target = folder / "overlays" / f"{path.stem}.png"
            if not cv2.imwrite(str(target), picture[..., ::-1]):
                raise OSError(f"could not write {target}")
    print(f"{len(images)} images: maps in {folder / 'panoptic.json'}, pictures in {folder / 'overlays'}")
    return 0


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
