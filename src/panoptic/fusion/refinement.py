"""Step 1 of DeeperLab's instance prediction (Sec. 3.4.1): recursive refinement of the long-range offsets.

Only pixels of things are located. On the CPU it is one compiled loop, on other devices the same equations in torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from panoptic.fusion.arrays import padded_array, split_range
from panoptic.fusion.paste import check_finite


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

    Raises:
        ValueError: a position is not finite.
    """
    if long_range.device.type != "cpu":
        found = locate_keypoints_torch(
            long_range.float(), short_range.float(), pixels, refinements=refinements, max_correction=max_correction
        )
        check_finite(bool(found.isfinite().all()), "long_range")  # device sync: once per image
        return found
    size = (long_range.shape[-2], long_range.shape[-1])
    rows, columns = np.empty((2, len(pixels)), dtype=np.uint32)  # see `_correct`: unsigned indices are faster
    _write_coordinates(pixels.numpy(), np.uint32(size[1]), rows, columns)
    located = np.empty((len(long_range), 2, len(pixels)), dtype=np.float32)
    field = np.zeros((2, *size), dtype=np.float32)  # of one kind after the other; stays 0 outside things
    limit = np.float32(max_correction) ** 2
    kinds = zip(located, padded_array(long_range), padded_array(short_range), strict=True)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for (y, x), long_offsets, short_offsets in kinds:
            parts = [_Part(y[at], x[at], rows[at], columns[at]) for at in split_range(len(pixels))]
            is_finite = _locate_parts(pool, parts, long_offsets, short_offsets, field, refinements, limit)
            check_finite(is_finite, "long_range")
    return torch.from_numpy(located)


class _Part(NamedTuple):
    """Pixels (M,) of things and where they see their keypoint, for one thread."""

    y: np.ndarray
    x: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


