"""Parsing covering (DeeperLab, Sec. 3.5), with the conventions of its authors for void and crowd."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from panoptic.metrics.functional.overlaps import Overlaps


def cover_segments(overlaps: Overlaps, *, num_categories: int) -> tuple[Tensor, Tensor]:
    """Cover every target segment by the best predicted segment of its category (Eq. 3 and 4).

    Pixels whose target is void or crowd are dropped first, from both maps.

    Returns:
        covered: (C,) float64, sum of |R| times the best IoU of R, in pixels.
        area: (C,) int64, sum of |R| in pixels.
    """
    covered, area = _cover_segments(
        overlaps.pixels,
        overlaps.target_category_ids,
        overlaps.target_is_crowd,
        overlaps.prediction_category_ids,
        num_categories,
    )
    return torch.from_numpy(covered).to(overlaps.device), torch.from_numpy(area).to(overlaps.device)


@njit(cache=True, nogil=True)
def _cover_segments(
    pixels: NDArray[np.int64],
    target_category_ids: NDArray[np.int64],
    target_is_crowd: NDArray[np.bool_],
    prediction_category_ids: NDArray[np.int64],
    num_categories: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """See `cover_segments`; row 0 is void."""
    covered = np.zeros(num_categories, dtype=np.float64)
    area = np.zeros(num_categories, dtype=np.int64)
    target_areas = pixels.sum(axis=1)
    prediction_areas = np.zeros(prediction_category_ids.size, dtype=np.int64)  # on real targets only
    for target in range(1, target_areas.size):
        if not target_is_crowd[target]:
            prediction_areas += pixels[target]
    for target in range(1, target_areas.size):
        if target_is_crowd[target]:
            continue
        category = target_category_ids[target]
        best = 0.0
        for prediction in range(1, prediction_areas.size):
            both = pixels[target, prediction]
            if both > 0 and prediction_category_ids[prediction] == category:
                best = max(best, both / (target_areas[target] + prediction_areas[prediction] - both))
        covered[category] += target_areas[target] * best
        area[category] += target_areas[target]
    return covered, area


def parsing_covering(covered: Tensor, area: Tensor) -> Tensor:
    """Covering of each category over all images.

    Args:
        covered: (C,) float64, sum of |R| times the best IoU of R.
        area: (C,), sum of |R| in the same unit.

    Returns:
        (C,) float64 in [0, 1]; nan for a category without target area.
    """
    return covered / area
