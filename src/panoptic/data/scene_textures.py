"""How the stuff of a scene looks: textures of sky, road, wall and grass, and the random colours of everything."""

from __future__ import annotations

import colorsys
import math

import cv2
import numpy as np
from numba import njit

Colour = tuple[int, int, int]


def random_colour(rng: np.random.Generator, *, neutral_share: float = 0.3) -> Colour:
    """A paint or cloth colour (red, green, blue) of any hue; `neutral_share` of them white, grey or black."""
    hue, saturation, value = rng.random(), rng.uniform(0.35, 1.0), rng.uniform(0.3, 1.0)
    if rng.random() < neutral_share:
        saturation, value = rng.uniform(0.0, 0.12), rng.uniform(0.12, 1.0)
    return hsv_colour(hue, saturation, value)


def hsv_colour(hue: float, saturation: float, value: float) -> Colour:
    """(red, green, blue), each 0..255, of hue, saturation and value in [0, 1]; hue wraps around."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))
    return round(red * 255), round(green * 255), round(blue * 255)


def value_noise(rng: np.random.Generator, size: tuple[int, int], cells: tuple[float, float]) -> np.ndarray:
    """Smooth random field.

    Args:
        rng: consumed.
        size: (h, w) in pixels.
        cells: (height, width) of a bump in pixels; 1 or less gives white noise along that axis.

    Returns:
        (h, w) float32 in [0, 1].
    """
    height, width = size
    rows = min(height, math.ceil(height / max(cells[0], 1.0)) + 1)
    columns = min(width, math.ceil(width / max(cells[1], 1.0)) + 1)
    lattice = rng.random((rows, columns), dtype=np.float32)
    if (rows, columns) == (height, width):
        return lattice
    return cv2.resize(lattice, (width, height), interpolation=cv2.INTER_LINEAR)


def sky(rng: np.random.Generator, size: tuple[int, int], unit: float) -> np.ndarray:
    """(h, w, 3) uint8: a vertical gradient, from clear to overcast or sunset, with clouds; `unit` in pixels."""
    hue = rng.choice([0.58, 0.6, 0.55, 0.08, 0.8], p=[0.35, 0.2, 0.2, 0.15, 0.1]) + rng.normal(0, 0.02)
    greyness = rng.choice([1.0, 0.25], p=[0.65, 0.35])
    top = np.array(hsv_colour(hue, rng.uniform(0.25, 0.65) * greyness, rng.uniform(0.45, 0.95)), np.float32)
    bottom = np.array(hsv_colour(hue + 0.02, rng.uniform(0.05, 0.3) * greyness, rng.uniform(0.75, 1.0)), np.float32)
    share = np.linspace(0, 1, size[0], dtype=np.float32)[:, None]
    base = top * (1 - share) + bottom * share  # (h, 3)
    clouds = 0.6 * value_noise(rng, size, (0.09 * unit, 0.25 * unit)) + 0.4 * value_noise(
        rng, size, (0.04 * unit, 0.08 * unit)
    )
    cover = np.clip((clouds - np.float32(rng.uniform(0.4, 0.65))) * 4, 0, np.float32(rng.uniform(0.5, 0.95)))
    cloud_colour = np.full_like(base, rng.uniform(190, 250))
    return _mix(base, cloud_colour, cover, np.ones(size, np.float32))


def road(rng: np.random.Generator, size: tuple[int, int], unit: float) -> np.ndarray:
    """(h, w, 3) uint8: asphalt, concrete or dirt with grain, patches and cracks, without marks; `unit` in pixels."""
    height, width = size
    base = np.array(hsv_colour(rng.uniform(0, 1), rng.uniform(0.0, 0.16), rng.uniform(0.28, 0.66)), np.float32)
    patches = (value_noise(rng, size, (0.06 * unit, 0.3 * unit)) - np.float32(0.5)) * np.float32(rng.uniform(0.1, 0.3))
    grain = (rng.random(size, dtype=np.float32) - np.float32(0.5)) * np.float32(rng.uniform(0.15, 0.35))
    surface = _mix(*_uniform(base, base, height), np.zeros(size, np.float32), 1 + grain + patches)
    for _ in range(int(rng.integers(0, 4))):
        path = np.cumsum(rng.normal(0, 0.06 * unit, (6, 2)), axis=0) + rng.random(2) * (width, height)
        crack = (float(base[0]) * 0.6, float(base[1]) * 0.6, float(base[2]) * 0.6)
        cv2.polylines(surface, [np.round(path * 16).astype(np.int32)], False, crack, 1, cv2.LINE_AA, 4)
    return surface


def wall(rng: np.random.Generator, size: tuple[int, int], unit: float) -> np.ndarray:
    """(h, w, 3) uint8: bricks in running bond, each of its own tint, with mortar; `unit` in pixels."""
    height, width = size
    brick_height = max(3.0, unit * rng.uniform(0.03, 0.06))
    brick_width = brick_height * rng.uniform(1.8, 3.2)
    hue = rng.choice([0.03, 0.08, 0.12, rng.random()])
    base = np.array(hsv_colour(hue, rng.uniform(0.05, 0.6), rng.uniform(0.4, 0.85)), np.float32)
    mortar = np.array(hsv_colour(hue, 0.08, rng.choice([0.3, 0.8]) + rng.uniform(-0.1, 0.1)), np.float32)
    thickness = max(1.0, 0.14 * brick_height)
    y = np.arange(height, dtype=np.float32) + np.float32(rng.uniform(0, brick_height))
    row = (y / brick_height).astype(np.int64)
    shift = np.where(row % 2 == 0, 0.0, brick_width / 2) + rng.uniform(0, brick_width)
    x = np.arange(width, dtype=np.float32)[None] + shift[:, None].astype(np.float32)  # (h, w)
    column = (x / brick_width).astype(np.int64)
    tints = 1 + (rng.random((int(row.max()) + 1, int(column.max()) + 1), dtype=np.float32) - 0.5) * 0.4
    grain = 1 + (rng.random(size, dtype=np.float32) - np.float32(0.5)) * np.float32(0.16)
    is_mortar = ((y % brick_height) < thickness)[:, None] | ((x % brick_width) < thickness)
    gain = grain * np.where(is_mortar, np.float32(1), tints[row[:, None], column])
    return _mix(*_uniform(base, mortar, height), is_mortar.astype(np.float32), gain)


def grass(rng: np.random.Generator, size: tuple[int, int], unit: float) -> np.ndarray:
    """(h, w, 3) uint8: upright blades over patches of two tones, green to dry; `unit` in pixels."""
    hue = rng.choice([rng.uniform(0.2, 0.36), rng.uniform(0.1, 0.2)], p=[0.75, 0.25])
    base = np.array(hsv_colour(hue, rng.uniform(0.3, 0.75), rng.uniform(0.35, 0.7)), np.float32)
    other = np.array(hsv_colour(hue - 0.05, rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.75)), np.float32)
    blades = value_noise(rng, size, (max(3.0, 0.035 * unit), max(1.0, 0.008 * unit))) - np.float32(0.5)
    patches = value_noise(rng, size, (0.08 * unit, 0.2 * unit))
    return _mix(*_uniform(base, other, size[0]), patches, 1 + blades * np.float32(rng.uniform(0.5, 0.9)))


def _uniform(first: np.ndarray, second: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Two colours (3,), the same in each of `height` rows: twice (h, 3)."""
    return np.repeat(first[None], height, axis=0), np.repeat(second[None], height, axis=0)


@njit(cache=True, nogil=True)
def _mix(first: np.ndarray, second: np.ndarray, share: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8: from `first` to `second`, (h, 3) per row, by `share`, times `gain`, both (h, w)."""
    height, width = share.shape
    mixed = np.empty((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            for channel in range(3):
                value = first[y, channel] + (second[y, channel] - first[y, channel]) * share[y, x]
                mixed[y, x, channel] = np.uint8(min(max(value * gain[y, x], np.float32(0)), np.float32(255)))
    return mixed
