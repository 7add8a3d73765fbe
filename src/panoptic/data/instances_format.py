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
from panoptic.data.masks import MAX_COORDINATE, draw_runs, mask_boxes, stack_masks
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
    data = read_bytes(path)
    try:
        return json.loads(data)
    except ValueError as error:
        raise DataError(f"expected JSON in {path}, got: {error}", kind=Kind.UNREADABLE, file=path) from error


def collect_instances(path: Path, content: Any, categories: Sequence[Category]) -> InstancesFile:
    """As `read_instances_json`, of the content of a JSON; `path` is for errors."""
    contiguous = contiguous_ids(categories)
    things = {dataset_id for dataset_id, number in contiguous.items() if categories[number].is_thing}
    try:
        entries: dict[ImageId, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
        annotations = list(content["annotations"])
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
    where = f"annotation {entry['id']} in {path}"
    try:
        if isinstance(entry["segmentation"], list):
            counts = _polygon_counts(path, where, entry["segmentation"], size)
        else:
            counts = _run_length_counts(path, where, entry["segmentation"], size)
    except DataError as error:
        report(error)
        return None
    return draw_runs(np.array(counts, dtype=np.int64), *size)


def _polygon_counts(path: Path, where: str, polygons: Sequence[Any], size: tuple[int, int]) -> list[int]:
    """The run lengths of polygons, x, y, x, y, ... each."""
    height, width = size
    kept = []
    for polygon in polygons:
        try:
            flat = np.array(polygon, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise _no_polygon(path, where, polygon) from error
        if flat.ndim != 1 or not (np.abs(flat) <= MAX_COORDINATE).all():
            raise _no_polygon(path, where, polygon)
        if len(flat) % 2:
            message = f"a polygon of {where} has an odd number of coordinates"
            raise DataError(message, kind=Kind.FORMAT, file=path)
        if len(flat) >= 6:  # two points or fewer have no area
            kept.append(flat)
    if not kept:
        return [height * width]
    _warn_of_points_outside(path, where, np.concatenate(kept).reshape(-1, 2), size)
    return _run_lengths(coco_mask.merge(coco_mask.frPyObjects([flat.tolist() for flat in kept], height, width)))


def _no_polygon(path: Path, where: str, polygon: Any) -> DataError:
    message = (
        f"expected polygons of {where} as lists x, y, x, y, ... of numbers up to {MAX_COORDINATE}, "
        f"got {str(polygon)[:100]}"
    )
    return DataError(message, kind=Kind.FORMAT, file=path)


def _run_length_counts(path: Path, where: str, runs: Any, size: tuple[int, int]) -> list[int]:
    """The run lengths of COCO's {"size": [H, W], "counts": ...}, which must be those of the image."""
    height, width = size
    if not isinstance(runs, dict) or not {"size", "counts"} <= runs.keys():
        message = f"expected polygons, or run lengths with `size` and `counts`, as segmentation of {where}"
        raise DataError(message, kind=Kind.FORMAT, file=path)
    if runs["size"] != [height, width]:
        message = f"{where} has size {runs['size']}, its image {[height, width]}"
        raise DataError(message, kind=Kind.SIZE, file=path)
    given = runs["counts"]
    is_list = isinstance(given, list) and all(isinstance(count, int) for count in given)
    if not is_list and not isinstance(given, str):
        message = f"expected run lengths of {where} as whole numbers or as a string, got {str(given)[:50]}"
        raise DataError(message, kind=Kind.FORMAT, file=path)
    try:
        counts = _run_lengths(runs)
    except (ValueError, RuntimeError) as error:  # the library's, of a string that it cannot read
        message = f"the run lengths of {where} cannot be read: {error}"
        raise DataError(message, kind=Kind.FORMAT, file=path) from error
    if sum(counts) != height * width or min(counts) < 0:  # drawing would write past the mask's end
        message = (
            f"the run lengths of {where} add up to {sum(counts)} pixels, "
            f"expected {height} x {width} = {height * width}, and none below 0"
        )
        raise DataError(message, kind=Kind.FORMAT, file=path)
    return counts


def _run_lengths(runs: Mapping[str, Any]) -> list[int]:
    """The run lengths as numbers, which COCO's string stands for where it has one."""
    counts: list[int] | str = runs["counts"]
    return counts if isinstance(counts, list) else mask_api.toUncompressedRLE([runs])[0]["counts"]


def _warn_of_points_outside(path: Path, where: str, points: NDArray[np.float64], size: tuple[int, int]) -> None:
    """Points (P, 2), x and y in pixels, beyond the border by more than a pixel: what lies there is cut off."""
    height, width = size
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    if min(left, top) < -1 or right > width + 1 or bottom > height + 1:
        message = (
            f"a polygon of {where} spans x {left:g}..{right:g} and y {top:g}..{bottom:g}, "
            f"its image {width} x {height}; what lies outside is cut off"
        )
        warn(DataError(message, kind=Kind.OUTSIDE, file=path))
