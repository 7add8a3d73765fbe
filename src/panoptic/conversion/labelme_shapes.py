"""The shapes of labelme: outlines and masks to pixels."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from panoptic.conversion.objects import CLIPPED, DEGENERATE, EMPTY, area_of, encode, encode_polygons, is_outside
from panoptic.data.masks import MAX_COORDINATE

WITHOUT_AREA = ("line", "linestrip", "point", "points")
"""Kinds of shapes that are left out."""

LEFT_OUT = "lines and points were left out"

_NUM_POINTS = {"rectangle": (2, 4), "circle": (2,), "mask": (2,)}
"""How many points there are: opposite corners, or all four; centre and a point of the border; opposite corners."""


def draw_shape(
    entry: Mapping[str, Any], size: tuple[int, int], where: str
) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """Draw one entry of `shapes`.

    Args:
        entry: with `points`, (P, 2) x and y in pixels, `shape_type`, and for a mask its PNG in base64.
        size: (H, W) of the image in pixels.
        where: the entry's place, for errors.

    Returns:
        runs: COCO's compressed run lengths; None where there is no pixel.
        notes: what was done about oddities.

    Raises:
        ValueError: an unknown kind, points that are none, or a mask that cannot be read.
    """
    kind = entry.get("shape_type") or "polygon"
    if kind in WITHOUT_AREA:
        return None, (LEFT_OUT,)
    if kind not in ("polygon", *_NUM_POINTS):
        known = ", ".join(("polygon", *_NUM_POINTS, *WITHOUT_AREA))
        raise ValueError(f"unknown shape_type {kind!r}, expected one of {known}, in {where}")
    points = _points(entry["points"], where)
    if kind == "polygon" and len(points) < 3:
        return None, (DEGENERATE,)
    if kind in _NUM_POINTS and len(points) not in _NUM_POINTS[kind]:
        raise ValueError(f"expected {' or '.join(map(str, _NUM_POINTS[kind]))} points, got {len(points)} in {where}")
    if kind == "mask":
        runs = encode(_placed_mask(entry.get("mask"), points, size, where))
    elif kind == "circle":
        runs = encode(_disc(points, size))
        points = points[0] + np.hypot(*(points[1] - points[0])) * np.array([[-1.0], [1.0]])  # corners of its box
    else:
        corners = (
            points
            if len(points) > 2
            else np.array([points[0], (points[1, 0], points[0, 1]), points[1], (points[0, 0], points[1, 1])])
        )
        runs = encode_polygons([corners.reshape(-1).tolist()], size)
    notes = (CLIPPED,) if is_outside(points, size) else ()
    return (runs, notes) if area_of(runs) else (None, (*notes, EMPTY))


def _points(points: Any, where: str) -> NDArray[np.float64]:
    """(P, 2) x and y in pixels."""
    try:
        array = np.array(points or np.zeros((0, 2)), dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"expected points as pairs of numbers, got {str(points)[:100]} in {where}") from None
    if array.ndim != 2 or array.shape[1] != 2 or not (np.abs(array) <= MAX_COORDINATE).all():
        raise ValueError(
            f"expected points as pairs of numbers, got {str(points)[:100]} in {where}; "
            f"coordinates go up to {MAX_COORDINATE}"
        )
    return array


def _disc(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) of the pixels whose centres lie in a circle, given by its centre and a point of its border."""
    (centre_x, centre_y), (border_x, border_y) = points
    rows, columns = np.ogrid[: size[0], : size[1]]
    squared = (columns + 0.5 - centre_x) ** 2 + (rows + 0.5 - centre_y) ** 2
    inside: NDArray[np.bool_] = squared <= (border_x - centre_x) ** 2 + (border_y - centre_y) ** 2
    return inside


def _placed_mask(encoded: Any, points: NDArray[np.float64], size: tuple[int, int], where: str) -> NDArray[np.bool_]:
    """(H, W) with a mask at its place; its PNG covers the pixels from the first point to the second, both included."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))) as image:
            mask = np.array(image).astype(bool)
    except (TypeError, binascii.Error, OSError, SyntaxError) as error:
        raise ValueError(f"expected a PNG in base64 as `mask` of {where}, got: {error}") from None
    (left, top), (right, bottom) = np.floor(points).astype(int).tolist()
    if mask.shape != (bottom - top + 1, right - left + 1):
        raise ValueError(
            f"expected a mask of size {(bottom - top + 1, right - left + 1)} (height, width) as its points say, "
            f"got {mask.shape} in {where}"
        )
    whole = np.zeros(size, dtype=bool)
    rows = slice(max(top, 0), max(min(bottom + 1, size[0]), 0))
    columns = slice(max(left, 0), max(min(right + 1, size[1]), 0))
    whole[rows, columns] = mask[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return whole
