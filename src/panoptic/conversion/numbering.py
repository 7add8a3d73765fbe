"""Instance numbers within a category, and the maps that hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from panoptic.data.panoptic_format import write_atomically
from panoptic.structures import VOID, Category, PanopticMap

Value = TypeVar("Value", np.uint8, np.uint16)


def number_things(
    panoptic_map: PanopticMap, categories: Sequence[Category], labels: Sequence[int], *, base: int, first: int
) -> dict[int, int]:
    """{id of a segment: its number within its label}, of things that are no crowd.

    A segment whose id is label * base + number keeps that number, so that maps which came from such a format go back
    as they were; the others get the smallest free ones, in the order of the table.

    Args:
        panoptic_map: with its table.
        categories: of the map.
        labels: of each category; categories of one label share its numbers.
        base: numbers per label.
        first: the smallest number.

    Raises:
        ValueError: a label has more things than numbers.
    """
    things = [s for s in panoptic_map.segments if categories[s.category_id].is_thing and not s.is_crowd]
    ids_of_label: dict[int, list[int]] = {}
    for segment in things:
        ids_of_label.setdefault(labels[segment.category_id], []).append(segment.id)
    numbers: dict[int, int] = {}
    for label, ids in ids_of_label.items():
        kept = {i: i % base for i in ids if i // base == label and i % base >= first}
        free = iter(sorted(set(range(first, base)) - set(kept.values())))
        if len(ids) > base - first:
            raise ValueError(f"expected at most {base - first} things of label {label} in one image, got {len(ids)}")
        numbers |= {i: kept[i] if i in kept else next(free) for i in ids}
    return numbers


def values_of_segments(
    panoptic_map: PanopticMap, values: Mapping[int, int], *, void: int, dtype: type[Value]
) -> NDArray[Value]:
    """(H, W) with the value of each pixel's segment.

    Args:
        panoptic_map: its ids may be any.
        values: {segment id: value}; a segment without one is void.
        void: value of all other pixels.
        dtype: of the result.
    """
    lookup = np.full(max([segment.id for segment in panoptic_map.segments], default=VOID) + 1, void, dtype=dtype)
    for segment_id, value in values.items():
        lookup[segment_id] = value
    found: NDArray[Value] = lookup[panoptic_map.segment_ids.numpy()]
    return found


def write_grey_png(path: Path, values: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Write (H, W) of 8 or 16 bits as a PNG of one channel; never over another file.

    Raises:
        ValueError: the file is there already, for two images of one name.
    """
    if path.exists():
        raise ValueError(f"{path.name} would be written a second time; names of images must be unique")
    encoded, data = cv2.imencode(".png", values)
    assert encoded, f"a map of shape {values.shape} and type {values.dtype}"
    write_atomically(path, data.tobytes())
