"""Tiny data sets in COCO's panoptic format, written with Pillow and json alone, to check readers and loaders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CATEGORIES = [
    {"id": 90, "name": "toothbrush", "isthing": 1, "supercategory": "indoor", "color": [191, 162, 208]},
    {"id": 3, "name": "car", "isthing": 1, "supercategory": "vehicle", "color": [0, 0, 142]},
    {"id": 184, "name": "tree", "isthing": 0, "supercategory": "plant", "color": [107, 142, 35]},
]
"""Not in order and with gaps, as in COCO; contiguous ids are car 0, toothbrush 1, tree 2."""


@dataclass(frozen=True)
class TinyCoco:
    """Paths of a tiny data set, and what is in it.

    Args:
        panoptic_json: PNGs are in the folder beside it.
        image_folder: PNG photographs, so that pixels survive.
        ids: {image id: (H, W) segment ids}.
        images: {image id: (H, W, 3) uint8 RGB}.
    """

    panoptic_json: Path
    image_folder: Path
    ids: dict[int, np.ndarray]
    images: dict[int, np.ndarray]

    @property
    def png_folder(self) -> Path:
        return self.panoptic_json.with_suffix("")

    def content(self) -> dict[str, Any]:
        return json.loads(self.panoptic_json.read_text())

    def rewrite(self, content: dict[str, Any]) -> None:
        self.panoptic_json.write_text(json.dumps(content))


def write_tiny_coco(
    folder: Path, count: int = 5, sizes: Sequence[tuple[int, int]] = ((12, 17), (9, 20), (15, 11)), seed: int = 0
) -> TinyCoco:
    """Write `count` images of the given sizes in turn.

    A tree fills the image below a void row, two cars lie on it (the second a crowd), and the last image has no thing.
    """
    rng = np.random.default_rng(seed)
    json_path, image_folder = folder / "annotations" / "tiny.json", folder / "images"
    (folder / "annotations" / "tiny").mkdir(parents=True)
    image_folder.mkdir(parents=True)
    all_ids, all_images, images, annotations = {}, {}, [], []
    for number in range(count):
        image_id, (height, width) = 100 + number, sizes[number % len(sizes)]
        ids = np.full((height, width), 2**24 - 1)
        ids[0] = 0
        segments = [{"id": 2**24 - 1, "category_id": 184, "iscrowd": 0}]
        if number < count - 1:
            ids[2:6, 1:7] = 256 + number
            ids[4:8, 8:10] = 70000
            segments.append({"id": 256 + number, "category_id": 3, "iscrowd": 0})
            segments.append({"id": 70000, "category_id": 3, "iscrowd": 1})
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        channels = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
        Image.fromarray(channels).save(folder / "annotations" / "tiny" / f"{image_id}.png")
        Image.fromarray(image).save(image_folder / f"{image_id}_photo.png")
        images.append({"id": image_id, "file_name": f"{image_id}_photo.png", "height": height, "width": width})
        annotations.append({"image_id": image_id, "file_name": f"{image_id}.png", "segments_info": segments})
        all_ids[image_id], all_images[image_id] = ids, image
    json_path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))
    return TinyCoco(json_path, image_folder, all_ids, all_images)
