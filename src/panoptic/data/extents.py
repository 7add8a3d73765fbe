"""Areas and boxes of all segments of an id map in one compiled pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Extents:
    """Where the segments of one map lie.

    Args:
        areas: (N,) int64, pixels, in the order of the ids asked for; 0 for an id that the map lacks.
        boxes: (N, 4) int64, x1 y1 x2 y2 in pixels, x2 and y2 exclusive; zeros for an id that the map lacks.
        unlisted: the first id of the map that was not asked for, None if there is none.
    """

    areas: NDArray[np.int64]
    boxes: NDArray[np.int64]
    unlisted: int | None


@njit(cache=True, nogil=True)
def _measure(segment_ids: NDArray[np.int64], table: NDArray[np.int64]) -> tuple[np.ndarray, np.ndarray, int]:
    """Areas (N,) and boxes (N, 4) by row of `table` (sorted), and the first unlisted id or 0.

    An id is looked up once per run of pixels.
    """
    height, width = segment_ids.shape
    areas = np.zeros(table.size, dtype=np.int64)
    boxes = np.zeros((table.size, 4), dtype=np.int64)
    unlisted = 0
    for y in range(height):
        start = 0
        while start < width:
            current = segment_ids[y, start]
            end = start + 1
            while end < width and segment_ids[y, end] == current:
                end += 1
            if current != 0:
                row = np.searchsorted(table, current)
                if row == table.size or table[row] != current:
                    if unlisted == 0:
                        unlisted = current
                else:
                    if areas[row] == 0:
                        boxes[row, 0], boxes[row, 1], boxes[row, 2] = start, y, end
                    areas[row] += end - start
                    boxes[row, 0] = min(boxes[row, 0], start)
                    boxes[row, 2] = max(boxes[row, 2], end)
                    boxes[row, 3] = y + 1
            start = end
    return areas, boxes, unlisted


def measure_segments(segment_ids: NDArray[np.int64], ids: Sequence[int]) -> Extents:
    """Area and box of each id.

    Args:
        segment_ids: (H, W) int64, 0 is void.
        ids: the ids to measure, unique, in any order.
    """
    asked = np.asarray(ids, dtype=np.int64)
    order = np.argsort(asked)
    sorted_areas, sorted_boxes, unlisted = _measure(segment_ids, asked[order])
    areas, boxes = np.empty_like(sorted_areas), np.empty_like(sorted_boxes)
    areas[order], boxes[order] = sorted_areas, sorted_boxes
    return Extents(areas, boxes, int(unlisted) or None)
