"""COCO's instances format: overlapping masks as polygons or run lengths, in one JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faster_coco_eval.core.mask as coco_mask
import faster_coco_eval.mask_api_new_cpp as mask_api
import numpy as np
import torch
from numpy.typing import NDArray

from panoptic.data.faults import DataError, Kind, read_bytes, report, warn
from panoptic.data.masks import draw_runs, mask_boxes, stack_masks
from panoptic.data.panoptic_entries import ImageId, contiguous_ids
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
        return json.loads(read_bytes(path))
    except ValueError as error:
        raise DataError(f"expected JSON in {path}, got: {error}", kind=Kind.UNREADABLE, file=path) from error


def collect_instances(path: Path, content: Any, categories: Sequence[Category]) -> InstancesFile:
    """As `read_instances_json`, of the content of a JSON; `path` is for errors."""
    contiguous = contiguous_ids(categories)
    things = {dataset_id for dataset_id, number in contiguous.items() if categories[number].is_thing}
    try:
        entries: dict[ImageId, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
        annotations = content["annotations"]
    except KeyError as error:
        raise DataError(f"an entry of {path} lacks the key {error}", kind=Kind.FORMAT, file=path) from error
    except TypeError as error:
        raise DataError(f"{path} is not as in COCO's instances format: {error}", kind=Kind.FORMAT, file=path) from error
    for entry in annotations:
        try:
            _add(path, entry, entries, things)
        except KeyError as error:
            report(DataError(f"an entry of {path} lacks the key {error}", kind=Kind.FORMAT, file=path))
        except TypeError as error:
            message = f"an entry of {path} is not as in COCO's instances format: {error}"
            report(DataError(message, kind=Kind.FORMAT, file=path))
    return InstancesFile(path, entries, contiguous)


def _add(path: Path, entry: dict[str, Any], entries: dict[ImageId, list[dict[str, Any]]], things: set[int]) -> None:
    """Put one annotation with those of its image; while faults are recorded, leave out one that cannot be used."""
    if entry["category_id"] not in things:
        message = (
            f"unknown category id {entry['category_id']} in {path}, annotation {entry['id']}; "
            f"things of the panoptic data set are {sorted(things)}"
        )
        report(DataError(message, kind=Kind.UNKNOWN_CATEGORY, file=path))
    elif entry["image_id"] not in entries:
        message = f"annotation {entry['id']} in {path} is of image {entry['image_id']}, not in `images`"
        report(DataError(message, kind=Kind.UNKNOWN_IMAGE, file=path))
    elif "segmentation" not in entry:
        raise KeyError("segmentation")
    else:
        entries[entry["image_id"]].append(entry)


def read_instances(file: InstancesFile, image_id: ImageId, size: tuple[int, int]) -> Instances:
    """The instances of one image, those without pixels left out.

    Args:
        file: which must list the image.
        image_id: as in the JSON.
        size: (H, W) of the image in pixels.
    """
    entries = file.entries[image_id]
    kept: list[int] = []
    masks: list[NDArray[np.bool_]] = []
    for number, entry in enumerate(entries):
        mask = _draw(file.path, entry, size)
        if mask is not None and mask.any():
            kept.append(number)
            masks.append(mask)
        elif mask is not None:
            message = f"annotation {entry['id']} in {file.path} has no pixel of image {image_id}, and is left out"
            warn(DataError(message, kind=Kind.ENTRY_WITHOUT_PIXELS, file=file.path))
    stacked = stack_masks(masks, size)
    return Instances(
        category_ids=torch.tensor([file.contiguous[entries[n]["category_id"]] for n in kept], dtype=torch.int64),
        masks=stacked,
        boxes=mask_boxes(stacked),
        scores=torch.ones(len(kept)),
        is_crowd=torch.tensor([bool(entries[n].get("iscrowd", 0)) for n in kept], dtype=torch.bool),
    )


def _draw(path: Path, entry: Mapping[str, Any], size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """The mask (H, W) of one annotation: polygons, or run lengths as numbers or as a string; None after a fault."""
    height, width = size
    segmentation = entry["segmentation"]
    if isinstance(segmentation, list):
        if any(len(polygon) % 2 for polygon in segmentation):
            message = f"a polygon of annotation {entry['id']} in {path} has an odd number of coordinates"
            report(DataError(message, kind=Kind.FORMAT, file=path))
            return None
        polygons = [polygon for polygon in segmentation if len(polygon) >= 6]  # two points or fewer have no area
        if not polygons:
            return np.zeros(size, dtype=np.bool_)
        _warn_of_points_outside(path, entry, polygons, size)
        counts = _run_lengths(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))
    else:
        if list(segmentation["size"]) != [height, width]:
            message = f"annotation {entry['id']} in {path} has size {segmentation['size']}, its image {[height, width]}"
            report(DataError(message, kind=Kind.SIZE, file=path))
            return None
        try:
            counts = _run_lengths(segmentation)
        except (ValueError, RuntimeError) as error:  # the library's, of a string that it cannot read
            message = f"the run lengths of annotation {entry['id']} in {path} cannot be read: {error}"
            report(DataError(message, kind=Kind.FORMAT, file=path))
            return None
        if sum(counts) != height * width or min(counts) < 0:  # drawing would write past the mask's end
            message = (
                f"the run lengths of annotation {entry['id']} in {path} add up to {sum(counts)} pixels, "
                f"expected {height} x {width} = {height * width}, and none below 0"
            )
            report(DataError(message, kind=Kind.FORMAT, file=path))
            return None
    return draw_runs(np.array(counts, dtype=np.int64), height, width)


def _run_lengths(runs: Mapping[str, Any]) -> list[int]:
    """The run lengths as numbers, which COCO's string stands for where it has one."""
    counts: list[int] | str = runs["counts"]
    return counts if isinstance(counts, list) else mask_api.toUncompressedRLE([runs])[0]["counts"]


def _warn_of_points_outside(
    path: Path, entry: Mapping[str, Any], polygons: Sequence[Sequence[float]], size: tuple[int, int]
) -> None:
    """Points beyond the border by more than a pixel: what lies there is cut off."""
    height, width = size
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in polygons])  # (P, 2) x y
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    if min(left, top) < -1 or right > width + 1 or bottom > height + 1:
        message = (
            f"a polygon of annotation {entry['id']} in {path} spans x {left:g}..{right:g} and y {top:g}..{bottom:g}, "
            f"its image {width} x {height}; what lies outside is cut off"
        )
        warn(DataError(message, kind=Kind.OUTSIDE, file=path))
