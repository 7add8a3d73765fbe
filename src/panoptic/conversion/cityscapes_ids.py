"""Cityscapes' `*_instanceIds.png`, label * 1000 + number: to panoptic maps and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from panoptic.conversion.category_files import dataset_ids, read_categories
from panoptic.conversion.contract import AnnotatedImage
from panoptic.conversion.id_maps import MapsWithPhotographs, map_of_values, raise_unknown
from panoptic.conversion.numbering import number_things, values_of_segments, write_grey_png
from panoptic.data.cityscapes import CATEGORIES
from panoptic.structures import Category, Segment

NUMBERS = 1000
"""A value is label * 1000 + number; below 1000 it is the label of stuff, or of a group of things."""

_UNLABELED = 0

_NOT_EVALUATED = (
    (1, "ego vehicle", False, "void", (0, 0, 0)),
    (2, "rectification border", False, "void", (0, 0, 0)),
    (3, "out of roi", False, "void", (0, 0, 0)),
    (4, "static", False, "void", (0, 0, 0)),
    (5, "dynamic", False, "void", (111, 74, 0)),
    (6, "ground", False, "void", (81, 0, 81)),
    (9, "parking", False, "flat", (250, 170, 160)),
    (10, "rail track", False, "flat", (230, 150, 140)),
    (14, "guard rail", False, "construction", (180, 165, 180)),
    (15, "bridge", False, "construction", (150, 100, 100)),
    (16, "tunnel", False, "construction", (150, 120, 90)),
    (18, "polegroup", False, "object", (153, 153, 153)),
    (29, "caravan", True, "vehicle", (0, 0, 90)),
    (30, "trailer", True, "vehicle", (0, 0, 110)),
)
"""(label, name, is_thing, group, colour); with 0, which is unlabelled, those that the benchmark leaves out."""


class CityscapesIds:
    """A folder of such maps, by index; segment ids are the values, image ids the frames.

    Args:
        maps: folder of the maps, searched with the folders below it, such as `gtFine/val`.
        images: folder of the photographs, likewise, such as `leftImg8bit/val`.
        maps_suffix: end of the maps' names.
        images_suffix: end of the photographs' names; None is that of any image.
        categories: JSON of categories whose ids are the labels, for maps of one's own; None is the official table.
        evaluated_only: of the official table, make the labels that the benchmark leaves out void; else they are
            categories too, and only label 0 is void.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: no map, files without partner, or unusable categories.
    """

    def __init__(
        self,
        maps: Path | str,
        images: Path | str,
        maps_suffix: str = "_gtFine_instanceIds.png",
        images_suffix: str | None = "_leftImg8bit.png",
        categories: Path | str | None = None,
        *,
        evaluated_only: bool = True,
    ) -> None:
        self._files = MapsWithPhotographs(maps, images, maps_suffix, images_suffix)
        self.image_folder = self._files.image_folder
        self._void = {_UNLABELED}
        if categories is not None:
            self.categories = read_categories(categories, "from.categories")
        elif evaluated_only:
            self.categories = list(CATEGORIES)
            self._void |= {label for label, *_ in _NOT_EVALUATED}
        else:
            self.categories = all_labels()
        self._category_of = {category.dataset_category_id: category for category in self.categories}
        if _UNLABELED in self._category_of:
            raise ValueError(f"expected label ids from 1 on in from.categories={categories}, 0 is void; got 0")

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> AnnotatedImage:
        key = self._files.keys[index]
        values, present = self._files.read_grey16(key)
        things = sorted(label for label, category in self._category_of.items() if category.is_thing and label)
        raise_unknown(
            self._files.maps[key],
            (value for value in present if not self._is_known(value)),
            f"a label id, or for things {NUMBERS} times the label id plus a number; things are {things}",
        )
        panoptic_map = map_of_values(values, self._segment)
        return AnnotatedImage(key.rpartition("/")[2], self._files.image_name(key), panoptic_map)

    def _is_known(self, value: int) -> bool:
        """Whether a value is a label or a numbered thing."""
        label, is_numbered = (value, False) if value < NUMBERS else (value // NUMBERS, True)
        category = self._category_of.get(label)
        if category is not None:
            return category.is_thing or not is_numbered
        return label in self._void and (not is_numbered or _is_unevaluated_thing(label))

    def _segment(self, value: int, area: int) -> Segment | None:
        """The segment of one value; None for a label that is void."""
        label, is_numbered = (value, False) if value < NUMBERS else (value // NUMBERS, True)
        category = self._category_of.get(label)
        if category is None:
            return None
        return Segment(value, category.id, is_crowd=category.is_thing and not is_numbered, area=area)


def all_labels() -> list[Category]:
    """The official table with the labels that are not evaluated, in the order of label ids; 0 is none of them."""
    evaluated = [(c.dataset_category_id or 0, c.name, c.is_thing, c.group, c.colour) for c in CATEGORIES]
    rows = sorted([*evaluated, *_NOT_EVALUATED])
    return [
        Category(number, name, is_thing, group, colour, dataset_category_id=label)
        for number, (label, name, is_thing, group, colour) in enumerate(rows)
    ]


def _is_unevaluated_thing(label: int) -> bool:
    return any(label == other and is_thing for other, _, is_thing, *_ in _NOT_EVALUATED)


class CityscapesIdsTarget:
    """Writes `<frame>_gtFine_instanceIds.png` (16 bits) and `<frame>_gtFine_labelIds.png` (8 bits) into one folder.

    A segment whose id is label * 1000 + number keeps it; other things get the free numbers of their label.

    Args:
        folder: new.
        categories: of the maps; their dataset ids are the labels.

    Raises:
        ValueError: a label id outside 1..65, which 16 bits cannot hold.
    """

    def __init__(self, folder: Path, categories: Sequence[Category]) -> None:
        self._folder = folder
        self._labels = dataset_ids(categories)
        self._categories = categories
        wrong = [label for label in self._labels if not 0 < label < 2**16 // NUMBERS]
        if wrong:
            raise ValueError(f"expected label ids 1..{2**16 // NUMBERS - 1} in Cityscapes' maps, got {sorted(wrong)}")

    def add(self, image: AnnotatedImage) -> None:
        """Write the two maps of an image."""
        panoptic_map = image.panoptic_map
        numbers = number_things(panoptic_map, self._categories, self._labels, base=NUMBERS, first=0)
        labels = {segment.id: self._labels[segment.category_id] for segment in panoptic_map.segments}
        values = {i: label * NUMBERS + numbers[i] if i in numbers else label for i, label in labels.items()}
        frame = frame_of(image.image_name)
        instance_ids = values_of_segments(panoptic_map, values, void=_UNLABELED, dtype=np.uint16)
        label_ids = values_of_segments(panoptic_map, labels, void=_UNLABELED, dtype=np.uint8)
        write_grey_png(self._folder / f"{frame}_gtFine_instanceIds.png", instance_ids)
        write_grey_png(self._folder / f"{frame}_gtFine_labelIds.png", label_ids)

    def close(self) -> list[str]:
        """Nothing is left to write."""
        return []


def frame_of(image_name: str) -> str:
    """The frame of a photograph's name: "city/frame_leftImg8bit.png" and "frame_gtFine_leftImg8bit.png" are frame."""
    return Path(image_name).stem.removesuffix("_leftImg8bit").removesuffix("_gtFine")
