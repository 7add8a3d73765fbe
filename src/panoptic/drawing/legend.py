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
def font(height: int = _TEXT_HEIGHT) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
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


def draw_legend(entries: Sequence[LegendEntry], width: int) -> NDArray[np.uint8]:
    """(h, width, 3) uint8: swatches and texts in rows; `width` in pixels, a text wider than that is cut off."""
    places, x, y = [], _GAP // 2, 0
    for entry in entries:
        needed = _SWATCH + 6 + int(font().getlength(entry.text)) + _GAP
        if x > _GAP // 2 and x + needed > width:
            x, y = _GAP // 2, y + _ROW
        places.append((x, y))
        x += needed
    strip = Image.new("RGB", (width, y + _ROW), PAPER)
    pen = ImageDraw.Draw(strip)
    top = (_ROW - _SWATCH) // 2
    for entry, (left, row) in zip(entries, places, strict=True):
        swatch = (left, row + top, left + _SWATCH - 1, row + top + _SWATCH - 1)
        if entry.colour is None:
            strip.paste(Image.fromarray(hatch(_SWATCH, _SWATCH)), swatch[:2])
        pen.rectangle(swatch, entry.colour, INK)
        pen.text((left + _SWATCH + 6, row + _ROW // 2), entry.text, INK, font(), anchor="lm")
    return np.array(strip)


def draw_title(text: str, width: int) -> NDArray[np.uint8]:
    """(h, width, 3) uint8: a line of text in the middle; `width` in pixels."""
    strip = Image.new("RGB", (width, _ROW), PAPER)
    ImageDraw.Draw(strip).text((width // 2, _ROW // 2), text, INK, font(), anchor="mm")
    return np.array(strip)


def hatch(height: int, width: int) -> NDArray[np.uint8]:
    """(height, width, 3) uint8: diagonal stripes in the greys of void."""
    tile = np.array(HATCH, np.uint8)[(np.add.outer(np.arange(8), np.arange(8)) // 4) % 2]  # (8, 8, 3)
    return np.tile(tile, (-(-height // 8), -(-width // 8), 1))[:height, :width]
