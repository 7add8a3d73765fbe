"""Pairs of a class map and an instance map, whose numbers tell things of one class apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from panoptic.conversion.contract import AnnotatedImage
from panoptic.conversion.id_maps import map_of_values
from panoptic.conversion.map_triples import MapTriples
from panoptic.structures import Segment

UNNUMBERED = "pixels of things without a number became a crowd"


class MapPairs:
    """Folders of such maps, PNGs of 8 or 16 bits, by index; image ids are the names of the files.

    A thing is what has one class and one number, so numbers may start anew with each class. Numbers of stuff do not
    matter. Segment ids are counted from 1.

    Args:
        class_maps: folder of the class maps, searched with the folders below it.
        instance_maps: folder of the instance maps, of the same names.
        images: folder of the photographs, likewise.
        categories: JSON of categories, one of which every value of the class maps but `void` is.
        class_suffix: end of the class maps' names.
        instance_suffix: end of the instance maps' names.
        images_suffix: end of the photographs' names; None is that of any image.
        void: value of class maps without a label.
        id_of_zero: category id of the value 0, as 1 where values count from 0 and ids from 1.
        no_number: value of instance maps that numbers nothing; None is none.

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
        class_suffix: str = ".png",
        instance_suffix: str = ".png",
        images_suffix: str | None = None,
        *,
        void: int | None = 255,
        id_of_zero: int = 0,
        no_number: int | None = 0,
    ) -> None:
        suffixes = (class_suffix, instance_suffix, images_suffix)
        self._files = MapTriples(class_maps, instance_maps, images, suffixes, categories, void, id_of_zero)
        self.image_folder, self.categories = self._files.image_folder, self._files.categories
        self._no_number = no_number

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> AnnotatedImage:
        places, pairs = self._files.read(index)
        segments = self._segments(pairs)

        def segment_of(place: int, area: int) -> Segment | None:
            segment = segments[place]
            return None if segment is None else Segment(segment.id, segment.category_id, segment.is_crowd, area=area)

        panoptic_map = map_of_values(places, segment_of)
        notes = (UNNUMBERED,) if any(segment.is_crowd for segment in panoptic_map.segments) else ()
        return AnnotatedImage(*self._files.names_of(index), panoptic_map, notes=notes)

    def _segments(self, pairs: Sequence[tuple[int, int]]) -> list[Segment | None]:
        """The segment of each pair of a class and a number; None for void."""
        ids: dict[tuple[int, int | None], int] = {}
        segments: list[Segment | None] = []
        for value, number in pairs:
            category = self._files.category_of.get(value)
            if category is None:
                segments.append(None)
                continue
            is_numbered = category.is_thing and number != self._no_number
            segment_id = ids.setdefault((value, number if is_numbered else None), len(ids) + 1)
            segments.append(Segment(segment_id, category.id, is_crowd=category.is_thing and not is_numbered))
        return segments
