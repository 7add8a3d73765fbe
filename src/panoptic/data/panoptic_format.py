"""COCO's panoptic format: one JSON with a table of segments per image, one PNG of segment ids per image."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from panoptic.data.extents import measure_segments
from panoptic.data.images import read_rgb_png
from panoptic.structures import MAX_SEGMENT_ID, Category, PanopticMap, Segment, check_categories

ImageId = int | str


@dataclass(frozen=True)
class PanopticAnnotation:
    """The JSON's entry of one image.

    Args:
        image_id: as the file gives it.
        png_name: relative to the PNG folder.
        segments: with contiguous category ids; `area` and `score` where the file has them.
        image_name: file name of the photograph, None where the file has no list of images.
        size: (H, W) in pixels, None where the file does not say.
    """

    image_id: ImageId
    png_name: str
    segments: tuple[Segment, ...]
    image_name: str | None
    size: tuple[int, int] | None


@dataclass(frozen=True, eq=False)
class PanopticFile:
    """A panoptic JSON; the PNGs are read when they are asked for.

    Args:
        path: the JSON.
        png_folder: where its PNGs are.
        categories: ids 0..C-1 in the order of the data set's own ids.
        annotations: by image id, in the order of the file.
        images_without_annotation: ids in the file's list of images that have no annotation.
    """

    path: Path
    png_folder: Path
    categories: list[Category]
    annotations: dict[ImageId, PanopticAnnotation]
    images_without_annotation: tuple[ImageId, ...] = ()


def contiguous_ids(categories: Sequence[Category]) -> dict[int, int]:
    """{dataset_category_id: category_id}."""
    return {c.id if c.dataset_category_id is None else c.dataset_category_id: c.id for c in categories}


def read_panoptic_json(
    path: Path, png_folder: Path | None = None, categories: Sequence[Category] | None = None
) -> PanopticFile:
    """Read a panoptic JSON.

    Args:
        path: the JSON.
        png_folder: where its PNGs are; None means the folder beside the JSON that has its name without ".json".
        categories: used instead of the file's own; needed where it has none.

    Raises:
        FileNotFoundError: no such JSON.
        ValueError: not JSON, a missing or repeated entry, an unknown category id.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; expected a JSON in COCO panoptic format")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"expected JSON in {path}, got: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise ValueError(f"expected an object with a list `annotations` (COCO panoptic format) in {path}")
    if categories is None:
        categories = _read_categories(path, content)
    try:
        images = {image["id"]: image for image in content.get("images", ())}
        if len(images) < len(content.get("images", ())):
            raise ValueError(f"{path} lists an image id twice in `images`")
        annotations = _read_annotations(path, content["annotations"], images, contiguous_ids(categories))
    except KeyError as error:
        raise ValueError(f"an entry of {path} lacks the key {error}") from error
    except (TypeError, AttributeError) as error:
        raise ValueError(f"an entry of {path} is not as in COCO's panoptic format: {error}") from error
    folder = path.with_suffix("") if png_folder is None else Path(png_folder)
    without = tuple(image_id for image_id in images if image_id not in annotations)
    return PanopticFile(path, folder, list(categories), annotations, without)


def _read_categories(path: Path, content: Mapping[str, Any]) -> list[Category]:
    """The file's categories, numbered 0..C-1 by their ids in the data set."""
    if not content.get("categories"):
        raise ValueError(f"{path} has no list `categories`, which say what its ids mean; add it")
    try:
        entries = sorted(content["categories"], key=lambda entry: entry["id"])
        categories = [
            Category(
                id=number,
                name=entry["name"],
                is_thing=bool(entry["isthing"]),
                group=entry.get("supercategory"),
                colour=(entry["color"][0], entry["color"][1], entry["color"][2]) if entry.get("color") else None,
                dataset_category_id=entry["id"],
            )
            for number, entry in enumerate(entries)
        ]
    except KeyError as error:
        raise ValueError(f"a category of {path} lacks the key {error}") from error
    except (TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"a category of {path} is not as in COCO's panoptic format: {error}") from error
    if len(contiguous_ids(categories)) != len(categories):
        raise ValueError(f"{path} lists a category id twice: {[c.dataset_category_id for c in categories]}")
    try:
        check_categories(categories)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return categories


def _read_annotations(
    path: Path, entries: Sequence[Mapping[str, Any]], images: Mapping[ImageId, Any], contiguous: Mapping[int, int]
) -> dict[ImageId, PanopticAnnotation]:
    """The entries by image id."""
    annotations: dict[ImageId, PanopticAnnotation] = {}
    for entry in entries:
        image_id = entry["image_id"]
        if image_id in annotations:
            raise ValueError(f"{path} has more than one annotation of image {image_id}")
        image = images.get(image_id, {})
        size = (image["height"], image["width"]) if "height" in image and "width" in image else None
        segments = tuple(_read_segment(path, image_id, info, contiguous) for info in entry["segments_info"])
        ids = {segment.id for segment in segments}
        if len(ids) != len(segments):
            raise ValueError(f"{path} lists a segment id of image {image_id} twice")
        annotations[image_id] = PanopticAnnotation(image_id, entry["file_name"], segments, image.get("file_name"), size)
    return annotations


