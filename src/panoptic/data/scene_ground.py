"""The ground plan of a scene: where sky, wall, grass and road are, painted with their textures."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from panoptic.data import scene_textures
from panoptic.data.scene_difficulty import Difficulty
from panoptic.data.scene_layout import unit_of

SKY, ROAD, WALL, GRASS = 1, 2, 3, 4
"""Labels of the stuff in a label map; 0 is void."""

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Ground:
    """The scene before any thing stands in it.

    Args:
        image: (H, W, 3) uint8.
        labels: (H, W) int32, `SKY`, `ROAD`, `WALL`, `GRASS` or 0.
        horizon: row in pixels.
    """

    image: np.ndarray
    labels: np.ndarray
    horizon: float


def draw_ground(rng: np.random.Generator, size: tuple[int, int], difficulty: Difficulty) -> Ground:
    """Stuff of one scene of (H, W) pixels."""
    unit = unit_of(size)
    horizon = float(rng.uniform(0.3, 0.48)) * size[0]
    labels = np.full(size, GRASS, np.uint8)
    labels[: int(horizon)] = SKY
    road, middle = _draw_road_outline(rng, size, horizon)
    cv2.fillPoly(labels, [_pixels(road)], ROAD)
    if rng.random() < 0.65:
        cv2.fillPoly(labels, [_pixels(_draw_wall_outline(rng, size, horizon))], WALL)
    image = np.zeros((*size, 3), np.uint8)
    for label, texture in ((SKY, "sky"), (ROAD, "road"), (WALL, "wall"), (GRASS, "grass")):
        where = (labels == label).view(np.uint8)
        left, top, columns, rows = cv2.boundingRect(where)
        if rows == 0:
            continue
        window = slice(top, top + rows), slice(left, left + columns)
        surface = _TEXTURES[texture](rng, (rows, columns), unit)
        cv2.copyTo(surface, where[window], image[window])
    _paint_lane_marks(rng, image, labels, middle, unit)
    if rng.random() < difficulty.windows:
        _paint_windows_and_litter(rng, image, labels, unit)
    if rng.random() < difficulty.kerb:
        _paint_kerb(rng, image, labels, road, unit)
    return Ground(image, labels.astype(np.int32), horizon)


_TEXTURES = {
    "sky": scene_textures.sky,
    "road": scene_textures.road,
    "wall": scene_textures.wall,
    "grass": scene_textures.grass,
}


def _pixels(points: Points | np.ndarray) -> np.ndarray:
    """(N, 2) int32 corners as OpenCV wants them."""
    return np.round(np.asarray(points)).astype(np.int32)


def _draw_road_outline(
    rng: np.random.Generator, size: tuple[int, int], horizon: float
) -> tuple[Points, tuple[np.ndarray, np.ndarray, float, float]]:
    """The road's corners in pixels, and its middle line as (start, end, width at the start, width at the end)."""
    height, width = size
    if rng.random() < 0.5:  # runs away from us, to a point on the horizon
        bottom, top = rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * width
        near, far = rng.uniform(0.5, 1.1) * width, rng.uniform(0.06, 0.16) * width
        outline = [
            (top - far / 2, horizon),
            (top + far / 2, horizon),
            (bottom + near / 2, height),
            (bottom - near / 2, height),
        ]
        return outline, (np.array([bottom, height]), np.array([top, horizon]), float(near), float(far))
    depth = height - horizon  # runs across
    upper = horizon + rng.uniform(0.08, 0.3) * depth
    lower = min(height, upper + rng.uniform(0.4, 0.75) * depth)
    tilt = rng.uniform(-0.06, 0.06) * height
    outline = [(0, upper - tilt), (width, upper + tilt), (width, lower + tilt), (0, lower - tilt)]
    across, row = float(lower - upper) * 0.6, (upper + lower) / 2
    return outline, (np.array([0, row - tilt]), np.array([width, row + tilt]), across, across)


