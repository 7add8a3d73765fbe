"""The entries of a JSON in COCO's panoptic format: categories, images, annotations, segments."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panoptic.data.faults import DataError, Kind, report
from panoptic.structures import MAX_SEGMENT_ID, VOID, Category, Segment, check_categories

ImageId = int | str

_NO_BOX = (math.nan,) * 4


@dataclass(frozen=True)
class PanopticAnnotation:
    """The JSON's entry of one image.

    Args:
        image_id: as the file gives it.
        png_name: relative to the PNG folder.
        segments: with contiguous category ids; `area` and `score` where the file has them.
        image_name: file name of the photograph, None where the file has no list of images.
        size: (H, W) in pixels, None where the file does not say.
        boxes: (N, 4) x y width height of the segments in pixels as the file has them, NaN for a segment without; None
            where no segment has one.
        left_out: ids of entries that cannot be used and were recorded as faults; empty in training, which stops there.
    """

    image_id: ImageId
    png_name: str
    segments: tuple[Segment, ...]
    image_name: str | None
    size: tuple[int, int] | None
    boxes: NDArray[np.float32] | None = field(default=None, compare=False)
    left_out: tuple[int, ...] = ()


def contiguous_ids(categories: Sequence[Category]) -> dict[int, int]:
    """{dataset_category_id: category_id}."""
    return {c.id if c.dataset_category_id is None else c.dataset_category_id: c.id for c in categories}


def text_of(entry: Mapping[str, Any], key: str) -> str:
    """The text of an entry's key; raises KeyError without it, TypeError if it is none."""
    value = entry[key]
    if not isinstance(value, str):
        raise TypeError(f"expected a text as {key}, got {value!r}")
    return value


def read_categories(path: Path, content: Mapping[str, Any]) -> list[Category]:
    """The file's categories, numbered 0..C-1 by their ids in the data set."""
    if not content.get("categories"):
        raise DataError(
            f"{path} has no list `categories`, which say what its ids mean; add it", kind=Kind.FORMAT, file=path
        )
    try:
        entries = sorted(content["categories"], key=lambda entry: entry["id"])
        firsts = {entry["id"]: entry for entry in reversed(entries)}
        categories = [
            Category(
                id=number,
                name=text_of(firsts[dataset_id], "name"),
                is_thing=bool(firsts[dataset_id]["isthing"]),
                group=firsts[dataset_id].get("supercategory"),
                colour=_colour(firsts[dataset_id].get("color")),
                dataset_category_id=dataset_id,
            )
            for number, dataset_id in enumerate(sorted(firsts))
        ]
    except KeyError as error:
        raise DataError(f"a category of {path} lacks the key {error}", kind=Kind.FORMAT, file=path) from error
    except (TypeError, AttributeError, IndexError) as error:
        message = f"a category of {path} is not as in COCO's panoptic format: {error}"
        raise DataError(message, kind=Kind.FORMAT, file=path) from error
    if len(categories) != len(entries):
        listed = [entry["id"] for entry in entries]
        report(DataError(f"{path} lists a category id twice: {listed}", kind=Kind.REPEATED, file=path))
    try:
        check_categories(categories)
    except ValueError as error:
        report(DataError(f"{path}: {error}", kind=Kind.REPEATED, file=path))
    return categories


def _colour(listed: Sequence[int] | None) -> tuple[int, int, int] | None:
    return (listed[0], listed[1], listed[2]) if listed else None


def read_images(path: Path, entries: Sequence[Mapping[str, Any]]) -> dict[ImageId, Mapping[str, Any]]:
    """The list `images` by id."""
    images: dict[ImageId, Mapping[str, Any]] = {}
    for entry in entries:
        with _entry_of(path):
            if entry["id"] in images:
                message = f"{path} lists an image id twice in `images`: {entry['id']}"
                report(DataError(message, kind=Kind.REPEATED, file=path))
            if "file_name" in entry:
                text_of(entry, "file_name")
            images.setdefault(entry["id"], entry)
    return images


