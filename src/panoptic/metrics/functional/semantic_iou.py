"""Semantic IoU of panoptic maps: each segment's pixels carry its category."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from panoptic.metrics.functional.overlaps import Overlaps


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
