"""Steps 1 and 2 of DeeperLab's instance prediction (Sec. 3.4.1): recursive offset refinement and Hough voting.

Dense work happens only where it is needed: long-range offsets on pixels of things, votes where the heatmap is above a
threshold. On the CPU it is one compiled loop, on other devices the same equations in torch.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit
from torch import Tensor


def locate_keypoints(
    long_range: Tensor, short_range: Tensor, pixels: Tensor, *, refinements: int, max_correction: float
) -> Tensor:
    """Where each thing pixel sees the keypoints of its instance: x + L(x), after the recursive refinement of L.

    L(x) <- L(x) + L(x + L(x)), then L(x) <- L(x) + S(x + L(x)), each `refinements` times, sampled bilinearly.

    DEVIATION (DeeperLab, Sec. 3.4.1): offsets of pixels that are not things count as 0, since they have no target; and
    a correction longer than `max_correction` is left out. The corner of a box often lies on another instance, whose
    offsets there lead to that instance's corner: they correct nothing.

    Args:
        long_range: (P, 2, H, W), (dy, dx) in pixels.
        short_range: (P, 2, H, W), (dy, dx) in pixels.
        pixels: (M,) int64, y * W + x of each pixel of a thing.
        refinements: times that each of the two refinements is applied; 2 in PersonLab.
        max_correction: longest correction that is believed, in pixels; infinity as in the paper.

    Returns:
        located: (P, 2, M), (y, x) in pixels; may lie outside of the image.
    """
    if long_range.device.type == "cpu":
        located = _locate_compiled(
            _float_array(long_range), _float_array(short_range), pixels.numpy(), refinements, max_correction
        )
        return torch.from_numpy(located)
    return locate_keypoints_torch(
        long_range.float(), short_range.float(), pixels, refinements=refinements, max_correction=max_correction
    )


def locate_keypoints_torch(
    long_range: Tensor, short_range: Tensor, pixels: Tensor, *, refinements: int, max_correction: float
) -> Tensor:
    """`locate_keypoints` in torch, for devices other than the CPU; arguments and result are the same."""
    num_kinds, _, height, width = long_range.shape
    y, x = pixels // width, pixels % width
    grid = torch.stack([y, x]).to(long_range.dtype)  # (2, M)
    kinds = torch.arange(num_kinds, device=pixels.device)[:, None]
    field = torch.zeros_like(long_range)
    offsets = long_range[:, :, y, x]  # (P, 2, M)
    for refinement in range(2 * refinements):
        if refinement < refinements:
            field[:, :, y, x] = offsets
        source = field if refinement < refinements else short_range
        positions = (grid + offsets).movedim(1, 2)  # (P, M, 2)
        correction = sample_bilinear(source, kinds, positions).movedim(2, 1)
        believed = correction.square().sum(1, keepdim=True) <= max_correction**2
        offsets = torch.where(believed, offsets + correction, offsets)
    return grid + offsets


def sample_bilinear(fields: Tensor, which: Tensor, positions: Tensor) -> Tensor:
    """Values of fields between their pixels; a position outside is moved to the border.

    Args:
        fields: (F, D, H, W).
        which: (...) int64, the field of each position.
        positions: (..., 2), (y, x) in pixels.

    Returns:
        (..., D); where a position is not a number, the value at pixel (0, 0).
    """
    height, width = fields.shape[-2:]
    positions = positions.nan_to_num()
    y, x = positions[..., 0].clamp(0, height - 1), positions[..., 1].clamp(0, width - 1)
    top, left = y.long(), x.long()
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    down, along = (y - top)[..., None], (x - left)[..., None]
    upper = fields[which, :, top, left] * (1 - along) + fields[which, :, top, right] * along
    lower = fields[which, :, bottom, left] * (1 - along) + fields[which, :, bottom, right] * along
    return upper * (1 - down) + lower * down


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
        vote_threshold: only pixels with p >= this vote in h_short; 0 as in the paper.

    Returns:
        (P, H, W), not negative.
    """
    votes_per_unit = 1 / (math.pi * radius**2)
    least = -math.inf if vote_threshold <= 0 else math.inf if vote_threshold >= 1 else _logit(vote_threshold)
    weights = (short_weight * votes_per_unit, long_weight * votes_per_unit)
    if heatmap.device.type == "cpu":
        arrays = [_float_array(tensor) for tensor in (heatmap, short_range, located)]
        return torch.from_numpy(_hough_compiled(*arrays, *weights, least))
    return hough_scores_torch(heatmap.float(), short_range.float(), located.float(), *weights, least)


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def hough_scores_torch(
    heatmap: Tensor, short_range: Tensor, located: Tensor, short_weight: float, long_weight: float, least: float
) -> Tensor:
    """`hough_scores` in torch, for devices other than the CPU; weights include 1 / (pi R^2), `least` is a logit."""
    height, width = heatmap.shape[1:]
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


