"""Tiny files of the formats that `panoptic convert` reads, written with Pillow, numpy and json alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (9, 13)
"""(H, W) of every photograph, in pixels."""

QUARTER_TURN, HALF_TURN = 6, 3
"""EXIF orientations."""


def write_photograph(path: Path, size: tuple[int, int] = SIZE, orientation: int | None = None) -> Path:
    """A photograph of (H, W) pixels as stored, with an EXIF orientation if one is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.full((*size, 3), 90, dtype=np.uint8))
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(path, **({} if orientation is None else {"exif": exif}))
    return path


def write_map(path: Path, values: Any, dtype: type = np.uint8) -> Path:
    """A grey PNG of (H, W) values of 8 or 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype=dtype)).save(path)
    return path


def write_categories(path: Path, *entries: tuple[int, str, bool]) -> Path:
    """A file of categories (id, name, thing)."""
    path.write_text(json.dumps([{"id": i, "name": name, "isthing": int(thing)} for i, name, thing in entries]))
    return path


def write_labelme(folder: Path, name: str, shapes: Sequence[Mapping[str, Any]], **changes: Any) -> Path:
    """A photograph and its labelme file; `changes` replace keys of the file."""
    write_photograph(folder / f"{name}.png")
    path = folder / f"{name}.json"
    content = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": f"{name}.png", "imageData": None}
    path.write_text(json.dumps({**content, "imageHeight": SIZE[0], "imageWidth": SIZE[1], **changes}))
    return path


def shape(label: str, points: Any, kind: str = "polygon", **more: Any) -> dict[str, Any]:
    """An entry of labelme's `shapes`; points are (x, y) in pixels."""
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **more}


def rectangle(x1: float, y1: float, x2: float, y2: float) -> list[list[float]]:
    """The corners of columns x1..x2 - 1 and rows y1..y2 - 1."""
    return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]


def write_instances(path: Path, annotations: Sequence[Mapping[str, Any]], **changes: Any) -> Path:
    """An instances JSON of the photographs 7 and 8, with the categories car and person, as CVAT exports it."""
    for name in ("first.jpg", "sub folder/zweite Straße.jpg"):
        write_photograph(path.parent / "images" / name)
    images = [
        {"id": 7, "file_name": "first.jpg", "height": SIZE[0], "width": SIZE[1]},
        {"id": 8, "file_name": "sub folder/zweite Straße.jpg", "height": SIZE[0], "width": SIZE[1]},
    ]
    categories = [{"id": 1, "name": "car", "supercategory": ""}, {"id": 2, "name": "person", "supercategory": ""}]
    content = {"images": images, "annotations": list(annotations), "categories": categories, **changes}
    path.write_text(json.dumps(content))
    return path


def annotation(number: int, segmentation: Any, category: int = 1, image: int = 7, **more: Any) -> dict[str, Any]:
    """An entry of `annotations`."""
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, **more}


def drawn(image: Any) -> list[str]:
    """A panoptic map as text: the segment ids, 0 as '.', one digit each."""
    ids = image.panoptic_map.segment_ids.numpy()
    return ["".join("." if i == 0 else str(i) for i in row) for row in ids.tolist()]
