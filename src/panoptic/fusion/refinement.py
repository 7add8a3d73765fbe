"""Step 1 of DeeperLab's instance prediction (Sec. 3.4.1): recursive refinement of the long-range offsets.

Only pixels of things are located. On the CPU it is one compiled loop, on other devices the same equations in torch.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba import njit
from torch import Tensor

from panoptic.fusion.paste import float_array


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
    if long_range.device.type != "cpu":
        return locate_keypoints_torch(
            long_range.float(), short_range.float(), pixels, refinements=refinements, max_correction=max_correction
        )
    long_fields, short_fields = float_array(long_range), float_array(short_range)
    limit = np.float32(max_correction) ** 2
    rows, columns = (at.numpy() for at in (pixels // long_range.shape[-1], pixels % long_range.shape[-1]))

    def locate(kind: int) -> np.ndarray:
        return _locate_compiled(long_fields[kind], short_fields[kind], rows, columns, refinements, limit)

    return torch.from_numpy(np.stack(over_kinds(locate, len(long_fields))))


def over_kinds(function: Callable[[int], np.ndarray], num_kinds: int) -> list[np.ndarray]:
    """Results of a compiled function for each keypoint kind, in as many threads as torch may use."""
    with ThreadPoolExecutor(min(num_kinds, torch.get_num_threads())) as pool:
        return list(pool.map(function, range(num_kinds)))


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


@njit(cache=True, nogil=True)
def _locate_compiled(
    long_range: np.ndarray,
    short_range: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    refinements: int,
    limit: np.float32,
) -> np.ndarray:
    """`locate_keypoints` of one kind (2, M); `limit` is the square of the longest correction."""
    _, height, width = long_range.shape
    # Components side by side, and one more row and column, so that a sample is read without asking for the border.
    field = np.zeros((height + 1, width + 1, 2), dtype=np.float32)
    located = np.empty((2, rows.size), dtype=np.float32)
    for number in range(rows.size):
        y, x = rows[number], columns[number]
        located[0, number], located[1, number] = y + long_range[0, y, x], x + long_range[1, y, x]
    for _ in range(refinements):
        for number in range(rows.size):
            y, x = rows[number], columns[number]
            field[y, x, 0] = located[0, number] - np.float32(y)
            field[y, x, 1] = located[1, number] - np.float32(x)
        _correct(located, field, limit)
    for y in range(height):
        for x in range(width):
            field[y, x, 0], field[y, x, 1] = short_range[0, y, x], short_range[1, y, x]
    for _ in range(refinements):
        _correct(located, field, limit)
    return located


@njit(cache=True, nogil=True)
def _correct(located: np.ndarray, field: np.ndarray, limit: np.float32) -> None:
    """Add to each position of located (2, M) the field (H + 1, W + 1, 2) sampled there, in place.

    In blocks of three loops, of which the first and the last are vectorised: twice as fast as one loop.
    """
    last_y, last_x, stride = np.float32(field.shape[0] - 2), np.float32(field.shape[1] - 2), field.shape[1]
    values = field.reshape(-1, 2)
    cells = np.empty(512, dtype=np.int32)
    shares = np.empty((2, 512), dtype=np.float32)
    corners = np.empty((8, 512), dtype=np.float32)
    for start in range(0, located.shape[1], 512):
        y, x = located[0, start : start + 512], located[1, start : start + 512]
        _find_cells(y, x, last_y, last_x, np.int32(stride), cells, shares)
        for number, cell in enumerate(cells[: y.size]):
            corners[0, number], corners[1, number] = values[cell, 0], values[cell, 1]
            corners[2, number], corners[3, number] = values[cell + 1, 0], values[cell + 1, 1]
            corners[4, number], corners[5, number] = values[cell + stride, 0], values[cell + stride, 1]
            corners[6, number], corners[7, number] = values[cell + stride + 1, 0], values[cell + stride + 1, 1]
        _add_between(y, x, shares, corners, limit)


@njit(cache=True, nogil=True)
def _find_cells(
    y: np.ndarray,
    x: np.ndarray,
    last_y: np.float32,
    last_x: np.float32,
    stride: np.int32,
    cells: np.ndarray,
    shares: np.ndarray,
) -> None:
    """Flat index of the pixel above and left of each position, and the shares of the pixels below and right of it."""
    zero, down, along = np.float32(0), shares[0], shares[1]
    for number in range(y.size):
        # What is not a number becomes 0, an index that exists.
        to_y, to_x = y[number] if y[number] > zero else zero, x[number] if x[number] > zero else zero
        to_y, to_x = to_y if to_y < last_y else last_y, to_x if to_x < last_x else last_x
        top, left = np.int32(to_y), np.int32(to_x)
        down[number], along[number] = to_y - np.float32(top), to_x - np.float32(left)
        cells[number] = top * stride + left


@njit(cache=True, nogil=True)
def _add_between(y: np.ndarray, x: np.ndarray, shares: np.ndarray, corners: np.ndarray, limit: np.float32) -> None:
    """Add the bilinear mean of the corners (8, M), dy and dx of four pixels, where it is not too long."""
    zero, down, along = np.float32(0), shares[0], shares[1]
    a_y, a_x, b_y, b_x, c_y, c_x, d_y, d_x = (
        corners[0], corners[1], corners[2], corners[3], corners[4], corners[5], corners[6], corners[7]
    )  # fmt: skip
    for number in range(y.size):
        d = down[number] * along[number]
        b, c = along[number] - d, down[number] - d
        a = np.float32(1) - along[number] - c
        more_y = a * a_y[number] + b * b_y[number] + c * c_y[number] + d * d_y[number]
        more_x = a * a_x[number] + b * b_x[number] + c * c_x[number] + d * d_x[number]
        is_believed = more_y * more_y + more_x * more_x <= limit
        y[number] += more_y if is_believed else zero
        x[number] += more_x if is_believed else zero
