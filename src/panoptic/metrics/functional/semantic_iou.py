"""Semantic IoU of panoptic maps: each segment's pixels carry its category."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from panoptic.metrics.functional.overlaps import Overlaps
from panoptic.structures import IGNORE_INDEX, PanopticMap, Segment


def count_pixels(overlaps: Overlaps, *, num_categories: int) -> Tensor:
    """Compare the categories pixel by pixel; pixels whose target is void are dropped, crowd keeps its category.

    Returns:
        (3, C) int64 pixels: right (tp), wrongly predicted as (fp) and missed of (fn) each category; void misses.
    """
    counts = _count_pixels(
        overlaps.pixels, overlaps.target_category_ids, overlaps.prediction_category_ids, num_categories
    )
    return torch.from_numpy(counts).to(overlaps.device)


@njit(cache=True, nogil=True)
def _count_pixels(
    pixels: NDArray[np.int64],
    target_category_ids: NDArray[np.int64],
    prediction_category_ids: NDArray[np.int64],
    num_categories: int,
) -> NDArray[np.int64]:
    """See `count_pixels`; row 0 is void."""
    counts = np.zeros((3, num_categories), dtype=np.int64)
    for target in range(1, target_category_ids.size):
        for prediction in range(prediction_category_ids.size):
            both = pixels[target, prediction]
            if target_category_ids[target] == prediction_category_ids[prediction]:
                counts[0, target_category_ids[target]] += both
                continue
            counts[2, target_category_ids[target]] += both
            if prediction > 0:
                counts[1, prediction_category_ids[prediction]] += both
    return counts


def as_panoptic_map(semantic_map: Tensor, *, num_categories: int) -> PanopticMap:
    """A semantic map (H, W) int64 as a panoptic map with one segment per category, for the metrics of such maps.

    `IGNORE_INDEX`, where nothing is said, becomes void.

    Raises:
        ValueError: another category id is not 0..C-1.
    """
    said = torch.where(semantic_map == IGNORE_INDEX, -1, semantic_map)
    lowest, highest = int(semantic_map.min()), int(said.max())  # device sync: once per image
    if lowest < 0 or highest >= num_categories:
        raise ValueError(f"expected category ids 0..{num_categories - 1} in a semantic map, got {lowest}..{highest}")
    return PanopticMap(said + 1, [Segment(number + 1, number) for number in range(num_categories)])


def semantic_iou(tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
    """Intersection over union of each category.

    Args:
        tp: (C,) int64 pixels.
        fp: (C,) int64 pixels.
        fn: (C,) int64 pixels.

    Returns:
        (C,) float64 in [0, 1]; nan for a category in neither map.
    """
    return tp.double() / (tp + fp + fn)
