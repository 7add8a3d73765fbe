"""Step 1 of DeeperLab's instance prediction (Sec. 3.4.1): recursive refinement of the long-range offsets.

Only pixels of things are located. On the CPU it is one compiled loop, on other devices the same equations in torch.
"""

from __future__ import annotations

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
            float_array(long_range), float_array(short_range), pixels.numpy(), refinements, max_correction
        )
        return torch.from_numpy(located)
    return locate_keypoints_torch(
        long_range.float(), short_range.float(), pixels, refinements=refinements, max_correction=max_correction
    )


def locate_keypoints_torch(
    long_range: Tensor, short_range: Tensor, pixels: Tensor, *, refinements: int, max_correction: float
) -> Tensor:
    """`locate_keypoints` in torch, for devices other than the CPU; arguments and result are the same."""
    num_kinds, width = len(long_range), long_range.shape[-1]
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


@njit(cache=True, nogil=True, inline="always")
def _clamp(value: np.float32, last: int) -> np.float32:
    """Into 0..last; what is not a number becomes 0, so that it cannot index outside of an array."""
    if not value > 0:
        return np.float32(0)
    return min(value, np.float32(last))


@njit(cache=True, nogil=True)
def _sample(field: np.ndarray, y: np.float32, x: np.float32) -> tuple[np.float32, np.float32]:
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
        for _ in range(refinements):
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
            for _ in range(refinements):
                more_y, more_x = _sample(short_range[kind], to_y, to_x)
                if more_y * more_y + more_x * more_x <= limit:
                    to_y, to_x = to_y + more_y, to_x + more_x
            located[kind, 0, position], located[kind, 1, position] = to_y, to_x
    return located


def float_array(tensor: Tensor) -> np.ndarray:
    """float32, contiguous, of a tensor on the CPU."""
    array: np.ndarray = tensor.detach().float().contiguous().numpy()
    return array
