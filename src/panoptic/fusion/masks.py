"""Masks of detections in an image, each held only as large as its box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from torch import Tensor

from panoptic.fusion.arrays import float_array, in_threads
from panoptic.fusion.paste import check_finite
from panoptic.structures import Detections


@dataclass(frozen=True, eq=False)
class PastedMasks:
    """Masks of N instances in one image, on the CPU; a mask has no pixels outside of its window.

    Args:
        size: (H, W) of the image in pixels.
        windows: (N, 4) int64, x1 y1 x2 y2 in pixels, x2 and y2 exclusive, inside the image; may hold no pixel.
        starts: (N,) int64, where each window begins in `pixels`.
        pixels: (K,) bool, the windows row by row, one after the other.
        areas: (N,) int64, pixels of each mask.
    """

    size: tuple[int, int]
    windows: np.ndarray
    starts: np.ndarray
    pixels: np.ndarray
    areas: np.ndarray

    def __len__(self) -> int:
        return len(self.windows)

    def patch(self, index: int) -> Tensor:
        """(h, w) bool, the window of one mask; not a copy."""
        left, top, right, bottom = self.windows[index]
        start, area = self.starts[index], (bottom - top) * (right - left)
        return torch.from_numpy(self.pixels[start : start + area].reshape(bottom - top, right - left))

    def select(self, rows: np.ndarray) -> PastedMasks:
        """The masks of these rows (M,) int64, in this order; pixels are not copied."""
        return PastedMasks(self.size, self.windows[rows], self.starts[rows], self.pixels, self.areas[rows])


def paste_masks(detections: Detections, size: tuple[int, int]) -> PastedMasks:
    """Masks of detections in an image of `size`: pixels at whose centre the probability is at least 0.5.

    The grid of a mask covers its box evenly; between centres of cells the probability is bilinear, and it falls to 0
    within one cell beyond the grid. A grid with one cell for each pixel of its box comes back exactly. Boxes may lie
    outside of the image, wholly too; a box without width or height has no pixels.

    DEVIATION (torchvision, `paste_masks_in_image`): the box is not rounded to whole pixels, nor one pixel wider than
    it says; then no grid would come back exactly. And 0.5 itself is inside, where torchvision's users leave it out.

    Args:
        detections: N of them, on any device; their boxes are scaled from their `image_size` to `size`.
        size: (H, W) in pixels.

    Raises:
        ValueError: a box, score or probability is not finite, or a mask is not a grid of at least one cell.
    """
    boxes = scaled_boxes(detections, size).numpy()
    cells, shapes = _grids(detections.masks)
    check_finite(bool(np.isfinite(boxes).all() and np.isfinite(cells).all()), "instances")
    check_finite(bool(detections.scores.isfinite().all()), "instances")  # device sync: once per image
    cell_starts, _ = _starts(shapes)
    windows = _windows(boxes, size)
    starts, total = _starts(windows[:, 2:] - windows[:, :2])
    pasted = PastedMasks(size, windows, starts, np.empty(total, np.bool_), np.zeros(len(boxes), np.int64))
    step = torch.get_num_threads()

    def paste(first: int) -> None:
        arrays = (pasted.windows, pasted.starts, pasted.pixels, pasted.areas)
        _paste(cells, cell_starts, shapes, boxes, *arrays, first, step)

    in_threads(paste, range(step))
    return pasted


def scaled_boxes(detections: Detections, size: tuple[int, int]) -> Tensor:
    """Boxes (N, 4) float64 on the CPU, scaled from the detections' `image_size` to `size` = (H, W)."""
    height, width = (new / old for new, old in zip(size, detections.image_size, strict=True))
    return detections.boxes.detach().cpu().double() * torch.tensor([width, height, width, height], dtype=torch.float64)


def full_masks(pasted: PastedMasks, device: torch.device | str = "cpu") -> Tensor:
    """The masks (N, H, W) bool on `device`; on the CPU only memory that a mask touches is ever used."""
    if torch.device(device).type != "cpu":
        masks = torch.zeros((len(pasted), *pasted.size), dtype=torch.bool, device=device)
        for index, (left, top, right, bottom) in enumerate(pasted.windows.tolist()):
            masks[index, top:bottom, left:right] = pasted.patch(index).to(device)
        return masks
    expanded = np.zeros((len(pasted), *pasted.size), dtype=np.bool_)
    step = torch.get_num_threads()
    in_threads(lambda first: _expand(pasted.windows, pasted.starts, pasted.pixels, expanded, first, step), range(step))
    return torch.from_numpy(expanded)


