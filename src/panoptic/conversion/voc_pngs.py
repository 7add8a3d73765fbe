"""PASCAL VOC's `SegmentationClass` and `SegmentationObject`: to panoptic maps and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from panoptic.conversion.category_files import dataset_ids, read_categories
from panoptic.conversion.contract import AnnotatedImage
from panoptic.conversion.files import (
    PHOTOGRAPHS,
    check_pairs,
    check_photograph,
    existing_folder,
    index_files,
    raise_all,
)
from panoptic.conversion.id_maps import map_of_values, pair_up
from panoptic.conversion.numbering import number_things, values_of_segments
from panoptic.data.faults import read_text
from panoptic.data.images import read_index_png
from panoptic.data.voc import CATEGORIES, voc_colour
from panoptic.structures import Category, Segment

VOC_VOID = 255
"""Of both maps: the outline of objects and what has no label."""


class VocPngs:
    """A folder in VOC's layout, or in that of `labelme2voc`, by index; image ids are the names of the files.

    A thing's segment id is the number of its object, of stuff 255 plus the class; void in either map is void.

    Args:
        root: the folder with `JPEGImages`, `SegmentationClass` and `SegmentationObject`.
        names: a list of names, one a line, such as `ImageSets/Segmentation/val.txt`; None takes every class map.
        categories: JSON of categories whose ids are the values 0..254 of class maps; None is VOC's own table.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: no map, files without partner, or unusable categories.
    """

    def __init__(self, root: Path | str, names: Path | str | None = None, categories: Path | str | None = None) -> None:
        folder = existing_folder(root, "from.root")
        folders = [existing_folder(folder / name, "from.root") for name in ("SegmentationClass", "SegmentationObject")]
        self.image_folder = existing_folder(folder / "JPEGImages", "from.root")
        self.categories = list(CATEGORIES) if categories is None else read_categories(categories, "from.categories")
        self._category_of = {category.dataset_category_id: category for category in self.categories}
        self._classes, self._objects = (index_files(one, [".png"]) for one in folders)
        check_pairs(self._classes, self._objects, f"map in {folders[0]}", f"map in {folders[1]}")
        self._photographs = index_files(self.image_folder, PHOTOGRAPHS)
        self._names = list(self._classes) if names is None else _listed(Path(names).expanduser(), self._classes)
        alone = [
            f"{self._classes[name]} has no photograph in {self.image_folder}"
            for name in self._names
            if name not in self._photographs
        ]
        raise_all(alone, f"{len(alone)} maps have no partner; add those or remove these")

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> AnnotatedImage:
        name = self._names[index]
        paths = (self._classes[name], self._objects[name])
        classes, objects = (read_index_png(path).astype(np.int64) for path in paths)
        places, pairs = pair_up(classes, objects, paths)
        check_photograph(self._photographs[name], (classes.shape[0], classes.shape[1]))
        segments = self._segments(pairs, paths)

        def segment_of(place: int, area: int) -> Segment | None:
            segment = segments[place]
            return None if segment is None else Segment(*segment, area=area)

        photograph = self._photographs[name].relative_to(self.image_folder).as_posix()
        return AnnotatedImage(name, photograph, map_of_values(places, segment_of))

    def _segments(self, pairs: Sequence[tuple[int, int]], paths: tuple[Path, Path]) -> list[tuple[int, int] | None]:
        """(segment id, category id) of each pair of a class and an object, None for void; all faults are raised."""
        segments: list[tuple[int, int] | None] = []
        faults = []
        class_of: dict[int, int] = {}
        for value, number in pairs:
            category = self._category_of.get(value)
            if VOC_VOID in (value, number):
                segments.append(None)
                continue
            if category is None:
                faults.append(
                    f"class {value} in {paths[0]} is unknown, known are {sorted(map(str, self._category_of))}"
                )
            elif not category.is_thing and number:
                faults.append(f"object {number} in {paths[1]} is of {category.name!r} in {paths[0]}, which is no thing")
            elif category.is_thing and not number:
                faults.append(f"pixels of {category.name!r} in {paths[0]} are of no object in {paths[1]}")
            elif category.is_thing and class_of.setdefault(number, value) != value:
                faults.append(
                    f"object {number} in {paths[1]} is of classes {class_of[number]} and {value} in {paths[0]}"
                )
            else:
                segments.append((number if category.is_thing else VOC_VOID + value, category.id))
        raise_all(faults, f"{len(faults)} faults in the maps of one image")
        return segments


def _listed(path: Path, known: dict[str, Path]) -> list[str]:
    """The names of a list, which must have maps."""
    if not path.is_file():
        raise FileNotFoundError(f"from.names={path}: no such file")
    names = [name.strip() for name in read_text(path).split("\n") if name.strip()]
    missing = [name for name in names if name not in known]
    raise_all(missing, f"{len(missing)} names in {path} have no map in SegmentationClass")
    return names


class VocPngsTarget:
    """Writes `SegmentationClass/<name>.png` and `SegmentationObject/<name>.png`, with VOC's palette.

    A thing whose segment id is 1..254 keeps it as the number of its object, the others get free numbers. Void is 255.

    Args:
        folder: new.
        categories: of the maps; their dataset ids are the values of class maps.

    Raises:
        ValueError: a dataset id outside 0..254.
    """

    def __init__(self, folder: Path, categories: Sequence[Category]) -> None:
        self._values = class_values(categories)
        self._categories = categories
        self._folders = (folder / "SegmentationClass", folder / "SegmentationObject")
        for made in self._folders:
            made.mkdir()

    def add(self, image: AnnotatedImage) -> None:
        """Write the two maps of an image; a crowd is void, as VOC has none."""
        panoptic_map = image.panoptic_map
        shared = [0] * len(self._categories)  # objects are counted through all categories
        numbers = number_things(panoptic_map, self._categories, shared, base=VOC_VOID, first=1)
        kept = [segment for segment in panoptic_map.segments if not segment.is_crowd]
        classes = {segment.id: self._values[segment.category_id] for segment in kept}
        objects = {segment.id: numbers.get(segment.id, 0) for segment in kept}
        for folder, values in zip(self._folders, (classes, objects), strict=True):
            pixels = values_of_segments(panoptic_map, values, void=VOC_VOID, dtype=np.uint8)
            write_voc_png(folder / f"{Path(image.image_name).stem}.png", pixels)

    def close(self) -> list[str]:
        """Nothing is left to write."""
        return []


def class_values(categories: Sequence[Category]) -> list[int]:
    """The value of each category in class maps, its dataset id."""
    values = dataset_ids(categories)
    wrong = [value for value in values if not 0 <= value < VOC_VOID]
    if wrong:
        raise ValueError(f"expected category ids 0..{VOC_VOID - 1} for maps in VOC's form, got {sorted(wrong)}")
    return values


def write_voc_png(path: Path, values: NDArray[np.uint8]) -> None:
    """Write (H, W) uint8 as a PNG with VOC's palette; never over another file."""
    if path.exists():
        raise ValueError(f"{path.name} would be written a second time; names of images must be unique")
    image = Image.fromarray(values, mode="P")
    image.putpalette([channel for value in range(256) for channel in voc_colour(value)])
    image.save(path)
