"""Mapillary Vistas' `instances/*.png`, label * 256 + number: to panoptic maps and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from panoptic.conversion.category_files import dataset_ids
from panoptic.conversion.contract import AnnotatedImage
from panoptic.conversion.id_maps import MapsWithPhotographs, map_of_values, raise_unknown
from panoptic.conversion.numbering import number_things, values_of_segments, write_grey_png
from panoptic.data.mapillary import evaluated_categories, read_labels
from panoptic.structures import Category, Segment

NUMBERS = 256
"""A value is label * 256 + number; the number of stuff does not matter."""


class MapillaryIds:
    """A folder of such maps, by index; image ids are Mapillary's keys.

    Segment ids are (label + 1) * 256 + number, so that the first thing of label 0 is not void. Labels that are not
    evaluated are void.

    Args:
        maps: folder of the maps, such as `validation/instances`.
        images: folder of the photographs, such as `validation/images`.
        config: Mapillary's `config.json`, or one of one's own: a list `labels`, each with `name`, `readable`,
            `instances`, `evaluate`, `color`.
        maps_suffix: end of the maps' names.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: no map, files without partner, or an unusable configuration.
    """

    def __init__(self, maps: Path | str, images: Path | str, config: Path | str, maps_suffix: str = ".png") -> None:
        self._files = MapsWithPhotographs(maps, images, maps_suffix, None)
        self.image_folder = self._files.image_folder
        path = Path(config).expanduser()
        labels = read_labels(path)
        self._num_labels = len(labels)
        self.categories = evaluated_categories(path, labels)
        self._category_of = {category.dataset_category_id: category for category in self.categories}

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> AnnotatedImage:
        key = self._files.keys[index]
        values, present = self._files.read_grey16(key)
        unknown = {value // NUMBERS for value in present if value // NUMBERS >= self._num_labels}
        last = self._num_labels - 1
        raise_unknown(self._files.maps[key], unknown, f"{NUMBERS} times a label 0..{last} plus a number, got labels")
        panoptic_map = map_of_values(values, self._segment)
        return AnnotatedImage(key, self._files.image_name(key), panoptic_map)

    def _segment(self, value: int, area: int) -> Segment | None:
        """The segment of one value; None for a label that is not evaluated."""
        label, number = divmod(value, NUMBERS)
        category = self._category_of.get(label + 1)
        if category is None:
            return None
        return Segment((label + 1) * NUMBERS + (number if category.is_thing else 0), category.id, area=area)


class MapillaryIdsTarget:
    """Writes `instances/<key>.png` (16 bits) and `labels/<key>.png` (8 bits, without the colours of the official ones).

    A segment whose id is (label + 1) * 256 + number keeps its number; other things get the free ones of their label.
    Void is the first label of the configuration that is not evaluated.

    Args:
        folder: new.
        categories: of the maps; their dataset ids are labels + 1.
        config: Mapillary's `config.json`, whose labels the categories must be.

    Raises:
        FileNotFoundError: no configuration.
        ValueError: categories that are not those of the configuration, or a configuration without a label for void.
    """

    def __init__(self, folder: Path, categories: Sequence[Category], *, config: Path | str) -> None:
        path = Path(config).expanduser()
        labels = read_labels(path)
        check_labels(categories, evaluated_categories(path, labels), path)
        not_evaluated = [label for label, entry in enumerate(labels) if not entry["evaluate"]]
        if not not_evaluated:
            raise ValueError(
                f"expected a label in {path} that is not evaluated, for pixels without a segment; got none"
            )
        self._void = not_evaluated[0]
        self._categories = categories
        self._ids = dataset_ids(categories)
        self._folders = (folder / "instances", folder / "labels")
        for made in self._folders:
            made.mkdir()

    def add(self, image: AnnotatedImage) -> None:
        """Write the two maps of an image."""
        panoptic_map = image.panoptic_map
        crowds = [segment.id for segment in panoptic_map.segments if segment.is_crowd]
        if crowds:
            raise ValueError(f"{image.image_name}: expected no crowds in Mapillary's maps, got segments {crowds}")
        numbers = number_things(panoptic_map, self._categories, self._ids, base=NUMBERS, first=0)
        labels = {segment.id: self._ids[segment.category_id] - 1 for segment in panoptic_map.segments}
        values = {i: label * NUMBERS + numbers.get(i, 0) for i, label in labels.items()}
        pixels = values_of_segments(panoptic_map, values, void=self._void * NUMBERS, dtype=np.uint16)
        name = f"{Path(image.image_name).stem}.png"
        write_grey_png(self._folders[0] / name, pixels)
        write_grey_png(self._folders[1] / name, (pixels // NUMBERS).astype(np.uint8))

    def close(self) -> list[str]:
        """Nothing is left to write."""
        return []


def check_labels(ours: Sequence[Category], official: Sequence[Category], where: Path | str) -> None:
    """Raise ValueError unless categories are among the official ones: by dataset id, name, and thing or stuff.

    Args:
        ours: of the maps.
        official: of the benchmark.
        where: the official ones are from.
    """
    table = {_identity(category) for category in official}
    strange = sorted((_identity(category) for category in ours if _identity(category) not in table), key=str)
    if strange:
        raise ValueError(
            f"expected categories (id, name, thing) of {where}, got {strange}; convert maps of a network that was "
            "trained on these categories"
        )


def _identity(category: Category) -> tuple[int | None, str, bool]:
    """What must agree; spelling, such as "Ground_Animal", is no difference."""
    name = "".join(letter for letter in category.name.lower() if letter.isalnum())
    return category.dataset_category_id, name, category.is_thing