def _grids(masks: Sequence[Tensor] | Tensor) -> tuple[np.ndarray, np.ndarray]:
    """All cells (K,) of N masks one after the other, and their shapes (N, 2)."""
    for mask in masks:
        if mask.ndim != 2 or mask.numel() == 0:
            raise ValueError(f"expected masks of shape (m, n) with at least one cell, got {tuple(mask.shape)}")
    shapes = np.array([tuple(mask.shape) for mask in masks], dtype=np.int64).reshape(-1, 2)
    if len(masks) == 0:
        return np.empty(0, dtype=np.float32), shapes
    cells = masks if isinstance(masks, Tensor) else torch.cat([mask.flatten() for mask in masks])
    return float_array(cells.cpu()).reshape(-1), shapes


def _starts(shapes: np.ndarray) -> tuple[np.ndarray, int]:
    """Where N arrays of these shapes (N, 2) begin if they follow one another, (N,) int64, and how long they are."""
    lengths = shapes.prod(axis=1)
    ends = np.cumsum(lengths)
    return ends - lengths, int(lengths.sum())


def _windows(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N, 4) int64, the pixels whose centres lie in boxes (N, 4): beyond them the probability is below 0.5."""
    sides = np.array([size[1], size[0]])
    begins = np.clip(np.ceil(boxes[:, :2] - 0.5), 0, sides)
    ends = np.clip(np.floor(boxes[:, 2:] + 0.5), begins, sides)
    ends = np.where((boxes[:, 2:] > boxes[:, :2]).all(axis=1, keepdims=True), ends, begins)
    return np.concatenate([begins, ends], axis=1).astype(np.int64)


@njit(cache=True, nogil=True)
def _paste(
    cells: np.ndarray,
    cell_starts: np.ndarray,
    shapes: np.ndarray,
    boxes: np.ndarray,
    windows: np.ndarray,
    starts: np.ndarray,
    pixels: np.ndarray,
    areas: np.ndarray,
    first: int,
    step: int,
) -> None:
    """Every `step`-th mask, written to pixels (K,) and areas (N,)."""
    for number in range(first, len(windows), step):
        left, top, right, bottom = windows[number]
        num_rows, num_columns = shapes[number]
        grid = cells[cell_starts[number] : cell_starts[number] + num_rows * num_columns]
        patch = pixels[starts[number] : starts[number] + (bottom - top) * (right - left)]
        if patch.size > 0:
            areas[number] = _paste_one(
                grid.reshape(num_rows, num_columns),
                boxes[number],
                left,
                top,
                patch.reshape(bottom - top, right - left),
            )


@njit(cache=True, nogil=True)
def _paste_one(grid: np.ndarray, box: np.ndarray, left: int, top: int, patch: np.ndarray) -> int:
    """One mask (m, n) of a box (4,) into the patch (h, w) whose first pixel is (top, left); returns its area."""
    num_rows, num_columns = grid.shape
    padded = np.zeros((num_rows + 2, num_columns + 2), dtype=np.float32)
    padded[1:-1, 1:-1] = grid
    rows, down = _cells_of(box[1], box[3], num_rows, top, patch.shape[0])
    columns, along = _cells_of(box[0], box[2], num_columns, left, patch.shape[1])
    line = np.empty(num_columns + 2, dtype=np.float32)
    half, area = np.float32(0.5), 0
    for y in range(patch.shape[0]):
        above, below, share = padded[rows[y]], padded[rows[y] + 1], down[y]
        for column in range(line.size):
            line[column] = above[column] + share * (below[column] - above[column])
        pixels = patch[y]
        for x in range(pixels.size):
            value = line[columns[x]] + along[x] * (line[columns[x] + 1] - line[columns[x]])
            pixels[x] = value >= half
        count = 0
        for x in range(pixels.size):
            count += pixels[x]
        area += count
    return area


@njit(cache=True, nogil=True)
def _cells_of(begin: float, end: float, num_cells: int, first: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Along one side of a box: the cell, of a grid with one more at either end, before the centre of each pixel.

    Returns:
        cells: (length,) int32.
        shares: (length,) of the next cell.
    """
    cells = np.empty(length, dtype=np.int32)
    shares = np.empty(length, dtype=np.float32)
    scale = num_cells / (end - begin)
    for number in range(length):
        position = (first + number + 0.5 - begin) * scale + 0.5
        cell = min(max(int(position), 0), num_cells)
        cells[number] = cell
        shares[number] = min(max(position - cell, 0.0), 1.0)
    return cells, shares


@njit(cache=True, nogil=True)
def _expand(
    windows: np.ndarray, starts: np.ndarray, pixels: np.ndarray, expanded: np.ndarray, first: int, step: int
) -> None:
    """Every `step`-th mask into expanded (N, H, W)."""
    for number in range(first, len(windows), step):
        left, top, right, bottom = windows[number]
        patch = pixels[starts[number] : starts[number] + (bottom - top) * (right - left)]
        expanded[number, top:bottom, left:right] = patch.reshape(bottom - top, right - left)
