"""Step 2 of DeeperLab's instance prediction (Sec. 3.4.1): Hough voting for the keypoints.

On the CPU it is one compiled loop, on other devices the same equations in torch.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit
from torch import Tensor

from panoptic.fusion.arrays import float_array, in_threads, padded_array
from panoptic.fusion.paste import check_finite

_NO_PROBABILITY, _NO_POSITION = 1, 2


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

    Raises:
        ValueError: a probability is not a number, or a vote's offset not finite.
    """
    unit = 1 / (math.pi * radius**2)
    weights = (short_weight * unit, long_weight * unit)
    least = math.log(vote_threshold / (1 - vote_threshold)) if vote_threshold > 0 else -math.inf
    if heatmap.device.type != "cpu":
        return hough_scores_torch(heatmap.float(), short_range.float(), located.float(), *weights, least)
    heatmaps, offsets, positions = padded_array(heatmap), padded_array(short_range), float_array(located)
    scores = np.zeros(heatmap.shape, dtype=np.float32)
    a, b, lowest = np.float32(weights[0]), np.float32(weights[1]), np.float32(least)

    def vote(kind: int) -> int:
        return int(_hough_compiled(heatmaps[kind], offsets[kind], positions[kind], a, b, lowest, scores[kind]))

    found = set(in_threads(vote, range(len(heatmaps))))
    check_finite(_NO_PROBABILITY not in found, "heatmap")
    check_finite(_NO_POSITION not in found, "short_range")
    return torch.from_numpy(scores)


def hough_scores_torch(
    heatmap: Tensor, short_range: Tensor, located: Tensor, short_weight: float, long_weight: float, least: float
) -> Tensor:
    """`hough_scores` in torch, for devices other than the CPU; weights include 1 / (pi R^2), `least` is a logit."""
    scores = torch.zeros_like(heatmap)
    check_finite(bool(~heatmap.isnan().any()), "heatmap")  # device syncs: three times per image
    kinds, y, x = (heatmap >= least).nonzero(as_tuple=True)
    offsets = short_range[kinds, :, y, x]
    check_finite(bool(offsets.isfinite().all()), "short_range")
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
    scores: np.ndarray,
) -> int:
    """`hough_scores` of one kind, added to scores (H, W); weights include 1 / (pi R^2), `least` is a logit.

    Heatmap (H', W') and offsets (2, H', W') may be larger than the map.

    Returns:
        0, or what is wrong with the votes: `_NO_PROBABILITY` or `_NO_POSITION`.
    """
    height, width = scores.shape
    flat = scores.reshape(-1)
    for y in range(height):
        for x in range(width):
            if not heatmap[y, x] < least:  # what is not a number must not go unseen
                weight = short_weight / (np.float32(1) + np.exp(-heatmap[y, x]))
                to_y, to_x = np.float32(y) + short_range[0, y, x], np.float32(x) + short_range[1, y, x]
                if weight != weight:
                    return _NO_PROBABILITY
                if not (abs(to_y) < np.inf and abs(to_x) < np.inf):
                    return _NO_POSITION
                _vote_compiled(flat, height, width, to_y, to_x, weight)
    _vote_located(flat, height, width, located[0], located[1], long_weight)
    return 0


@njit(cache=True, nogil=True)
def _vote_located(
    scores: np.ndarray, height: int, width: int, y: np.ndarray, x: np.ndarray, weight: np.float32
) -> None:
    """`_vote_compiled` for each of y, x (M,), in blocks of two loops of which the first is vectorised."""
    cells = np.empty(512, dtype=np.int32)
    shares = np.empty((4, 512), dtype=np.float32)
    for start in range(0, y.size, 512):
        block_y, block_x = y[start : start + 512], x[start : start + 512]
        _spread(block_y, block_x, height, width, weight, cells, shares)
        for number in range(block_y.size):
            if cells[number] < 0:
                _vote_compiled(scores, height, width, block_y[number], block_x[number], weight)
                continue
            above = np.uintp(cells[number])  # unsigned: an index that may be negative costs a comparison
            below = above + np.uintp(width)
            scores[above] += shares[0, number]
            scores[above + np.uintp(1)] += shares[1, number]
            scores[below] += shares[2, number]
            scores[below + np.uintp(1)] += shares[3, number]


@njit(cache=True, nogil=True)
def _spread(
    y: np.ndarray, x: np.ndarray, height: int, width: int, weight: np.float32, cells: np.ndarray, shares: np.ndarray
) -> None:
    """Flat index of the pixel above and left of each position and the shares of its four pixels.

    The index is -1 at the border, outside and for what is not a number.
    """
    one, last_y, last_x, row_length = np.float32(1), np.float32(height), np.float32(width), np.int32(width)
    above_left, above_right, below_left, below_right = shares[0], shares[1], shares[2], shares[3]
    for number in range(y.size):
        to_y, to_x = y[number] + one, x[number] + one
        is_inside = (to_y >= one) & (to_y < last_y) & (to_x >= one) & (to_x < last_x)
        to_y, to_x = to_y if is_inside else one, to_x if is_inside else one
        bottom, right = np.int32(to_y), np.int32(to_x)
        down, along = to_y - np.float32(bottom), to_x - np.float32(right)
        share_below, share_right = weight * down, weight * along
        share_both = share_below * along
        above_left[number] = weight - share_below - share_right + share_both
        above_right[number] = share_right - share_both
        below_left[number] = share_below - share_both
        below_right[number] = share_both
        cell = np.int32(np.int32(bottom * row_length) + right) - row_length - np.int32(1)
        cells[number] = cell if is_inside else -1


@njit(cache=True, nogil=True)
def _vote_compiled(
    scores: np.ndarray, height: int, width: int, y: np.float32, x: np.float32, weight: np.float32
) -> None:
    """Add `weight` at (y, x) of scores, flat (H, W), spread by the bilinear kernel.

    A flat index and single precision throughout: three times as fast as the obvious form.
    """
    zero, one = np.float32(0), np.float32(1)
    y, x = y + one, x + one  # not negative, so that the integer part is the floor
    if not (y > zero and y < np.float32(height + 1) and x > zero and x < np.float32(width + 1)):
        return
    bottom, right = np.int64(y), np.int64(x)
    down, along = y - np.float32(bottom), x - np.float32(right)
    share_below, share_right = weight * down, weight * along
    share_both = share_below * along
    at = (bottom - 1) * width + right - 1
    has_top, has_bottom, has_left, has_right = bottom > 0, bottom < height, right > 0, right < width
    if has_top and has_left:
        scores[at] += weight - share_below - share_right + share_both
    if has_top and has_right:
        scores[at + 1] += share_right - share_both
    if has_bottom and has_left:
        scores[at + width] += share_below - share_both
    if has_bottom and has_right:
        scores[at + width + 1] += share_both
