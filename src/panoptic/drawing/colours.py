"""Which colour a category and each of its segments gets in pictures."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

from panoptic.structures import Category, PanopticMap

Colour = tuple[int, int, int]
"""(red, green, blue), each 0..255."""

_GOLDEN = 0.6180339887498949
"""Steps of this fraction of a range never come close to an earlier one for long."""

_LEAST_CHROMA = 25
"""Palette colours are at least this far from grey (CIELAB): grey is for void and for the image."""


def category_colours(categories: Sequence[Category]) -> list[Colour]:
    """One colour per category: its own, or that of its id in one well-spread palette."""
    palette = _palette(len(categories))
    return [category.colour or palette[category.id] for category in categories]


def segment_colours(panoptic_map: PanopticMap, categories: Sequence[Category]) -> dict[int, Colour]:
    """{segment id: colour}: stuff in its category's colour, instances of things in distinct shades of theirs.

    The first instance in the table gets the category's colour itself.

    Raises:
        ValueError: a segment's category is not among `categories`.
    """
    colours = category_colours(categories)
    drawn = dict.fromkeys(range(len(categories)), 0)
    shades: dict[int, Colour] = {}
    for segment in panoptic_map.segments:
        if not 0 <= segment.category_id < len(categories):
            raise ValueError(
                f"segment {segment.id} has category id {segment.category_id}, "
                f"but there are categories 0..{len(categories) - 1}; pass the categories of this map"
            )
        shades[segment.id] = _shade(colours[segment.category_id], drawn[segment.category_id])
        drawn[segment.category_id] += int(categories[segment.category_id].is_thing)
    return shades


@cache
def _palette(count: int) -> list[Colour]:
    """`count` colours, each as far as can be from all before it; a longer palette begins with the shorter one."""
    lightness, a, b = np.meshgrid(np.arange(32, 80, 6), np.arange(-80, 81, 8), np.arange(-80, 81, 8), indexing="ij")
    lab = np.stack([lightness, a, b], -1).reshape(-1, 1, 3).astype(np.float32)
    rgb = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    exists = np.abs(cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB) - lab).max(axis=(1, 2)) < 1  # clipped where it does not
    vivid = np.hypot(lab[:, 0, 1], lab[:, 0, 2]) > _LEAST_CHROMA
    lab, rgb = lab[exists & vivid, 0], rgb[exists & vivid, 0]
    chosen = [int(np.argmax(lab[:, 1] - lab[:, 2]))]
    distance = np.full(len(lab), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, ((lab - lab[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(distance.argmax()))
    levels = [[round(float(level) * 255) for level in rgb[number]] for number in chosen]
    return [(red, green, blue) for red, green, blue in levels]


def _shade(colour: Colour, number: int) -> Colour:
    """Shade `number` of a colour, 0 the colour itself: of another lightness, saturation and slightly another hue."""
    if number == 0:
        return colour
    hue, lightness, saturation = colorsys.rgb_to_hls(*(channel / 255 for channel in colour))
    darkest, lightest = max(0.12, min(lightness - 0.25, 0.4)), min(0.92, max(lightness + 0.25, 0.6))
    spread, turn = (number * _GOLDEN) % 1.0, (number * _GOLDEN * _GOLDEN) % 1.0
    return _from_hls(
        (hue + 0.05 * (turn - 0.5)) % 1.0, darkest + (lightest - darkest) * spread, saturation * (0.85 + 0.15 * turn)
    )


def _from_hls(hue: float, lightness: float, saturation: float) -> Colour:
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return round(red * 255), round(green * 255), round(blue * 255)