def _read_segment(path: Path, image_id: ImageId, info: Mapping[str, Any], contiguous: Mapping[int, int]) -> Segment:
    """One entry of `segments_info`."""
    segment_id, category_id = info["id"], info["category_id"]
    if category_id not in contiguous:
        raise ValueError(
            f"unknown category id {category_id} in {path}, image {image_id}, segment {segment_id}; "
            f"known are {sorted(contiguous)}"
        )
    if not 0 < segment_id <= MAX_SEGMENT_ID:
        raise ValueError(f"expected segment ids 1..{MAX_SEGMENT_ID} in {path}, image {image_id}, got {segment_id}")
    return Segment(
        id=segment_id,
        category_id=contiguous[category_id],
        is_crowd=bool(info.get("iscrowd", 0)),
        score=info.get("score"),
        area=info.get("area"),
    )


def check_files(file: PanopticFile) -> None:
    """Raise ValueError unless every annotation has its PNG and every PNG beside those has its annotation."""
    if not file.png_folder.is_dir():
        raise ValueError(f"no folder {file.png_folder} with the PNGs of {file.path}; give png_folder")
    expected = {file.png_folder / annotation.png_name for annotation in file.annotations.values()}
    folders = {path.parent for path in expected}
    present = {Path(entry) for folder in folders if folder.is_dir() for entry in folder.glob("*.png")}
    missing, stray = sorted(expected - present), sorted(present - expected)
    if missing:
        raise ValueError(f"{len(missing)} PNGs of {file.path} are missing, the first is {missing[0]}")
    if stray:
        raise ValueError(f"{len(stray)} PNGs have no entry in {file.path}, the first is {stray[0]}; remove them")


@njit(cache=True, nogil=True)
def _join_channels(channels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(H, W, 3) uint8 blue green red -> (H, W) int64, R + 256 G + 65536 B."""
    height, width, _ = channels.shape
    ids = np.empty((height, width), dtype=np.int64)
    for y in range(height):
        for x in range(width):
            ids[y, x] = channels[y, x, 2] + 256 * np.int64(channels[y, x, 1]) + 65536 * np.int64(channels[y, x, 0])
    return ids


def read_panoptic_png(path: Path) -> Tensor:
    """Segment ids of a PNG: (H, W) int64, R + 256 G + 65536 B.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, damaged, or not a PNG of three 8-bit channels.
    """
    return torch.from_numpy(_join_channels(read_rgb_png(Path(path))))


def read_panoptic_map(file: PanopticFile, annotation: PanopticAnnotation) -> PanopticMap:
    """The map of one image; PNG and JSON must agree. Areas are those of the PNG.

    Raises:
        FileNotFoundError: the PNG is missing.
        ValueError: the PNG cannot be read, has another size than the JSON says, or other ids.
    """
    path = file.png_folder / annotation.png_name
    if not path.is_file():
        raise FileNotFoundError(f"no PNG {path} of image {annotation.image_id}, which {file.path} lists")
    segment_ids = read_panoptic_png(path)
    height, width = segment_ids.shape
    if annotation.size not in (None, (height, width)):
        raise ValueError(f"{path} has size {(height, width)}, but {file.path} says {annotation.size} (height, width)")
    ids = [segment.id for segment in annotation.segments]
    extents = measure_segments(segment_ids.numpy(), ids)
    if extents.unlisted is not None:
        raise ValueError(f"id {extents.unlisted} in {path} has no entry in {file.path}, image {annotation.image_id}")
    absent = [segment_id for segment_id, area in zip(ids, extents.areas, strict=True) if area == 0]
    if absent:
        raise ValueError(f"{file.path} lists segment {absent[0]} of image {annotation.image_id}, which {path} lacks")
    areas = extents.areas.tolist()
    return PanopticMap(segment_ids, [replace(s, area=a) for s, a in zip(annotation.segments, areas, strict=True)])


def write_panoptic_png(path: Path, segment_ids: Tensor) -> None:
    """Write segment ids (H, W) int64, 0..2^24 - 1, as a PNG; the file appears whole or not at all."""
    ids = segment_ids.cpu().numpy()
    if ids.size and not 0 <= ids.min() <= ids.max() <= MAX_SEGMENT_ID:
        raise ValueError(f"expected segment ids 0..{MAX_SEGMENT_ID}, got {ids.min()}..{ids.max()} for {path}")
    channels = np.stack([ids >> 16, (ids >> 8) & 255, ids & 255], axis=-1).astype(np.uint8)  # (H, W, 3) blue green red
    encoded, data = cv2.imencode(".png", channels)
    if not encoded:
        raise ValueError(f"could not encode segment ids of shape {ids.shape} for {path}")
    write_atomically(Path(path), data.tobytes())


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and rename it, so that nobody sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
