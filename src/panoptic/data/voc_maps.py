"""From PASCAL VOC's maps of classes and of objects to panoptic maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from panoptic.data.faults import DataError, Kind
from panoptic.data.value_maps import look_up
from panoptic.structures import VOID, PanopticMap, Segment

NUM_CLASSES = 21
"""Values 0..20 of a map of classes, 0 is background."""

VOC_VOID = 255
"""The value of pixels without a label, in maps of classes and of objects."""

BACKGROUND_ID = 255
"""Segment id of the background; others are values of the maps, of which 255 is free, as it means void there."""

_CLASS_SEGMENT_IDS = np.arange(256)
_CLASS_SEGMENT_IDS[0], _CLASS_SEGMENT_IDS[VOC_VOID] = BACKGROUND_ID, VOID
"""Segment id of each value of a map of classes."""


def class_segments(classes: NDArray[np.uint8], path: Path) -> PanopticMap:
    """Each class that is present as one segment, whose id is its value.

    Args:
        classes: (H, W) uint8, 0..20, 255 void.
        path: of the file, for errors.

    Raises:
        ValueError: a value that is no class.
    """
    segment_ids, areas = look_up(classes, _CLASS_SEGMENT_IDS)
    _check_classes(areas, path)
    segments = [
        Segment(int(_CLASS_SEGMENT_IDS[value]), value, area=int(areas[value]))
        for value in np.flatnonzero(areas[:VOC_VOID]).tolist()
    ]
    return PanopticMap(torch.from_numpy(segment_ids), segments)


def object_segments(classes: NDArray[np.uint8], objects: NDArray[np.uint8], paths: tuple[Path, Path]) -> PanopticMap:
    """Each object as one segment, whose id is its number, and the background as one.

    Args:
        classes: (H, W) uint8, 0..20, 255 void.
        objects: (H, W) uint8, 0 background, 1..254 numbers of objects, 255 void; some tools write 0 for void.
        paths: files of classes and of objects, for errors.

    Raises:
        ValueError: maps of unequal size, a value that is no class, a pixel of a class without object, or an object
            that is not of one class.
    """
    if classes.shape != objects.shape:
        message = f"{paths[0]} has size {classes.shape}, but {paths[1]} {objects.shape} (height, width)"
        raise DataError(message, kind=Kind.SIZE, file=paths[1])
    segment_ids, pairs = _segment_pass(objects, classes)
    _check_classes(pairs.sum(axis=0), paths[0])
    segments = []
    for number in np.flatnonzero(pairs[:VOC_VOID, :NUM_CLASSES].any(axis=1)).tolist():
        found = np.flatnonzero(pairs[number, :NUM_CLASSES]).tolist()
        if number == 0 and found != [0]:
            message = (
                f"pixels of class {found[-1]} in {paths[0]} are of no object in {paths[1]}; use files of one image"
            )
            raise DataError(message, kind=Kind.ID_WITHOUT_ENTRY, file=paths[1])
        if number > 0 and (len(found) > 1 or found == [0]):
            message = f"expected one class 1..20 of object {number} in {paths[1]}, got {found} in {paths[0]}"
            raise DataError(message, kind=Kind.FORMAT, file=paths[1])
        segments.append(Segment(number or BACKGROUND_ID, found[0], area=int(pairs[number, found[0]])))
    return PanopticMap(torch.from_numpy(segment_ids), segments)


def _check_classes(areas: NDArray[np.int64], path: Path) -> None:
    """Raise ValueError unless the classes with pixels, of (256,), are 0..20 or void."""
    counts = areas[NUM_CLASSES:VOC_VOID]
    if counts.any():
        first = int(counts.nonzero()[0][0])
        message = (
            f"unknown class {first + NUM_CLASSES} in {path}, {counts[first]} pixels; expected 0 for background, 1..20, "
            "and 255 for void"
        )
        raise DataError(message, kind=Kind.UNKNOWN_CATEGORY, file=path)


@njit(cache=True, nogil=True)
def _segment_pass(
    numbers: NDArray[np.uint8], classes: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Segment ids (H, W) of numbers (H, W), void where either map is; and pixels by number and class (256, 256)."""
    height, width = numbers.shape
    segment_ids = np.empty((height, width), dtype=np.int64)
    pairs = np.zeros((256, 256), dtype=np.int64)
    for y in range(height):
        start = 0
        while start < width:
            number, value = numbers[y, start], classes[y, start]
            end = start + 1
            while end < width and numbers[y, end] == number and classes[y, end] == value:
                end += 1
            pairs[number, value] += end - start
            if VOC_VOID in (number, value):
                segment_ids[y, start:end] = VOID
            else:
                segment_ids[y, start:end] = BACKGROUND_ID if number == 0 else number
            start = end
    return segment_ids, pairs
