"""COCO's instances format: overlapping masks as polygons or run lengths, in one JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faster_coco_eval.core.mask as coco_mask
import numpy as np
import torch
from numpy.typing import NDArray

from panoptic.data.masks import mask_boxes, stack_masks
from panoptic.data.panoptic_format import ImageId, contiguous_ids
from panoptic.structures import Category, Instances


@dataclass(frozen=True, eq=False)
class InstancesFile:
    """An instances JSON; masks are drawn when they are asked for.

    Args:
        path: the JSON.
        entries: {image id: its entries of `annotations`}, empty for an image without any instance.
        contiguous: {dataset_category_id: category_id}.
    """

    path: Path
    entries: dict[ImageId, list[dict[str, Any]]]
    contiguous: dict[int, int]


def read_instances_json(path: Path, categories: Sequence[Category]) -> InstancesFile:
    """Read an instances JSON.

    Args:
        path: the JSON.
        categories: of the panoptic data set; matched by dataset_category_id.

    Raises:
        FileNotFoundError: no such JSON.
        ValueError: not JSON, a missing key, an annotation of an unlisted image, of an unknown category or of stuff.
    """
    path = Path(path)
    return collect_instances(path, load_instances_json(path), categories)


def load_instances_json(path: Path) -> Any:
    """What the JSON holds; raises FileNotFoundError or ValueError if it is none."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"expected JSON in {path}, got: {error}") from error


def collect_instances(path: Path, content: Any, categories: Sequence[Category]) -> InstancesFile:
    """As `read_instances_json`, of the content of a JSON; `path` is for errors."""
    contiguous = contiguous_ids(categories)
    things = {dataset_id for dataset_id, number in contiguous.items() if categories[number].is_thing}
    try:
        entries: dict[ImageId, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
        for entry in content["annotations"]:
            if entry["category_id"] not in things:
                raise ValueError(
                    f"unknown category id {entry['category_id']} in {path}, annotation {entry['id']}; "
                    f"things of the panoptic data set are {sorted(things)}"
                )
            if entry["image_id"] not in entries:
                raise ValueError(f"annotation {entry['id']} in {path} is of image {entry['image_id']}, not in `images`")
            entries[entry["image_id"]].append(entry)
    except KeyError as error:
        raise ValueError(f"an entry of {path} lacks the key {error}") from error
    return InstancesFile(path, entries, contiguous)


def read_instances(file: InstancesFile, image_id: ImageId, size: tuple[int, int]) -> Instances:
    """The instances of one image, those without pixels left out.

    Args:
        file: which must list the image.
        image_id: as in the JSON.
        size: (H, W) of the image in pixels.
    """
    entries = file.entries[image_id]
    masks = [_draw(file.path, entry, size) for entry in entries]
    kept = [number for number, mask in enumerate(masks) if mask.any()]
    stacked = stack_masks([masks[number] for number in kept], size)
    return Instances(
        category_ids=torch.tensor([file.contiguous[entries[n]["category_id"]] for n in kept], dtype=torch.int64),
        masks=stacked,
        boxes=mask_boxes(stacked),
        scores=torch.ones(len(kept)),
        is_crowd=torch.tensor([bool(entries[n].get("iscrowd", 0)) for n in kept], dtype=torch.bool),
    )


def _draw(path: Path, entry: Mapping[str, Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The mask (H, W) of one annotation: polygons, or run lengths as numbers or as a string."""
    height, width = size
    segmentation = entry["segmentation"]
    if isinstance(segmentation, list):
        if any(len(polygon) % 2 for polygon in segmentation):
            raise ValueError(f"a polygon of annotation {entry['id']} in {path} has an odd number of coordinates")
        polygons = [polygon for polygon in segmentation if len(polygon) >= 6]  # two points or fewer have no area
        if not polygons:
            return np.zeros(size, dtype=np.uint8)
        runs = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    else:
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(
                f"annotation {entry['id']} in {path} has size {segmentation['size']}, its image {[height, width]}"
            )
        counts = segmentation["counts"]
        runs = coco_mask.frPyObjects(segmentation, height, width) if isinstance(counts, list) else segmentation
    mask: NDArray[np.uint8] = coco_mask.decode(runs)
    return np.ascontiguousarray(mask)
