"""A tiny data set in Cityscapes' official layout, written with Pillow and json alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

EVALUATED = {
    **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light"},
    **{20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car"},
    **{27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"},
}
"""{label id: name}, written down a second time."""

THINGS = range(24, 34)
SIZE = (12, 17)
FRAMES = {"berlin_000001_000019": "berlin", "aachen_000000_000019": "aachen", "berlin_000000_000019": "berlin"}
"""{frame: city}; the order of frames on disk is another."""


def values_of(frame: str) -> np.ndarray:
    """(H, W) uint16 of instanceIds: road and sky, two cars, a group of cars, a trailer, and the car's own bonnet."""
    values = np.full(SIZE, 7, dtype=np.uint16)
    values[:4] = 23
    values[0] = 0
    values[-1] = 1  # ego vehicle
    values[5:8, 1:5] = 26000
    values[5:8, 5:9] = 26013
    values[5:8, 9:11] = 26
    values[4:6, 13:16] = 30001
    if frame.startswith("berlin"):
        values[3:9, 12] = 24000
    return values


def write_tiny_cityscapes(root: Path, *splits: str, panoptic: bool) -> Path:
    """Write splits of three frames in two cities; with the official panoptic files too, if asked for."""
    rng = np.random.default_rng(0)
    for split in splits:
        for frame, city in FRAMES.items():
            photographs, truth = root / "leftImg8bit" / split / city, root / "gtFine" / split / city
            photographs.mkdir(parents=True, exist_ok=True)
            truth.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(photographs / f"{frame}_leftImg8bit.png")
            values = values_of(frame)
            Image.fromarray(values).save(truth / f"{frame}_gtFine_instanceIds.png")
            labels = np.where(values < 1000, values, values // 1000).astype(np.uint8)
            Image.fromarray(labels).save(truth / f"{frame}_gtFine_labelIds.png")
        if panoptic:
            _write_panoptic(root / "gtFine", split)
    return root


def panoptic_content(root: Path, split: str) -> dict[str, Any]:
    return json.loads((root / "gtFine" / f"cityscapes_panoptic_{split}.json").read_text())


def _write_panoptic(folder: Path, split: str) -> None:
    """As cityscapesScripts' `createPanopticImgs.py` does: ids are those of instanceIds."""
    (folder / f"cityscapes_panoptic_{split}").mkdir()
    images, annotations = [], []
    for frame in FRAMES:
        values = values_of(frame).astype(int)
        labels = np.where(values < 1000, values, values // 1000)
        ids = np.where(np.isin(labels, list(EVALUATED)), values, 0)
        infos = []
        for value in np.unique(ids[ids > 0]).tolist():
            label = value if value < 1000 else value // 1000
            infos.append({"id": value, "category_id": label, "iscrowd": int(value < 1000 and label in THINGS)})
        channels = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
        name = f"{frame}_gtFine_panoptic.png"
        Image.fromarray(channels).save(folder / f"cityscapes_panoptic_{split}" / name)
        photograph = f"{frame}_gtFine_leftImg8bit.png"  # that tool's habit
        images.append({"id": frame, "file_name": photograph, "height": SIZE[0], "width": SIZE[1]})
        annotations.append({"image_id": frame, "file_name": name, "segments_info": infos})
    categories = [
        {"id": label, "name": name, "isthing": int(label in THINGS), "supercategory": "any", "color": [1, 2, 3]}
        for label, name in EVALUATED.items()
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / f"cityscapes_panoptic_{split}.json").write_text(json.dumps(content))
