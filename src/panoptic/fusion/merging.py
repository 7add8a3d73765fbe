"""Instances in a given order over stuff, a pixel to the first that has it (OANet, Sec. 4.2; Kirillov et al.)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import njit

from panoptic.fusion.connected_regions import connected_regions
from panoptic.fusion.detections import as_instances
from panoptic.fusion.logits import SemanticPrediction
from panoptic.fusion.masks import PastedMasks
from panoptic.structures import IGNORE_INDEX, Category, Detections, FusionResult, PanopticMap, Segment


def merge(
    detections: Detections,
    masks: PastedMasks,
    order: np.ndarray,
    prediction: SemanticPrediction,
    categories: Sequence[Category],
    *,
    overlap_threshold: float,
    min_area: int,
) -> FusionResult:
    """Instances in this order, each with its pixels that are still free; then stuff.

    Args:
        detections: N of them.
        masks: theirs, at the size of the result.
        order: (M,) int64 rows of the detections that take part, first those on top.
        prediction: categories of pixels, at the size of the result.
        categories: of the data set.
        overlap_threshold: least part of an instance's mask that is free; others are dropped.
        min_area: connected areas of stuff of fewer pixels than this become void.

    Returns:
        The map with the detections' scores, the network's own semantic map, and all detections as they were pasted.

    Raises:
        ValueError: a constant out of its range.
    """
    if min_area < 0:
        raise ValueError(f"expected min_area of at least 0, got {min_area}")
    segment_ids, segments = paste_instances(detections, masks, order, overlap_threshold=overlap_threshold)
    segments += _paste_stuff(segment_ids, prediction.stuff, categories, len(segments) + 1, min_area)
    panoptic_map = PanopticMap(torch.from_numpy(segment_ids).to(prediction.logits.device), segments)
    return FusionResult(panoptic_map, prediction.semantic_map, as_instances(detections, masks))


def paste_instances(
    detections: Detections, masks: PastedMasks, order: np.ndarray, *, overlap_threshold: float
) -> tuple[np.ndarray, list[Segment]]:
    """Instances alone, as in `merge`.

    Returns:
        (H, W) int64 segment ids 1, 2, ... in this order, 0 where no instance is; their segments with scores and areas.

    Raises:
        ValueError: overlap_threshold is not in [0, 1].
    """
    if not 0 <= overlap_threshold <= 1:
        raise ValueError(f"expected an overlap_threshold in [0, 1], got {overlap_threshold}")
    segment_ids = np.zeros(masks.size, dtype=np.int64)
    chosen = masks.select(order)
    areas = _paste_free(chosen.windows, chosen.starts, chosen.pixels, chosen.areas, overlap_threshold, segment_ids)
    category_ids, scores = detections.category_ids.tolist(), detections.scores.tolist()  # device sync: once per image
    table = zip(order[areas > 0].tolist(), areas[areas > 0].tolist(), strict=True)
    segments = [
        Segment(number, category_ids[row], score=scores[row], area=area) for number, (row, area) in enumerate(table, 1)
    ]
    return segment_ids, segments


def _paste_stuff(
    segment_ids: np.ndarray, stuff_map: np.ndarray, categories: Sequence[Category], first_id: int, min_area: int
) -> list[Segment]:
    """Fill what is void in segment_ids (H, W), in place; each category of stuff is one segment, ids ascending."""
    labels = np.where(segment_ids == 0, stuff_map, np.uint8(IGNORE_INDEX))
    regions = connected_regions(labels, diagonal=True)
    is_large = regions.areas >= min_area
    areas = np.bincount(regions.labels[is_large], weights=regions.areas[is_large], minlength=len(categories))
    ids = np.zeros(len(categories), dtype=np.int64)
    present = np.flatnonzero(areas)
    ids[present] = first_id + np.arange(len(present))
    regions.paint(segment_ids, ids[regions.labels], is_large)
    return [Segment(int(ids[category_id]), int(category_id), area=int(areas[category_id])) for category_id in present]


@njit(cache=True, nogil=True)
def _paste_free(
    windows: np.ndarray,
    starts: np.ndarray,
    pixels: np.ndarray,
    areas: np.ndarray,
    threshold: float,
    segment_ids: np.ndarray,
) -> np.ndarray:
    """Masks one after the other into segment_ids (H, W), which are 0 where free; ids 1, 2, ... for those that stay.

    Returns:
        (M,) int64, pixels that each mask got; 0 for those that were dropped.
    """
    taken = np.zeros(len(windows), dtype=np.int64)
    next_id = 1
    for number in range(len(windows)):
        left, top, right, bottom = windows[number]
        start, width = starts[number], right - left
        free = 0
        for y in range(top, bottom):
            row, ids = pixels[start + (y - top) * width : start + (y - top + 1) * width], segment_ids[y, left:right]
            for x in range(width):
                free += row[x] & (ids[x] == 0)
        if free == 0 or free < threshold * areas[number]:
            continue
        for y in range(top, bottom):
            row, ids = pixels[start + (y - top) * width : start + (y - top + 1) * width], segment_ids[y, left:right]
            for x in range(width):
                ids[x] = next_id if row[x] & (ids[x] == 0) else ids[x]
        taken[number] = free
        next_id += 1
    return taken
