"""Step 2 of DeeperLab's instance prediction (Sec. 3.4.1): Hough voting for the keypoints.

On the CPU it is one compiled loop, on other devices the same equations in torch.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit
from torch import Tensor

from panoptic.fusion.paste import float_array
from panoptic.fusion.refinement import over_kinds


def hough_scores(
    heatmap: Tensor,
    short_range: Tensor,
    located: Tensor,
    *,
    radius: float,
    short_weight: float,
    long_weight: float,
    vote_threshold: float,
) -> Tensor:
    """The fused score map of each keypoint kind, a h_short + b h_long.

    h_short(x) = 1 / (pi R^2) sum_i p(x_i) B(x_i + S(x_i) - x) over all pixels, h_long likewise with the located
    keypoints of thing pixels and 1 in place of p. Votes outside of the image are dropped.

    Args:
        heatmap: (P, H, W) logits.
        short_range: (P, 2, H, W), (dy, dx) in pixels.
        located: (P, 2, M), (y, x), from `locate_keypoints`.
        radius: R, in pixels.
        short_weight: a.
        long_weight: b.
        vote_threshold: only pixels with p >= this vote in h_short; 0 as in the paper, below 1.

    Returns:
        (P, H, W), not negative.
    """
    unit = 1 / (math.pi * radius**2)
    weights = (short_weight * unit, long_weight * unit)
    least = math.log(vote_threshold / (1 - vote_threshold)) if vote_threshold > 0 else -math.inf
    if heatmap.device.type != "cpu":
        return hough_scores_torch(heatmap.float(), short_range.float(), located.float(), *weights, least)
    heatmaps, offsets, positions = float_array(heatmap), float_array(short_range), float_array(located)

    def vote(kind: int) -> np.ndarray:
        return _hough_compiled(
            heatmaps[kind],
            offsets[kind],
            positions[kind],
            np.float32(weights[0]),
            np.float32(weights[1]),
            np.float32(least),
        )

    return torch.from_numpy(np.stack(over_kinds(vote, len(heatmaps))))


def hough_scores_torch(
    heatmap: Tensor, short_range: Tensor, located: Tensor, short_weight: float, long_weight: float, least: float
) -> Tensor:
    """`hough_scores` in torch, for devices other than the CPU; weights include 1 / (pi R^2), `least` is a logit."""
    scores = torch.zeros_like(heatmap)
    kinds, y, x = (heatmap >= least).nonzero(as_tuple=True)  # device sync: once per image
    offsets = short_range[kinds, :, y, x]
    _vote(scores, kinds, y + offsets[:, 0], x + offsets[:, 1], heatmap[kinds, y, x].sigmoid() * short_weight)
    kinds = torch.arange(len(located), device=located.device)[:, None].expand(located[:, 0].shape)
    weights = torch.full_like(located[:, 0], long_weight)
    _vote(scores, *(votes.flatten() for votes in (kinds, located[:, 0], located[:, 1], weights)))
    return scores


def _vote(scores: Tensor, kinds: Tensor, y: Tensor, x: Tensor, weights: Tensor) -> None:
    """Add weights (V,) at positions y, x (V,) of `scores` (P, H, W), spread by the bilinear kernel."""
    height, width = scores.shape[1:]
    top, left = y.floor(), x.floor()
    for down in (0, 1):
        for along in (0, 1):
            row, column = top + down, left + along
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)  # False if not a number
            share = (1 - (y - row).abs()) * (1 - (x - column).abs()) * weights
            index = (kinds * height + torch.where(inside, row, 0).long()) * width + torch.where(
                inside, column, 0
            ).long()
            scores.view(-1).index_add_(0, index, torch.where(inside, share, 0.0))


@njit(cache=True, nogil=True)
def _hough_compiled(
    heatmap: np.ndarray,
    short_range: np.ndarray,
    located: np.ndarray,
    short_weight: np.float32,
    long_weight: np.float32,
    least: np.float32,
) -> np.ndarray:
    """`hough_scores` of one kind (H, W); weights include 1 / (pi R^2), `least` is a logit."""
    height, width = heatmap.shape
    # A border of one pixel takes the parts of votes that fall outside.
    scores = np.zeros((height + 2) * (width + 2), dtype=np.float32)
    for y in range(height):
        for x in range(width):
            if heatmap[y, x] >= least:
                weight = short_weight / (np.float32(1) + np.exp(-heatmap[y, x]))
                to_y, to_x = np.float32(y) + short_range[0, y, x], np.float32(x) + short_range[1, y, x]
                _vote_compiled(scores, height, width, to_y, to_x, weight)
    for number in range(located.shape[1]):
        _vote_compiled(scores, height, width, located[0, number], located[1, number], long_weight)
    return scores.reshape(height + 2, width + 2)[1:-1, 1:-1].copy()


@njit(cache=True, nogil=True)
def _vote_compiled(
    scores: np.ndarray, height: int, width: int, y: np.float32, x: np.float32, weight: np.float32
) -> None:
    """Add `weight` at (y, x) of the map inside scores, flat (H + 2, W + 2), spread by the bilinear kernel.

    A flat index and single precision throughout: three times as fast as the obvious form.
    """
    zero, one = np.float32(0), np.float32(1)
    y, x = y + one, x + one
    if not (y > zero and y < np.float32(height + 1) and x > zero and x < np.float32(width + 1)):
        return
    top, left = np.int64(y), np.int64(x)
    down, along = y - np.float32(top), x - np.float32(left)
    at = top * (width + 2) + left
    below = at + width + 2
    lower, right = weight * down, weight * along
    lower_right = lower * along
    scores[at] += weight - lower - right + lower_right
    scores[at + 1] += right - lower_right
    scores[below] += lower - lower_right
    scores[below + 1] += lower_right
