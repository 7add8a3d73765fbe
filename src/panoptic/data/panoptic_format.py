"""COCO's panoptic format: one JSON with a table of segments per image, one PNG of segment ids per image."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from panoptic.data.extents import Extents, measure_segments
from panoptic.data.faults import DataError, Kind, MissingFileError, report, report_each, warn
from panoptic.data.images import read_rgb_png
from panoptic.data.panoptic_entries import (
    ImageId,
    PanopticAnnotation,
    contiguous_ids,
    read_annotations,
    read_categories,
    read_images,
)
from panoptic.structures import MAX_SEGMENT_ID, VOID, Category, PanopticMap


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
        message = f"no file {path}; expected a JSON in COCO panoptic format"
        raise MissingFileError(message, kind=Kind.MISSING_FILE, file=path)
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"expected JSON in {path}, got: {error}", kind=Kind.UNREADABLE, file=path) from error
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        message = f"expected an object with a list `annotations` (COCO panoptic format) in {path}"
        raise DataError(message, kind=Kind.FORMAT, file=path)
    if not isinstance(content.get("images", []), list):
        raise DataError(f"expected a list as `images` of {path}", kind=Kind.FORMAT, file=path)
    if categories is None:
        categories = read_categories(path, content)
    images = read_images(path, content.get("images", []))
    annotations = read_annotations(path, content["annotations"], images, contiguous_ids(categories))
    folder = path.with_suffix("") if png_folder is None else Path(png_folder)
    without = tuple(image_id for image_id in images if image_id not in annotations)
    return PanopticFile(path, folder, list(categories), annotations, without)


def check_files(file: PanopticFile) -> None:
    """Raise ValueError unless every annotation has its PNG and every PNG beside those has its annotation."""
    if not file.png_folder.is_dir():
        message = f"no folder {file.png_folder} with the PNGs of {file.path}; give png_folder"
        raise MissingFileError(message, kind=Kind.MISSING_FILE, file=file.png_folder)
    expected = {file.png_folder / annotation.png_name for annotation in file.annotations.values()}
    folders = {path.parent for path in expected}
    present = {Path(entry) for folder in folders if folder.is_dir() for entry in folder.glob("*.png")}
    missing, stray = sorted(expected - present), sorted(present - expected)
    if missing:
        message = f"{len(missing)} PNGs of {file.path} are missing, the first is {missing[0]}; add these"
        absent = MissingFileError(message, kind=Kind.MISSING_FILE)
        report_each(absent, ((path, f"no PNG {path}, which {file.path} lists") for path in missing))
    if stray:
        message = f"{len(stray)} PNGs have no entry in {file.path}, the first is {stray[0]}; remove them"
        surplus = DataError(message, kind=Kind.STRAY_FILE)
        report_each(surplus, ((path, f"{path} has no entry in {file.path}") for path in stray))


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


def read_panoptic_map(
    file: PanopticFile, annotation: PanopticAnnotation, *, exact_extents: bool = False
) -> PanopticMap:
    """The map of one image; PNG and JSON must agree. Areas are those of the PNG.

    Args:
        file: of the annotation.
        annotation: of the image.
        exact_extents: the areas and boxes that the JSON has must be those of the PNG, as in ground truth of one's own;
            otherwise they are not looked at: predictions are scored without, and official files cannot be changed.

    Raises:
        FileNotFoundError: the PNG is missing.
        ValueError: the PNG cannot be read, has another size than the JSON says, or other ids, areas or boxes.
    """
    path = file.png_folder / annotation.png_name
    if not path.is_file():
        message = (
            f"no PNG {path} of image {annotation.image_id}, which {file.path} lists, "
            "or a link that leads nowhere; add it"
        )
        raise MissingFileError(message, kind=Kind.MISSING_FILE, file=path)
    segment_ids = read_panoptic_png(path)
    height, width = segment_ids.shape
    if annotation.size not in (None, (height, width)):
        message = f"{path} has size {(height, width)}, but {file.path} says {annotation.size} (height, width)"
        raise DataError(message, kind=Kind.SIZE, file=path)
    extents = measure_segments(segment_ids.numpy(), [segment.id for segment in annotation.segments])
    if extents.unlisted is not None:
        segment_ids = _without_unlisted(file, annotation, segment_ids)
    _check_extents(file, annotation, extents, report if exact_extents else warn)
    present = []
    for segment, area in zip(annotation.segments, extents.areas.tolist(), strict=True):
        if area == 0:
            message = f"{file.path} lists segment {segment.id} of image {annotation.image_id}, which {path} lacks"
            report(DataError(message, kind=Kind.ENTRY_WITHOUT_PIXELS, file=path))
        else:
            present.append(replace(segment, area=area))
    return PanopticMap(segment_ids, present)


def _without_unlisted(file: PanopticFile, annotation: PanopticAnnotation, segment_ids: Tensor) -> Tensor:
    """Report ids that have no entry; the ids (H, W) with those made void."""
    path = file.png_folder / annotation.png_name
    listed = torch.tensor([VOID, *(segment.id for segment in annotation.segments)])
    unlisted = torch.isin(segment_ids, listed, invert=True)
    for segment_id in np.unique(segment_ids[unlisted].numpy()).tolist():
        if segment_id not in annotation.left_out:
            message = f"id {segment_id} in {path} has no entry in {file.path}, image {annotation.image_id}"
            report(DataError(message, kind=Kind.ID_WITHOUT_ENTRY, file=path))
    return segment_ids.masked_fill(unlisted, VOID)


def _check_extents(
    file: PanopticFile, annotation: PanopticAnnotation, extents: Extents, tell: Callable[[DataError], None]
) -> None:
    """Tell of areas and boxes in the JSON that are not those of the PNG, and not of segments that the PNG lacks."""
    where = f"image {annotation.image_id} in {file.path}"
    by = f"{file.png_folder / annotation.png_name}; panoptic check-data fix=NEW.json counts anew"
    for segment, area in zip(annotation.segments, extents.areas.tolist(), strict=True):
        if area > 0 and segment.area not in (None, area):
            message = f"segment {segment.id} of {where} has area {segment.area}, but {area} pixels by {by}"
            tell(DataError(message, kind=Kind.AREA, file=file.path))
    if annotation.boxes is None:
        return
    x1, y1, x2, y2 = extents.boxes.T
    measured = np.stack([x1, y1, x2 - x1, y2 - y1], axis=1)
    differs = (annotation.boxes != measured).any(axis=1) & ~np.isnan(annotation.boxes).any(axis=1)
    for number in np.flatnonzero(differs & (extents.areas > 0)):
        message = (
            f"segment {annotation.segments[number].id} of {where} has box {annotation.boxes[number].tolist()}, "
            f"but {measured[number].tolist()} (x, y, width, height) by {by}"
        )
        tell(DataError(message, kind=Kind.BOX, file=file.path))


def write_panoptic_png(path: Path, segment_ids: Tensor) -> None:
    """Write segment ids (H, W) int64, 0..2^24 - 1, as a PNG; the file appears whole or not at all."""
    ids = segment_ids.cpu().numpy()
    if ids.size and not 0 <= ids.min() <= ids.max() <= MAX_SEGMENT_ID:
        raise ValueError(f"expected segment ids 0..{MAX_SEGMENT_ID}, got {ids.min()}..{ids.max()} for {path}")
    blue_green_red = (ids >> 16, (ids >> 8) & 255, ids & 255)
    channels = np.stack([channel.astype(np.uint8) for channel in blue_green_red], axis=-1)  # (H, W, 3)
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