def _draw_wall_outline(rng: np.random.Generator, size: tuple[int, int], horizon: float) -> Points:
    """A wall behind the ground, or one along the left or right side that comes nearer."""
    height, width = size
    tall = rng.uniform(0.14, 0.32) * height
    foot = horizon + rng.uniform(0.01, 0.06) * height
    if rng.random() < 0.75:
        start, end = sorted(rng.uniform(-0.2, 1.2, 2) * width)
        end = max(end, start + 0.35 * width)
        return [(start, foot - tall), (end, foot - tall), (end, foot), (start, foot)]
    reach = rng.uniform(0.15, 0.35) * width
    near_top, near_foot = foot - 1.6 * tall, foot + 0.35 * (height - foot)
    if rng.random() < 0.5:
        return [(0, near_top), (reach, foot - tall), (reach, foot), (0, near_foot)]
    return [(width - reach, foot - tall), (width, near_top), (width, near_foot), (width - reach, foot)]


def _paint_lane_marks(
    rng: np.random.Generator,
    image: np.ndarray,
    labels: np.ndarray,
    middle: tuple[np.ndarray, np.ndarray, float, float],
    unit: float,
) -> None:
    """Dashes along the middle of the road, in place; they are road."""
    if rng.random() < 0.2:
        return
    start, end, near, far = middle
    colour = np.array((235, 232, 220) if rng.random() < 0.7 else (225, 190, 60), np.float32)
    marks = np.zeros(labels.shape, np.uint8)
    edges = np.linspace(0, 1, 2 * int(rng.integers(4, 8)))
    ratio = far / near
    places = edges * ratio / (1 - edges + edges * ratio) if ratio < 1 else edges
    direction = (end - start) / np.linalg.norm(end - start)
    across = np.array([-direction[1], direction[0]]) if ratio == 1 else np.array([1.0, 0.0])
    for first, second in zip(1 - places[::2], 1 - places[1::2], strict=True):
        corners = []
        for place, sign in ((first, -1), (first, 1), (second, 1), (second, -1)):
            half = max(0.02 * (near + (far - near) * place), 0.006 * unit)
            corners.append(start + (end - start) * place + sign * half * across)
        cv2.fillPoly(marks, [np.round(np.array(corners) * 16).astype(np.int32)], 200, cv2.LINE_AA, 4)
    where = (marks > 0) & (labels == ROAD)
    share = marks[where][:, None] / np.float32(255)
    image[where] = image[where] + (colour - image[where]) * share


def _paint_windows_and_litter(rng: np.random.Generator, image: np.ndarray, labels: np.ndarray, unit: float) -> None:
    """Clutter in place: dark panes in the wall, leaves and patches on the ground; labels stay."""
    clutter = image.copy()
    left, top, columns, rows = cv2.boundingRect((labels == WALL).view(np.uint8))
    pane, pitch = rng.uniform(0.05, 0.09) * unit, rng.uniform(0.14, 0.22) * unit
    glass = scene_textures.hsv_colour(0.58, 0.3, rng.uniform(0.2, 0.7))
    for y in np.arange(top + 0.3 * pitch, top + rows - pane, 1.2 * pitch):
        for x in np.arange(left + 0.4 * pitch, left + columns - pane, pitch):
            cv2.rectangle(clutter, (int(x), int(y)), (int(x + pane), int(y + 1.3 * pane)), glass, -1)
    cv2.copyTo(clutter, (labels == WALL).view(np.uint8), image)
    for _ in range(int(rng.integers(10, 40))):
        y, x = int(rng.integers(labels.shape[0])), int(rng.integers(labels.shape[1]))
        if labels[y, x] in (ROAD, GRASS):
            radius = rng.uniform(0.004, 0.015) * unit
            axes = (max(1, round(2 * radius)), max(1, round(radius)))
            cv2.ellipse(image, (x, y), axes, rng.uniform(0, 180), 0, 360, scene_textures.random_colour(rng), -1)


def _paint_kerb(rng: np.random.Generator, image: np.ndarray, labels: np.ndarray, road: Points, unit: float) -> None:
    """A thin stone edge along the road, in place; it is unlabelled."""
    strip = np.zeros(labels.shape, np.uint8)
    thickness = max(1, round(unit * rng.uniform(0.01, 0.022)))
    cv2.polylines(strip, [_pixels(road)], True, 1, thickness)
    where = (strip > 0) & ((labels == ROAD) | (labels == GRASS))
    grey = rng.uniform(110, 210) * (1 + 0.2 * (rng.random((int(where.sum()), 1)) - 0.5))
    image[where] = np.clip(grey, 0, 255)
    labels[where] = 0
