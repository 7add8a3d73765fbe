"""SPADE's layout of COCO-Stuff: an instance map that is the class map with a running count over the things."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from panoptic.conversion.contract import AnnotatedImage
from panoptic.conversion.id_maps import map_of_values
from panoptic.conversion.map_triples import MapTriples
from panoptic.structures import Category, Segment

OUTLINES = "pixels of things outside the outlines of all objects became void"

_FIRST_STUFF = 2**16
"""Segment ids of stuff are this plus the class, beyond every instance number."""


class Spade:
    """Folders of such maps, by index; image ids are the names of the files.

    The instance map wins, as it was drawn from the outlines of objects: an object is what has one number, its class the
    thing that most of its pixels have, and its pixels of stuff and void belong to it. Its pixels of other things, and
    things outside all objects, are void. Segment ids are numbers + 1; of stuff 65536 + the class.

    Args:
        class_maps: folder of the class maps, such as `val_label`, searched with the folders below it.
        instance_maps: folder of the instance maps, such as `val_inst`, of the same names.
        images: folder of the photographs, such as `val_img`.
        categories: JSON of categories.
        void: value of both maps without a label.
        id_of_zero: category id of the value 0; COCO-Stuff counts ids from 1.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: no map, files without partner, or unusable categories.
    """

    def __init__(
        self,
        class_maps: Path | str,
        instance_maps: Path | str,
        images: Path | str,
        categories: Path | str,
        *,
        void: int = 255,
        id_of_zero: int = 1,
    ) -> None:
        suffixes = (".png", ".png", None)
        self._files = MapTriples(class_maps, instance_maps, images, suffixes, categories, void, id_of_zero)
        self.image_folder, self.categories = self._files.image_folder, self._files.categories
        self._category_of = self._files.category_of

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> AnnotatedImage:
        places, pairs = self._files.read(index)
        areas = np.bincount(places.reshape(-1), minlength=len(pairs))
        objects = self._objects(pairs, areas)
        segments = [self._segment(value, number, objects) for value, number in pairs]

        def segment_of(place: int, area: int) -> Segment | None:
            segment = segments[place]
            return None if segment is None else Segment(*segment, area=area)

        is_outline = any(s is None and value != self._files.void for s, (value, _) in zip(segments, pairs, strict=True))
        return AnnotatedImage(
            *self._files.names_of(index),
            map_of_values(places, segment_of),
            notes=(OUTLINES,) if is_outline else (),
        )

    def _objects(self, pairs: list[tuple[int, int]], areas: NDArray[np.int64]) -> dict[int, Category]:
        """{number: the thing that most of its pixels are}; numbers run from 0 to the largest that is not its class."""
        last = max((number for value, number in pairs if value != number), default=-1)
        votes: dict[int, Counter[int]] = {}
        for (value, number), area in zip(pairs, areas.tolist(), strict=True):
            if number <= last and value in self._category_of and self._category_of[value].is_thing:
                votes.setdefault(number, Counter())[value] += area
        return {number: self._category_of[counts.most_common(1)[0][0]] for number, counts in votes.items()}

    def _segment(self, value: int, number: int, objects: dict[int, Category]) -> tuple[int, int] | None:
        """(segment id, category id) of the pixels of a class and a number; None for void."""
        category, thing = self._category_of.get(value), objects.get(number)
        if thing is not None and (category is None or category == thing or not category.is_thing):
            return number + 1, thing.id
        if category is None or category.is_thing:
            return None
        return _FIRST_STUFF + value, category.id
