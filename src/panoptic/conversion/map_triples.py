"""Class maps, instance maps and photographs of the same names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from panoptic.conversion.category_files import read_categories
from panoptic.conversion.files import check_pairs, check_photograph, existing_folder, index_files
from panoptic.conversion.id_maps import MapsWithPhotographs, pair_up, raise_unknown, read_ids


class MapTriples:
    """Three folders of such files, and the categories of the class maps.

    Args:
        class_maps: folder, searched with the folders below it.
        instance_maps: likewise.
        images: likewise.
        suffixes: ends of the names of class maps, instance maps and photographs; None is that of any image.
        categories: JSON of categories.
        void: value of class maps without a label; None is none.
        id_of_zero: category id of the value 0.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: no map, files without partner, or unusable categories.
    """

    def __init__(
        self,
        class_maps: Path | str,
        instance_maps: Path | str,
        images: Path | str,
        suffixes: tuple[str, str, str | None],
        categories: Path | str,
        void: int | None,
        id_of_zero: int,
    ) -> None:
        self._classes = MapsWithPhotographs(class_maps, images, suffixes[0], suffixes[2])
        self.image_folder = self._classes.image_folder
        folder = existing_folder(instance_maps, "from.instance_maps")
        self._instances = index_files(folder, [suffixes[1]])
        what = f"class map *{suffixes[0]} in {class_maps}"
        check_pairs(self._classes.maps, self._instances, what, f"instance map *{suffixes[1]} in {folder}")
        self.categories = read_categories(categories, "from.categories")
        values = {(c.dataset_category_id or 0) - id_of_zero: c for c in self.categories}
        self.void = void
        self.category_of = {value: category for value, category in values.items() if value != void}

    def __len__(self) -> int:
        return len(self._classes)

    def read(self, index: int) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
        """(H, W) places in the list of the image's (class, number) pairs, and that list; every class is known.

        Raises:
            ValueError: a class that is no category, or files of different sizes.
        """
        key = self._classes.keys[index]
        paths = self._classes.maps[key], self._instances[key]
        classes, numbers = (read_ids(path) for path in paths)
        places, pairs = pair_up(classes, numbers, paths)
        check_photograph(self._classes.photographs[key], (classes.shape[0], classes.shape[1]))
        known = {self.void, *self.category_of}
        unknown = {value for value, _ in pairs if value not in known}
        raise_unknown(paths[0], unknown, f"classes {sorted(self.category_of)}, and {self.void} for void")
        return places, pairs

    def names_of(self, index: int) -> tuple[str, str]:
        """Image id, and the photograph's path within the image folder."""
        key = self._classes.keys[index]
        return key, self._classes.image_name(key)
