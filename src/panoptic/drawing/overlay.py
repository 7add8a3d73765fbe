"""A panoptic map over its image: segments in their categories' colours, borders, void, a legend."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from panoptic.drawing.colours import segment_colours
from panoptic.drawing.legend import draw_legend, hatch, legend_entries
from panoptic.structures import VOID, Category, PanopticMap

_LIGHT, _DARK = 245, 25
"""Grey levels of the two sides of a border."""

_SHORTEST_LONG_SIDE = 560
"""Images are magnified by the whole number that brings their longer side nearest to this many pixels."""

_SCREEN = 1200
"""Pixels of the longer side beside which texts have their usual size."""


def overlay(
    image: Tensor,
    panoptic_map: PanopticMap,
    categories: Sequence[Category],
    *,
    opacity: float = 0.5,
    legend: bool = True,
) -> NDArray[np.uint8]:
    """Draw a map over its image; small images are magnified by a whole factor, so that the legend can be read.

    Args:
        image: (3, H, W) uint8, RGB.
        panoptic_map: of the same size.
        categories: of the map.
        opacity: of the segments' colours, 0 (the image) to 1 (colours alone).
        legend: append the strip with names, colours and numbers of instances below.

    Returns:
        (H', W', 3) uint8, RGB; W' is a multiple of W.
    """
    factor = magnification(image)
    drawn = blend(image, panoptic_map, categories, opacity=opacity, factor=factor)
    if not legend:
        return drawn
    entries = legend_entries([panoptic_map], categories)
    return np.concatenate([drawn, draw_legend(entries, drawn.shape[1], text_scale(image))])


def magnification(image: Tensor) -> int:
    """By which whole number an image (3, H, W) is enlarged in pictures."""
    if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
        raise ValueError(f"expected an image of shape (3, H, W) uint8, got {tuple(image.shape)} {image.dtype}")
    return max(1, round(_SHORTEST_LONG_SIDE / max(image.shape[1:])))


def text_scale(image: Tensor) -> int:
    """How many times larger than usual the texts are beside an image (3, H, W) that is larger than screens."""
    return max(1, round(max(image.shape[1:]) / _SCREEN))


def enlarge(image: Tensor, factor: int) -> NDArray[np.uint8]:
    """(3, H, W) uint8 to (factor H, factor W, 3) uint8, smooth."""
    pixels = np.ascontiguousarray(image.cpu().numpy().transpose(1, 2, 0))
    if factor == 1:
        return pixels
    return cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def blend(
    image: Tensor, panoptic_map: PanopticMap, categories: Sequence[Category], *, opacity: float, factor: int
) -> NDArray[np.uint8]:
    """The magnified image under the map's colours and borders, without a legend.

    Args:
        image: (3, H, W) uint8, RGB.
        panoptic_map: of the same size.
        categories: of the map.
        opacity: of the colours, in [0, 1].
        factor: magnification.

    Returns:
        (factor H, factor W, 3) uint8, RGB.
    """
    if panoptic_map.size != tuple(image.shape[1:]):
        raise ValueError(f"expected a map of the image's size {tuple(image.shape[1:])}, got {panoptic_map.size}")
    if not 0 <= opacity <= 1:
        raise ValueError(f"expected an opacity in 0..1, got {opacity}")
    shades = segment_colours(panoptic_map, categories)
    ids = np.array(sorted({VOID, *shades}))
    colours = np.array([shades.get(int(i), (0, 0, 0)) for i in ids], np.uint8)
    rows = np.searchsorted(ids, panoptic_map.segment_ids.cpu().numpy()).astype(np.int32)
    rows = np.repeat(np.repeat(rows, factor, axis=0), factor, axis=1)  # 0 is void, the smallest id
    pixels = enlarge(image, factor)
    return _compose(pixels, rows, colours, hatch(*rows.shape), opacity)


@njit(cache=True, nogil=True)
def _compose(
    pixels: NDArray[np.uint8],
    rows: NDArray[np.int32],
    colours: NDArray[np.uint8],
    void: NDArray[np.uint8],
    opacity: float,
) -> NDArray[np.uint8]:
    """Blend over an image that fades to grey as far as it is covered; a border is a light pixel beside a dark one.

    Args:
        pixels: (H, W, 3) uint8.
        rows: (H, W) int32, row of each pixel in `colours`, 0 void.
        colours: (N, 3) uint8.
        void: (H, W, 3) uint8, what void looks like.
        opacity: in [0, 1].

    Returns:
        (H, W, 3) uint8.
    """
    height, width = rows.shape
    drawn = np.empty_like(pixels)
    for y in range(height):
        for x in range(width):
            row = rows[y, x]
            light = (x + 1 < width and rows[y, x + 1] != row) or (y + 1 < height and rows[y + 1, x] != row)
            dark = (x > 0 and rows[y, x - 1] != row) or (y > 0 and rows[y - 1, x] != row)
            grey = 0.299 * pixels[y, x, 0] + 0.587 * pixels[y, x, 1] + 0.114 * pixels[y, x, 2]
            for channel in range(3):
                if light:
                    drawn[y, x, channel] = _LIGHT
                elif dark:
                    drawn[y, x, channel] = _DARK
                else:
                    colour = void[y, x, channel] if row == 0 else colours[row, channel]
                    faded = grey + (pixels[y, x, channel] - grey) * (1 - opacity)
                    drawn[y, x, channel] = np.uint8(faded * (1 - opacity) + colour * opacity + 0.5)
    return drawn
