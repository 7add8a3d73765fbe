"""Tiny data sets in Mapillary Vistas' official layouts, written with Pillow and json alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

LABELS = [
    {"name": "animal--bird", "readable": "Bird", "instances": True, "evaluate": True, "color": [165, 42, 42]},
    {"name": "nature--sky", "readable": "Sky", "instances": False, "evaluate": True, "color": [70, 130, 180]},
    {"name": "void--unlabeled", "readable": "Unlabeled", "instances": False, "evaluate": False, "color": [0, 0, 0]},
    {"name": "object--vehicle--car", "readable": "Car", "instances": True, "evaluate": True, "color": [0, 0, 142]},
]
"""Unlike in v1.2, `unlabeled` is not the last, so that categories and labels are numbered differently."""

SIZES = {"b_second": (12, 17), "a_first": (9, 20)}
BIRD, SKY, UNLABELED, CAR = range(4)


def values_of(key: str) -> np.ndarray:
    """(H, W) uint16, label * 256 + number: sky (its number is no matter), a void row, a bird and two cars."""
    values = np.full(SIZES[key], SKY * 256, dtype=np.uint16)
    values[:, -1] = SKY * 256 + 5
    values[0] = UNLABELED * 256
    values[2:5, 1:4] = BIRD * 256
    values[6:8, 2:9] = CAR * 256
    values[6:8, 9:12] = CAR * 256 + 255
    return values


def write_tiny_mapillary(root: Path, *splits: str, panoptic: bool) -> Path:
    """Write splits of two images each, with ground truth as instances and, if asked for, as panoptic files too."""
    return _write(root, splits, "", "config.json", "panoptic_2018.json" if panoptic else None)


def write_tiny_mapillary_v2(root: Path, *splits: str, panoptic: bool) -> Path:
    """The same in the layout of v2.0."""
    return _write(root, splits, "v2.0", "config_v2.0.json", "panoptic_2020.json" if panoptic else None)


def _write(root: Path, splits: Sequence[str], annotations: str, config: str, panoptic_json: str | None) -> Path:
    root.mkdir(exist_ok=True)
    (root / config).write_text(json.dumps({"labels": LABELS, "version": "1.2"}))
    rng = np.random.default_rng(0)
    for split in splits:
        folder = root / split / annotations
        (root / split / "images").mkdir(parents=True)
        for name in ("instances", "labels", *(["panoptic"] if panoptic_json else [])):
            (folder / name).mkdir(parents=True)
        for key, (height, width) in SIZES.items():
            values = values_of(key)
            pixels = np.kron(rng.integers(0, 256, (height // 3 + 1, width // 3 + 1, 3)), np.ones((3, 3, 1)))
            Image.fromarray(pixels[:height, :width].astype(np.uint8)).save(root / split / "images" / f"{key}.jpg")
            Image.fromarray(values).save(folder / "instances" / f"{key}.png")
            Image.fromarray((values // 256).astype(np.uint8)).save(folder / "labels" / f"{key}.png")
        if panoptic_json:
            _write_panoptic(folder / "panoptic" / panoptic_json)
    return root


def panoptic_content(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "panoptic_2018.json").read_text())


def _write_panoptic(path: Path) -> None:
    """The JSON and its PNGs. Segments are numbered from 70001 on, in the order of their values."""
    images, annotations = [], []
    for key in SIZES:
        values = values_of(key)
        values[values // 256 == SKY] = SKY * 256
        ids, infos = np.zeros(values.shape, dtype=np.int64), []
        for number, value in enumerate(np.unique(values[values // 256 != UNLABELED]), start=70001):
            ids[values == value] = number
            infos.append({"id": number, "category_id": int(value) // 256 + 1, "iscrowd": 0})
        channels = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
        Image.fromarray(channels).save(path.parent / f"{key}.png")
        images.append({"id": key, "file_name": f"{key}.jpg", "height": ids.shape[0], "width": ids.shape[1]})
        annotations.append({"image_id": key, "file_name": f"{key}.png", "segments_info": infos})
    categories = [
        {
            "id": label + 1,
            "name": entry["readable"],
            "isthing": int(entry["instances"]),
            "supercategory": entry["name"],
            "color": entry["color"],
        }
        for label, entry in enumerate(LABELS)
        if entry["evaluate"]
    ]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
