"""Drawing one thing of a scene in its own small crop, and pasting it into the picture, its label map and its mask."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numba import njit

from panoptic.data.scene_textures import Colour

SUBPIXEL_BITS = 4
MARGIN = 3
"""Pixels around a thing in its crop: room for smooth edges and for an unlabelled rim."""

Pair = tuple[float, float]

_ANGLES = np.linspace(0, 2 * np.pi, 20, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1)


class Sprite:
    """A thing being drawn: colours and coverage of the crop it touches.

    Points are in units of the thing's height: x to the right, y down, (0, 0) where it stands, -1 its top.

    Args:
        foot: (x, y) in pixels of the picture, where the thing stands.
        height: of the thing, in pixels.
        bounds: (left, top, right, bottom) of everything that will be drawn, in the thing's units.
        frame: (H, W) of the picture; what lies outside is not drawn.
        mirrored: x to the left instead.
    """

    def __init__(
        self,
        foot: Pair,
        height: float,
        bounds: tuple[float, float, float, float],
        frame: tuple[int, int],
        *,
        mirrored: bool = False,
    ) -> None:
        left, top, right, bottom = bounds
        if mirrored:
            left, right = -right, -left
        self.left = min(max(int(foot[0] + left * height) - MARGIN, 0), frame[1])
        self.top = min(max(int(foot[1] + top * height) - MARGIN, 0), frame[0])
        self.right = min(max(int(foot[0] + right * height) + MARGIN + 1, self.left), frame[1])
        self.bottom = min(max(int(foot[1] + bottom * height) + MARGIN + 1, self.top), frame[0])
        self.height = height
        steps = 1 << SUBPIXEL_BITS
        self._scale = ((-height if mirrored else height) * steps, height * steps)
        self._origin = ((foot[0] - self.left - 0.5) * steps, (foot[1] - self.top - 0.5) * steps)
        size = (self.bottom - self.top, self.right - self.left)
        self.paint = np.zeros((*size, 3), np.uint8)
        self.coverage = np.zeros(size, np.uint8)
        self._part = np.zeros(size, np.uint8)

    @property
    def is_empty(self) -> bool:
        """Nothing of it lies inside the frame."""
        return self.coverage.size == 0

    def polygon(self, points: Sequence[Pair] | np.ndarray, colour: Colour, *, inside: bool = False) -> None:
        """Fill a polygon with smooth edges; `inside` says that it lies on what is drawn already, as a window does."""
        if self.is_empty:
            return
        corners = _place_corners(np.asarray(points, np.float64), *self._scale, *self._origin)
        self._fill(corners, colour, inside)

    def _fill(self, corners: np.ndarray, colour: Colour, inside: bool) -> None:
        """Fill a polygon of (N, 2) int32 corners in fractions of a pixel."""
        if inside:
            cv2.fillPoly(self.paint, [corners], colour, cv2.LINE_AA, SUBPIXEL_BITS)
            return
        cv2.fillPoly(self._part, [corners], 255, cv2.LINE_AA, SUBPIXEL_BITS)
        _add_part(self.paint, self.coverage, self._part, colour)

    def ellipse(
        self, x: float, y: float, radius_x: float, radius_y: float, colour: Colour, *, inside: bool = False
    ) -> None:
        """Fill an ellipse around (x, y)."""
        if not self.is_empty:
            (across, down), (left, top) = self._scale, self._origin
            corners = _place_corners(_CIRCLE, radius_x * across, radius_y * down, x * across + left, y * down + top)
            self._fill(corners, colour, inside)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, *, inside: bool = False) -> None:
        """Fill an upright rectangle."""
        self.polygon(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), colour, inside=inside)

    def limb(self, start: Pair, end: Pair, widths: Pair, colour: Colour) -> None:
        """Fill a tapering bar from `start` to `end`, of the two widths."""
        x, y = end[0] - start[0], end[1] - start[1]
        across_x, across_y = -y / max(math.hypot(x, y), 1e-9) / 2, x / max(math.hypot(x, y), 1e-9) / 2
        self.polygon(
            (
                (start[0] + across_x * widths[0], start[1] + across_y * widths[0]),
                (start[0] - across_x * widths[0], start[1] - across_y * widths[0]),
                (end[0] - across_x * widths[1], end[1] - across_y * widths[1]),
                (end[0] + across_x * widths[1], end[1] + across_y * widths[1]),
            ),
            colour,
        )


@njit(cache=True, nogil=True)
def _place_corners(points: np.ndarray, scale_x: float, scale_y: float, x: float, y: float) -> np.ndarray:
    """(N, 2) int32: points (N, 2) scaled, then moved by (x, y)."""
    corners = np.empty(points.shape, np.int32)
    for number in range(len(points)):
        corners[number, 0] = round(points[number, 0] * scale_x + x)
        corners[number, 1] = round(points[number, 1] * scale_y + y)
    return corners


@njit(cache=True, nogil=True)
def _add_part(paint: np.ndarray, coverage: np.ndarray, part: np.ndarray, colour: Colour) -> None:
    """Lay a part of coverage `part` (h, w) uint8 and one colour over the sprite, and clear `part` for the next."""
    for y in range(part.shape[0]):
        for x in range(part.shape[1]):
            new = int(part[y, x])
            if new == 0:
                continue
            part[y, x] = 0
            union = 255 - (255 - new) * (255 - int(coverage[y, x])) // 255
            for channel in range(3):  # colours are not premultiplied: the old one counts as far as it still shows
                previous = paint[y, x, channel] * (union - new)
                paint[y, x, channel] = (previous + colour[channel] * new) // union
            coverage[y, x] = union


@njit(cache=True, nogil=True)
def paste(
    image: np.ndarray,
    labels: np.ndarray,
    mask: np.ndarray,
    paint: np.ndarray,
    coverage: np.ndarray,
    corner: tuple[int, int],
    shade: np.ndarray,
    opacity: float,
    label: int,
) -> None:
    """Lay a sprite over the picture, its labels and its mask, in place.

    Args:
        image: (H, W, 3) uint8.
        labels: (H, W) int32; pixels that are at least half covered become `label`, unless that is negative.
        mask: (H, W) bool; the same pixels become True.
        paint: (h, w, 3) uint8 colours of the sprite.
        coverage: (h, w) uint8, 255 where the sprite hides all behind it.
        corner: (top, left) of the sprite in the picture.
        shade: (h, w) float32, brightness by which colours are multiplied.
        opacity: in [0, 1], multiplies the coverage in the picture.
        label: see `labels`.
    """
    top, left = corner
    for y in range(coverage.shape[0]):
        for x in range(coverage.shape[1]):
            if coverage[y, x] == 0:
                continue
            share = opacity * coverage[y, x] / 255.0
            for channel in range(3):
                behind = image[top + y, left + x, channel]
                colour = min(paint[y, x, channel] * shade[y, x], 255.0)
                image[top + y, left + x, channel] = np.uint8(behind + (colour - behind) * share)
            if label >= 0 and coverage[y, x] >= 128:
                labels[top + y, left + x] = label
                mask[top + y, left + x] = True


@njit(cache=True, nogil=True)
def unlabel_rim(labels: np.ndarray, mask: np.ndarray, label: int, width: int) -> None:
    """Make pixels within `width` of the mask void, in place: an unlabelled rim around one thing.

    Args:
        labels: (H, W) int32, with the thing already pasted.
        mask: (H, W) bool of the thing.
        label: the thing's label; its own pixels stay.
        width: in pixels, chessboard distance.
    """
    height, length = mask.shape
    for y in range(height):
        for x in range(length):
            if not mask[y, x] or labels[y, x] != label:
                continue
            for other_y in range(max(0, y - width), min(height, y + width + 1)):
                for other_x in range(max(0, x - width), min(length, x + width + 1)):
                    if not mask[other_y, other_x]:
                        labels[other_y, other_x] = 0


@njit(cache=True, nogil=True)
def develop(image: np.ndarray, gains: np.ndarray, noise: np.ndarray, strength: float) -> None:
    """The camera, in place: colour cast and sensor noise.

    Args:
        image: (H, W, 3) uint8.
        gains: (3,) float32 per channel.
        noise: (H, W, 3) uint8, uniform.
        strength: half the width of the noise, in grey levels.
    """
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            for channel in range(3):
                value = image[y, x, channel] * gains[channel] + (noise[y, x, channel] / 127.5 - 1.0) * strength
                image[y, x, channel] = np.uint8(min(max(value, 0.0), 255.0))
