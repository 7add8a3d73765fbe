"""Pairs of a class map and an instance map, whose numbers tell things of one class apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from panoptic.conversion.category_files import read_categories
from panoptic.conversion.contract import AnnotatedImage
from panoptic.conversion.files import check_pairs, check_photograph, existing_folder, index_files
from panoptic.conversion.id_maps import MapsWithPhotographs, map_of_values, pair_up, raise_unknown, read_ids
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
        self._files = MapTriples(class_maps, instance_maps, images, (class_suffix, instance_suffix, images_suffix))
        self.image_folder = self._files.image_folder
        self.categories = read_categories(categories, "from.categories")
        self._category_of = {(c.dataset_category_id or 0) - id_of_zero: c for c in self.categories}
        self._void, self._no_number = void, no_number

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> AnnotatedImage:
        paths = self._files.maps_of(index)
        classes, numbers = (read_ids(path) for path in paths)
        places, pairs = pair_up(classes, numbers, paths)
        check_photograph(self._files.photograph_of(index), (classes.shape[0], classes.shape[1]))
        known = {self._void, *self._category_of}
        raise_unknown(
            paths[0],
            {value for value, _ in pairs if value not in known},
            f"classes {sorted(self._category_of)}, and {self._void} for void",
        )
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
            if value == self._void:
                segments.append(None)
                continue
            category = self._category_of[value]
            is_numbered = category.is_thing and number != self._no_number
            segment_id = ids.setdefault((value, number if is_numbered else None), len(ids) + 1)
            segments.append(Segment(segment_id, category.id, is_crowd=category.is_thing and not is_numbered))
        return segments


class MapTriples:
    """Class maps, instance maps and photographs of the same names.

    Args:
        class_maps: folder, searched with the folders below it.
        instance_maps: likewise.
        images: likewise.
        suffixes: ends of the names of class maps, instance maps and photographs; None is that of any image.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: no map, or files without partner.
    """

    def __init__(
        self,
        class_maps: Path | str,
        instance_maps: Path | str,
        images: Path | str,
        suffixes: tuple[str, str, str | None],
    ) -> None:
        self._classes = MapsWithPhotographs(class_maps, images, suffixes[0], suffixes[2])
        self.image_folder = self._classes.image_folder
        folder = existing_folder(instance_maps, "from.instance_maps")
        self._instances = index_files(folder, [suffixes[1]])
        what = f"class map *{suffixes[0]} in {class_maps}"
        check_pairs(self._classes.maps, self._instances, what, f"instance map *{suffixes[1]} in {folder}")

    def __len__(self) -> int:
        return len(self._classes)

    def maps_of(self, index: int) -> tuple[Path, Path]:
        """The class map and the instance map."""
        key = self._classes.keys[index]
        return self._classes.maps[key], self._instances[key]

    def photograph_of(self, index: int) -> Path:
        """The photograph."""
        return self._classes.photographs[self._classes.keys[index]]

    def names_of(self, index: int) -> tuple[str, str]:
        """Image id, and the photograph's path within the image folder."""
        key = self._classes.keys[index]
        return key, self._classes.image_name(key)
