"""The strip below a picture that says which colour is what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from panoptic.drawing.colours import Colour, category_colours
from panoptic.structures import VOID, Category, PanopticMap

PAPER: Colour = (250, 250, 250)
INK: Colour = (30, 30, 30)
HATCH: tuple[Colour, Colour] = ((70, 70, 70), (150, 150, 150))
"""The two greys of void."""

_TEXT_HEIGHT = 15
_SWATCH = 16
_ROW = 26
_GAP = 18
_SPACE = 6
"""Between a swatch and its text."""


@dataclass(frozen=True)
class LegendEntry:
    """One line of a legend.

    Args:
        text: a category's name, with how many instances there are if it is a thing.
        colour: of its swatch; None for void, which is hatched.
    """

    text: str
    colour: Colour | None


@cache
def font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, `height` in pixels."""
    return ImageFont.load_default(height)


def legend_entries(maps: Sequence[PanopticMap], categories: Sequence[Category]) -> list[LegendEntry]:
    """What occurs in the maps, in the order of the categories; void, if there is any, comes last.

    A thing's entry counts its segments that are no crowd in each of the maps, as in `car 3` or, for two, `car 3 / 2`.
    """
    colours = category_colours(categories)
    present = {segment.category_id for panoptic_map in maps for segment in panoptic_map.segments}
    entries = []
    for category in categories:
        if category.id not in present:
            continue
        counts = [
            sum(segment.category_id == category.id and not segment.is_crowd for segment in panoptic_map.segments)
            for panoptic_map in maps
        ]
        text = f"{category.name} {' / '.join(map(str, counts))}" if category.is_thing else category.name
        entries.append(LegendEntry(text, colours[category.id]))
    if any(bool((panoptic_map.segment_ids == VOID).any()) for panoptic_map in maps):
        entries.append(LegendEntry("void", None))
    return entries


def draw_legend(entries: Sequence[LegendEntry], width: int, scale: int = 1) -> NDArray[np.uint8]:
    """(h, width, 3) uint8: swatches and texts in rows.

    Args:
        entries: in this order.
        width: in pixels; a text wider than that is cut off.
        scale: times the usual size of swatches and texts.
    """
    swatch, row, gap, space = (scale * size for size in (_SWATCH, _ROW, _GAP, _SPACE))
    letters = font(scale * _TEXT_HEIGHT)
    places, x, y = [], gap // 2, 0
    for entry in entries:
        needed = swatch + space + int(letters.getlength(entry.text)) + gap
        if x > gap // 2 and x + needed > width:
            x, y = gap // 2, y + row
        places.append((x, y))
        x += needed
    strip = Image.new("RGB", (width, y + row), PAPER)
    pen = ImageDraw.Draw(strip)
    for entry, (left, y) in zip(entries, places, strict=True):
        top = y + (row - swatch) // 2
        if entry.colour is None:
            strip.paste(Image.fromarray(hatch(swatch, swatch)), (left, top))
        pen.rectangle((left, top, left + swatch - 1, top + swatch - 1), entry.colour, INK)
        pen.text((left + swatch + space, y + row // 2), entry.text, INK, letters, anchor="lm")
    return np.array(strip)


def draw_title(text: str, width: int, scale: int = 1) -> NDArray[np.uint8]:
    """(h, width, 3) uint8: a line of text in the middle; `width` in pixels, `scale` times the usual size."""
    strip = Image.new("RGB", (width, scale * _ROW), PAPER)
    middle = (width // 2, scale * _ROW // 2)
    ImageDraw.Draw(strip).text(middle, text, INK, font(scale * _TEXT_HEIGHT), anchor="mm")
    return np.array(strip)


def hatch(height: int, width: int) -> NDArray[np.uint8]:
    """(height, width, 3) uint8: diagonal stripes in the greys of void."""
    tile = np.array(HATCH, np.uint8)[(np.add.outer(np.arange(8), np.arange(8)) // 4) % 2]  # (8, 8, 3)
    return np.tile(tile, (-(-height // 8), -(-width // 8), 1))[:height, :width]