def _locate_parts(
    pool: ThreadPoolExecutor,
    parts: Sequence[_Part],
    long_offsets: np.ndarray,
    short_offsets: np.ndarray,
    field: np.ndarray,
    refinements: int,
    limit: np.float32,
) -> bool:
    """`locate_keypoints` of one kind: offsets (2, H', W'); a field (2, H, W) to write in, 0 outside things.

    Returns:
        Whether all positions are finite.
    """
    size = (field.shape[1], field.shape[2])

    def in_all_parts(step: Callable[[_Part], object]) -> list[object]:
        return list(pool.map(step, parts))  # each step reads what the one before wrote in other parts

    in_all_parts(lambda part: _start(*part, long_offsets, field))
    for refinement in range(refinements):
        if refinement > 0:
            in_all_parts(lambda part: _write_offsets(*part, field))
        in_all_parts(lambda part: _correct(part.y, part.x, field, size, limit, 1))
    return all(in_all_parts(lambda part: _correct(part.y, part.x, short_offsets, size, limit, refinements)))


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
def _write_coordinates(pixels: np.ndarray, width: np.uint32, rows: np.ndarray, columns: np.ndarray) -> None:
    """Rows and columns (M,) uint32 of flat indices; divisions of 32 bits are faster than those of 64."""
    for number in range(pixels.size):
        pixel = np.uint32(pixels[number])
        row = np.uint32(pixel // width)
        rows[number], columns[number] = row, pixel - row * width


@njit(cache=True, nogil=True)
def _start(
    y: np.ndarray, x: np.ndarray, rows: np.ndarray, columns: np.ndarray, offsets: np.ndarray, field: np.ndarray
) -> None:
    """Positions y, x (M,) that the offsets (2, H', W') of pixels lead to; then as `_write_offsets`."""
    for number in range(rows.size):
        row, column = rows[number], columns[number]
        from_y, from_x = np.float32(row), np.float32(column)
        to_y, to_x = from_y + offsets[0, row, column], from_x + offsets[1, row, column]
        y[number], x[number] = to_y, to_x
        field[0, row, column], field[1, row, column] = to_y - from_y, to_x - from_x


@njit(cache=True, nogil=True)
def _write_offsets(y: np.ndarray, x: np.ndarray, rows: np.ndarray, columns: np.ndarray, field: np.ndarray) -> None:
    """The offsets that lead to y, x (M,), into the field (2, H, W)."""
    for number in range(rows.size):
        row, column = rows[number], columns[number]
        field[0, row, column], field[1, row, column] = y[number] - np.float32(row), x[number] - np.float32(column)


@njit(cache=True, nogil=True)
def _correct(
    y: np.ndarray, x: np.ndarray, field: np.ndarray, size: tuple[int, int], limit: np.float32, times: int
) -> bool:
    """Add to positions y, x (M,) the field (2, H', W') of which the image is (H, W) = `size`, sampled there, in place.

    In blocks of several loops, all of them vectorised but the one that gathers: twice as fast as one loop. Few arrays
    per loop, as the compiler gives up where too many might overlap. `limit` is the square of the longest correction.

    Returns:
        Whether all positions are finite afterwards.
    """
    height, width = size
    stride = field.shape[2]
    vertical, horizontal = field[0].reshape(-1), field[1].reshape(-1)
    # Cells begin at most one pixel before the border, so that their pixels exist; a single row is its own neighbour.
    # Unsigned, since an index that may be negative costs a comparison.
    below, right = np.uintp(stride if height > 1 else 0), np.uintp(1 if width > 1 else 0)
    cells = np.empty(512, dtype=np.int32)
    shares, more = np.empty((2, 512), dtype=np.float32), np.empty((2, 512), dtype=np.float32)
    corners_y, corners_x = np.empty((4, 512), dtype=np.float32), np.empty((4, 512), dtype=np.float32)
    num_finite = 0
    for start in range(0, y.size, 512):
        block_y, block_x = y[start : start + 512], x[start : start + 512]
        more_y, more_x = more[0, : block_y.size], more[1, : block_y.size]
        for _ in range(times):
            _find_cells(block_y, block_x, height, width, stride, cells, shares)
            for number in range(block_y.size):
                cell = np.uintp(cells[number])
                corners_y[0, number], corners_x[0, number] = vertical[cell], horizontal[cell]
                corners_y[1, number], corners_x[1, number] = vertical[cell + right], horizontal[cell + right]
                under = cell + below
                corners_y[2, number], corners_x[2, number] = vertical[under], horizontal[under]
                corners_y[3, number], corners_x[3, number] = vertical[under + right], horizontal[under + right]
            _mix(corners_y, shares, more_y)
            _mix(corners_x, shares, more_x)
            _add_believed(block_y, block_x, more_y, more_x, limit)
        num_finite += _count_finite(block_y) + _count_finite(block_x)
    return bool(num_finite == 2 * y.size)


@njit(cache=True, nogil=True)
def _count_finite(values: np.ndarray) -> int:
    count = 0
    for value in values:
        count += value - value == 0
    return count


@njit(cache=True, nogil=True)
def _find_cells(
    y: np.ndarray,
    x: np.ndarray,
    height: int,
    width: int,
    stride: int,
    cells: np.ndarray,
    shares: np.ndarray,
) -> None:
    """Flat index of the pixel above and left of each position, and the shares of the pixels below and right of it."""
    zero, down, along = np.float32(0), shares[0], shares[1]
    last_y, last_x = np.float32(height - 1), np.float32(width - 1)
    last_top, last_left = np.int32(max(height - 2, 0)), np.int32(max(width - 2, 0))
    row_length = np.int32(stride)
    for number in range(y.size):
        # What is not a number becomes 0, an index that exists.
        to_y, to_x = y[number] if y[number] > zero else zero, x[number] if x[number] > zero else zero
        to_y, to_x = to_y if to_y < last_y else last_y, to_x if to_x < last_x else last_x
        top, left = min(np.int32(to_y), last_top), min(np.int32(to_x), last_left)
        down[number], along[number] = to_y - np.float32(top), to_x - np.float32(left)
        cells[number] = top * row_length + left


@njit(cache=True, nogil=True)
def _mix(corners: np.ndarray, shares: np.ndarray, mixed: np.ndarray) -> None:
    """The bilinear mean of corners (4, M): above left, above right, below left, below right."""
    down, along = shares[0], shares[1]
    above_left, above_right, below_left, below_right = corners[0], corners[1], corners[2], corners[3]
    for number in range(mixed.size):
        d = down[number] * along[number]
        b, c = along[number] - d, down[number] - d
        a = np.float32(1) - along[number] - c
        mixed[number] = (
            a * above_left[number] + b * above_right[number] + c * below_left[number] + d * below_right[number]
        )


@njit(cache=True, nogil=True)
def _add_believed(y: np.ndarray, x: np.ndarray, more_y: np.ndarray, more_x: np.ndarray, limit: np.float32) -> None:
    """Add corrections to positions (M,) where they are not too long."""
    zero = np.float32(0)
    for number in range(y.size):
        is_believed = more_y[number] * more_y[number] + more_x[number] * more_x[number] <= limit
        y[number] += more_y[number] if is_believed else zero
        x[number] += more_x[number] if is_believed else zero