def read_annotations(
    path: Path, entries: Sequence[Mapping[str, Any]], images: Mapping[ImageId, Any], contiguous: Mapping[int, int]
) -> dict[ImageId, PanopticAnnotation]:
    """The list `annotations` by image id, in the order of the file.

    Args:
        path: the JSON, for errors.
        entries: the list.
        images: {image id: its entry}; one that is missing gives no name and no size.
        contiguous: {dataset_category_id: category_id}.
    """
    annotations: dict[ImageId, PanopticAnnotation] = {}
    for entry in entries:
        with _entry_of(path):
            image_id = entry["image_id"]
            if image_id in annotations:
                message = f"{path} has more than one annotation of image {image_id}"
                report(DataError(message, kind=Kind.REPEATED, file=path))
                continue
            annotations[image_id] = _read_annotation(path, entry, images.get(image_id, {}), contiguous)
    return annotations


@contextmanager
def _entry_of(path: Path) -> Iterator[None]:
    """What an entry lacks is a fault of the file; while faults are recorded, it is left out."""
    try:
        yield
    except KeyError as error:
        report(DataError(f"an entry of {path} lacks the key {error}", kind=Kind.FORMAT, file=path))
    except (TypeError, AttributeError) as error:
        message = f"an entry of {path} is not as in COCO's panoptic format: {error}"
        report(DataError(message, kind=Kind.FORMAT, file=path))


def _read_annotation(
    path: Path, entry: Mapping[str, Any], image: Mapping[str, Any], contiguous: Mapping[int, int]
) -> PanopticAnnotation:
    """One entry of `annotations`."""
    image_id = entry["image_id"]
    size = (image["height"], image["width"]) if "height" in image and "width" in image else None
    segments: dict[int, Segment] = {}
    infos: list[Mapping[str, Any]] = []
    left_out: list[int] = []
    for info in entry["segments_info"]:
        segment = _read_segment(path, image_id, info, contiguous)
        if segment is None:
            left_out.append(info.get("id", VOID))
        elif segment.id in segments:
            message = f"{path} lists a segment id of image {image_id} twice: {segment.id}"
            report(DataError(message, kind=Kind.REPEATED, file=path))
        else:
            segments[segment.id] = segment
            infos.append(info)
    return PanopticAnnotation(
        image_id,
        text_of(entry, "file_name"),
        tuple(segments.values()),
        image.get("file_name"),
        size,
        _read_boxes(path, image_id, infos),
        tuple(left_out),
    )


def _read_segment(
    path: Path, image_id: ImageId, info: Mapping[str, Any], contiguous: Mapping[int, int]
) -> Segment | None:
    """One entry of `segments_info`; None where it cannot be used, and faults are recorded."""
    try:
        segment_id, category_id = info["id"], info["category_id"]
    except KeyError as error:
        message = f"a segment of image {image_id} in {path} lacks the key {error}"
        report(DataError(message, kind=Kind.FORMAT, file=path))
        return None
    if category_id not in contiguous:
        message = (
            f"unknown category id {category_id} in {path}, image {image_id}, segment {segment_id}; "
            f"known are {sorted(contiguous)}"
        )
        report(DataError(message, kind=Kind.UNKNOWN_CATEGORY, file=path))
        return None
    if not 0 < segment_id <= MAX_SEGMENT_ID:
        message = f"expected segment ids 1..{MAX_SEGMENT_ID} in {path}, image {image_id}, got {segment_id}"
        report(DataError(message, kind=Kind.FORMAT, file=path))
        return None
    return Segment(
        id=segment_id,
        category_id=contiguous[category_id],
        is_crowd=bool(info.get("iscrowd", 0)),
        score=info.get("score"),
        area=info.get("area"),
    )


def _read_boxes(path: Path, image_id: ImageId, infos: Sequence[Mapping[str, Any]]) -> NDArray[np.float32] | None:
    """The boxes of one image's segments as the JSON has them."""
    if not any("bbox" in info for info in infos):
        return None
    listed = [info.get("bbox", _NO_BOX) for info in infos]
    if any(len(box) != 4 or not all(isinstance(side, int | float) for side in box) for box in listed):
        message = f"expected boxes of four numbers, x y width height, in {path}, image {image_id}, got {listed}"
        report(DataError(message, kind=Kind.BOX, file=path))
        return None
    return np.array(listed, dtype=np.float32)
