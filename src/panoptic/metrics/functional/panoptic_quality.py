"""Panoptic quality, COCO's official definition (Kirillov et al., Panoptic Segmentation; panopticapi)."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from panoptic.metrics.functional.overlaps import Overlaps


def match_segments(overlaps: Overlaps, *, num_categories: int) -> tuple[Tensor, Tensor]:
    """Match predicted with target segments: same category, target not crowd, IoU > 1/2.

    Returns:
        iou: (C,) float64, sum of the IoU of the matches.
        counts: (3, C) int64, matches (tp), unmatched predicted (fp) and unmatched target segments (fn).
    """
    iou, counts = _match_segments(
        overlaps.pixels,
        overlaps.target_category_ids,
        overlaps.target_is_crowd,
        overlaps.prediction_category_ids,
        num_categories,
    )
    return torch.from_numpy(iou).to(overlaps.device), torch.from_numpy(counts).to(overlaps.device)


@njit(cache=True, nogil=True)
def _match_segments(
    pixels: NDArray[np.int64],
    target_category_ids: NDArray[np.int64],
    target_is_crowd: NDArray[np.bool_],
    prediction_category_ids: NDArray[np.int64],
    num_categories: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """See `match_segments`; row 0 is void. Comparisons with 1/2 are in integers, so they are exact."""
    iou = np.zeros(num_categories, dtype=np.float64)
    counts = np.zeros((3, num_categories), dtype=np.int64)
    target_areas = pixels.sum(axis=1)
    prediction_areas = pixels.sum(axis=0)
    target_is_matched = np.zeros(target_areas.size, dtype=np.bool_)
    for prediction in range(1, prediction_areas.size):
        category = prediction_category_ids[prediction]
        ignored = pixels[0, prediction]  # pixels on void, and on crowd of the same category
        is_matched = False
        for target in range(1, target_areas.size):
            both = pixels[target, prediction]
            if both == 0 or target_category_ids[target] != category:
                continue
            if target_is_crowd[target]:
                # panopticapi remembers one crowd segment per category and image, which is what COCO has; here all count
                ignored += both
                continue
            # COCO: void in the target is excluded from the union, crowd is not
            union = target_areas[target] + prediction_areas[prediction] - both - pixels[0, prediction]
            if 2 * both > union:
                iou[category] += both / union
                is_matched = True
                target_is_matched[target] = True
        if is_matched:
            counts[0, category] += 1
        elif 2 * ignored <= prediction_areas[prediction]:
            counts[1, category] += 1
    for target in range(1, target_areas.size):
        if not target_is_matched[target] and not target_is_crowd[target]:
            counts[2, target_category_ids[target]] += 1
    return iou, counts


def panoptic_quality(iou: Tensor, tp: Tensor, fp: Tensor, fn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """PQ, SQ and RQ of each category.

    Args:
        iou: (C,) float64, sum of the IoU of the matches.
        tp: (C,) int64.
        fp: (C,) int64.
        fn: (C,) int64.

    Returns:
        (C,) float64 each, in [0, 1]; nan for a category without any segment; SQ without a match is 0.
    """
    weight = tp + 0.5 * fp.double() + 0.5 * fn.double()
    pq, rq = iou / weight, tp / weight
    # panopticapi: a category that was never matched takes part in the mean of SQ with 0
    sq = torch.where(tp > 0, iou / tp.clamp(min=1), torch.where(weight > 0, 0.0, torch.nan))
    return pq, sq, rq
