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
    long_fields, short_fields, limit = (
        float_array(long_range),
        float_array(short_range),
        np.float32(max_correction) ** 2,
    )

    def locate(kind: int) -> np.ndarray:
        return _locate_compiled(long_fields[kind], short_fields[kind], pixels.numpy(), refinements, limit)

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
    long_range: np.ndarray, short_range: np.ndarray, pixels: np.ndarray, refinements: int, limit: np.float32
) -> np.ndarray:
    """`locate_keypoints` of one kind (2, M); `limit` is the square of the longest correction."""
    _, height, width = long_range.shape
    # Components side by side, and one more row and column, so that a sample is read without asking for the border.
    field = np.zeros((height + 1, width + 1, 2), dtype=np.float32)
    located = np.empty((2, pixels.size), dtype=np.float32)
    origin = np.empty((2, pixels.size), dtype=np.float32)
    for number in range(pixels.size):
        y = pixels[number] // width
        x = pixels[number] - y * width
        origin[0, number], origin[1, number] = y, x
        located[0, number], located[1, number] = y + long_range[0, y, x], x + long_range[1, y, x]
    for _ in range(refinements):
        for number in range(pixels.size):
            y, x = int(origin[0, number]), int(origin[1, number])
            field[y, x, 0] = located[0, number] - origin[0, number]
            field[y, x, 1] = located[1, number] - origin[1, number]
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

    Flat indices and single precision throughout: three times as fast as the obvious form.
    """
    stride = 2 * field.shape[1]
    last_y, last_x = np.float32(field.shape[0] - 2), np.float32(field.shape[1] - 2)
    zero, one, values = np.float32(0), np.float32(1), field.reshape(-1)
    for number in range(located.shape[1]):
        y, x = located[0, number], located[1, number]
        y, x = y if y > zero else zero, x if x > zero else zero  # not a number becomes 0, an index that exists
        y, x = y if y < last_y else last_y, x if x < last_x else last_x
        top, left = np.int64(y), np.int64(x)
        down, along = y - np.float32(top), x - np.float32(left)
        at = top * stride + 2 * left
        below = at + stride
        d = down * along
        b, c = along - d, down - d
        a = one - along - c
        more_y = a * values[at] + b * values[at + 2] + c * values[below] + d * values[below + 2]
        more_x = a * values[at + 1] + b * values[at + 3] + c * values[below + 1] + d * values[below + 3]
        if more_y * more_y + more_x * more_x <= limit:
            located[0, number] += more_y
            located[1, number] += more_x


def float_array(tensor: Tensor) -> np.ndarray:
    """float32, contiguous, of a tensor on the CPU."""
    array: np.ndarray = tensor.detach().float().contiguous().numpy()
    return array
