"""Pasting and merging of detections one pixel at a time, in double precision, from the text of the papers."""

import math

import numpy as np


def paste(grid: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """Probabilities (H, W) of a grid (m, n) over a box x1 y1 x2 y2: hat functions of the cells, 0 beyond them."""
    pasted = np.zeros(size)
    cell_height, cell_width = (box[3] - box[1]) / grid.shape[0], (box[2] - box[0]) / grid.shape[1]
    for y, x in np.ndindex(*size):
        for row, column in np.ndindex(*grid.shape):
            down = (y + 0.5 - (box[1] + (row + 0.5) * cell_height)) / cell_height
            along = (x + 0.5 - (box[0] + (column + 0.5) * cell_width)) / cell_width
            pasted[y, x] += max(0, 1 - abs(down)) * max(0, 1 - abs(along)) * grid[row, column]
    return pasted


def ranking_score(logits: np.ndarray, mask: np.ndarray, channel: int) -> float:
    """OANet, Eq. 3 and 4, with m = 1 inside the mask, of logits (T, H, W) and mask (H, W)."""
    pixels = np.argwhere(mask)
    total = 0.0
    for y, x in pixels:
        powers = [math.exp(value - logits[:, y, x].max()) for value in logits[:, y, x]]
        total += powers[channel] / sum(powers)
    return total / len(pixels) if len(pixels) else 0.0


def merge(
    masks: list[np.ndarray],
    category_ids: list[int],
    stuff_map: np.ndarray,
    *,
    overlap_threshold: float,
    min_area: int,
) -> tuple[list[list[tuple[int, int] | None]], list[int]]:
    """Masks (H, W), those on top first, over a map of stuff (H, W), -1 where there is none.

    Returns:
        what each pixel shows: (category, number of the mask, -1 for stuff), or None for void; and the masks that stay.
    """
    height, width = stuff_map.shape
    shown: list[list[tuple[int, int] | None]] = [[None] * width for _ in range(height)]
    stay = []
    for number, mask in enumerate(masks):
        pixels = [(int(y), int(x)) for y, x in np.argwhere(mask)]
        free = [(y, x) for y, x in pixels if shown[y][x] is None]
        if free and len(free) / len(pixels) >= overlap_threshold:
            stay.append(number)
            for y, x in free:
                shown[y][x] = (category_ids[number], number)
    free = {(y, x) for y, x in np.ndindex(height, width) if shown[y][x] is None and stuff_map[y, x] >= 0}
    for area in areas_of_one_value(stuff_map, free, diagonal=True):
        if len(area) >= min_area:
            for y, x in area:
                shown[y][x] = (int(stuff_map[y, x]), -1)
    return shown, stay


def areas_of_one_value(
    values: np.ndarray, pixels: set[tuple[int, int]], *, diagonal: bool
) -> list[set[tuple[int, int]]]:
    """Connected sets of pixels of one value, by flooding from one pixel after the other."""
    steps = [(-1, 0), (0, -1), (0, 1), (1, 0)]
    steps += [(-1, -1), (-1, 1), (1, -1), (1, 1)] if diagonal else []
    left, found = set(pixels), []
    for start in sorted(pixels):
        if start not in left:
            continue
        area, front = {start}, [start]
        while front:
            y, x = front.pop()
            for down, along in steps:
                other = (y + down, x + along)
                if other in left and other not in area and values[other] == values[start]:
                    area.add(other)
                    front.append(other)
        left -= area
        found.append(area)
    return found