def _float_array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().float().contiguous().numpy()
    return array


@njit(cache=True, nogil=True, inline="always")
def _clamp(value: float, last: int) -> float:
    """Into 0..last; what is not a number becomes 0, so that it cannot index outside of an array."""
    if not value > 0:
        return np.float32(0)
    return min(value, np.float32(last))


@njit(cache=True, nogil=True)
def _sample(field: np.ndarray, y: float, x: float) -> tuple[float, float]:
    """(dy, dx) of a field (2, H, W) between its pixels, as `sample_bilinear`."""
    height, width = field.shape[1:]
    y, x = _clamp(y, height - 1), _clamp(x, width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, along = y - np.float32(top), x - np.float32(left)
    up, before = np.float32(1) - down, np.float32(1) - along
    a, b, c, d = up * before, up * along, down * before, down * along
    dy = a * field[0, top, left] + b * field[0, top, right] + c * field[0, bottom, left] + d * field[0, bottom, right]
    dx = a * field[1, top, left] + b * field[1, top, right] + c * field[1, bottom, left] + d * field[1, bottom, right]
    return dy, dx


@njit(cache=True, nogil=True)
def _locate_compiled(
    long_range: np.ndarray, short_range: np.ndarray, pixels: np.ndarray, refinements: int, max_correction: float
) -> np.ndarray:
    """`locate_keypoints`; a refinement reads the previous one of the whole field, so two buffers take turns."""
    num_kinds, _, height, width = long_range.shape
    located = np.empty((num_kinds, 2, pixels.size), dtype=np.float32)
    limit = np.float32(max_correction) ** 2
    field, refined = np.zeros((2, height, width), dtype=np.float32), np.zeros((2, height, width), dtype=np.float32)
    for kind in range(num_kinds):
        for pixel in pixels:
            y, x = pixel // width, pixel % width
            field[0, y, x], field[1, y, x] = long_range[kind, 0, y, x], long_range[kind, 1, y, x]
        for refinement in range(refinements):
            for pixel in pixels:
                y, x = pixel // width, pixel % width
                dy, dx = field[0, y, x], field[1, y, x]
                more_y, more_x = _sample(field, np.float32(y) + dy, np.float32(x) + dx)
                believed = more_y * more_y + more_x * more_x <= limit
                refined[0, y, x], refined[1, y, x] = (dy + more_y, dx + more_x) if believed else (dy, dx)
            field, refined = refined, field
        for position, pixel in enumerate(pixels):
            y, x = pixel // width, pixel % width
            to_y, to_x = np.float32(y) + field[0, y, x], np.float32(x) + field[1, y, x]
            for refinement in range(refinements):
                more_y, more_x = _sample(short_range[kind], to_y, to_x)
                if more_y * more_y + more_x * more_x <= limit:
                    to_y, to_x = to_y + more_y, to_x + more_x
            located[kind, 0, position], located[kind, 1, position] = to_y, to_x
    return located


@njit(cache=True, nogil=True)
def _vote_compiled(scores: np.ndarray, y: float, x: float, weight: float) -> None:
    """Add `weight` at (y, x) of scores (H, W), spread by the bilinear kernel."""
    height, width = scores.shape
    if not (y > -1 and y < height and x > -1 and x < width):
        return
    top, left = math.floor(y), math.floor(x)
    down, along = y - np.float32(top), x - np.float32(left)
    up, before = np.float32(1) - down, np.float32(1) - along
    if top >= 0 and left >= 0:
        scores[top, left] += weight * up * before
    if top >= 0 and left + 1 < width:
        scores[top, left + 1] += weight * up * along
    if top + 1 < height and left >= 0:
        scores[top + 1, left] += weight * down * before
    if top + 1 < height and left + 1 < width:
        scores[top + 1, left + 1] += weight * down * along


@njit(cache=True, nogil=True)
def _hough_compiled(
    heatmap: np.ndarray,
    short_range: np.ndarray,
    located: np.ndarray,
    short_weight: float,
    long_weight: float,
    least: float,
) -> np.ndarray:
    """`hough_scores`; weights include 1 / (pi R^2), `least` is a logit."""
    num_kinds, height, width = heatmap.shape
    scores = np.zeros((num_kinds, height, width), dtype=np.float32)
    for kind in range(num_kinds):
        for y in range(height):
            for x in range(width):
                if heatmap[kind, y, x] >= least:
                    weight = np.float32(short_weight / (1 + math.exp(-heatmap[kind, y, x])))
                    to_y = np.float32(y) + short_range[kind, 0, y, x]
                    to_x = np.float32(x) + short_range[kind, 1, y, x]
                    _vote_compiled(scores[kind], to_y, to_x, weight)
        for position in range(located.shape[2]):
            _vote_compiled(
                scores[kind], located[kind, 0, position], located[kind, 1, position], np.float32(long_weight)
            )
    return scores
