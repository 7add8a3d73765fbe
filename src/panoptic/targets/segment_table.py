"""Ground truth as arrays: what the compiled encoders look up for every run of pixels of one id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from panoptic.structures import Category, PanopticMap, Sample


@dataclass(frozen=True, eq=False)
class SegmentTable:
    """The segments of one map as arrays of length S, sorted by id.

    Args:
        ids: (S,) int64, ascending.
        category_ids: (S,) int64.
        is_crowd: (S,) bool.
        is_instance: (S,) bool, True for non-crowd things.
    """

    ids: np.ndarray
    category_ids: np.ndarray
    is_crowd: np.ndarray
    is_instance: np.ndarray


def ground_truth(sample: Sample) -> PanopticMap:
    """The panoptic map of a sample; raises ValueError if it has none."""
    if sample.panoptic_map is None:
        raise ValueError(
            f"expected a sample with a panoptic map, got {sample.file_name!r} without one; encode labelled images only"
        )
    return sample.panoptic_map


def segment_table(panoptic_map: PanopticMap, categories: Sequence[Category]) -> SegmentTable:
    """The map's segments as arrays sorted by id; raises ValueError if a category id is not one of `categories`."""
    for segment in panoptic_map.segments:
        if not 0 <= segment.category_id < len(categories):
            raise ValueError(
                f"expected category ids 0..{len(categories) - 1}, got {segment.category_id} of segment {segment.id}; "
                "pass the categories of the data set that the map comes from"
            )
    segments = sorted(panoptic_map.segments, key=lambda segment: segment.id)
    is_crowd = np.array([segment.is_crowd for segment in segments], dtype=bool)
    is_thing = np.array([categories[segment.category_id].is_thing for segment in segments], dtype=bool)
    return SegmentTable(
        ids=np.array([segment.id for segment in segments], dtype=np.int64),
        category_ids=np.array([segment.category_id for segment in segments], dtype=np.int64),
        is_crowd=is_crowd,
        is_instance=is_thing & ~is_crowd,
    )


@njit(cache=True, nogil=True)
def run_end(ids: np.ndarray, start: int) -> int:
    """One past the last element of the run of equal ids that begins at `start` of the row `ids` (W,)."""
    end = start + 1
    while end < ids.size and ids[end] == ids[start]:
        end += 1
    return end
