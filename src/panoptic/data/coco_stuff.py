"""COCO-Stuff 2017 for semantic segmentation: the pixel maps `stuffthingmaps_trainval2017`, with COCO's photographs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch

from panoptic.data.coco_stuff_labels import LABELS
from panoptic.data.faults import DataError, Kind, MissingFileError
from panoptic.data.images import read_index_png
from panoptic.data.pairing import paired, read_sample
from panoptic.data.value_maps import look_up
from panoptic.structures import IGNORE_INDEX, VOID, Category, ImageStatistics, PanopticMap, Sample, Segment

_VOID_VALUE = 255
"""The value of pixels without a label; others are official ids - 1."""

CATEGORIES = tuple(
    Category(number, name, False, group, dataset_category_id=official)
    for number, (official, name, group) in enumerate(LABELS)
)
"""The 171 labels that occur, things too; nothing is counted. The data set gives no colours."""


class CocoStuff:
    """A split by index, in the order of its files' names, which without suffix are the image ids.

    Each label is one segment, whose id is the official one, 1..182. Contiguous ids close the gaps that the eleven
    unused things leave; a map with one of their values is an error. That no file is missing is checked on opening.

    Args:
        image_folder: of the photographs, *.jpg, such as `train2017`; "~" is the home folder, here and below.
        label_folder: of the maps, *.png of the same names, such as `stuffthingmaps_trainval2017/train2017`.
        image_statistics: mean and standard deviation of the images.

    Raises:
        FileNotFoundError: a folder, an image or its map is missing.
    """

    def __init__(
        self, image_folder: Path | str, label_folder: Path | str, image_statistics: ImageStatistics | None = None
    ) -> None:
        self.categories: list[Category] = list(CATEGORIES)
        self.image_statistics = image_statistics or ImageStatistics()
        self._images = _files(Path(image_folder).expanduser(), ".jpg", "photographs, such as COCO's train2017")
        self._labels = _files(Path(label_folder).expanduser(), ".png", "maps of stuffthingmaps_trainval2017")
        self.image_ids = paired(list(self._images), self._labels, f"PNGs in {label_folder}")
        self._category_ids = np.full(_VOID_VALUE + 1, IGNORE_INDEX)
        self._segment_ids = np.full(_VOID_VALUE + 1, VOID)
        for category in self.categories:
            assert category.dataset_category_id is not None, "set in the table"
            self._category_ids[category.dataset_category_id - 1] = category.id
            self._segment_ids[category.dataset_category_id - 1] = category.dataset_category_id

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        image_id = self.image_ids[index]
        path = self._images[image_id]
        return read_sample(path, image_id, path.name, partial(self._read_truth, image_id))

    def category_ids(self, index: int) -> set[int]:
        """Categories of an image's ground truth; the photograph is not read."""
        return {segment.category_id for segment in self._read_truth(self.image_ids[index]).segments}

    def _read_truth(self, image_id: str) -> PanopticMap:
        """The map of one image."""
        path = self._labels[image_id]
        values = read_index_png(path)
        segment_ids, areas = look_up(values, self._segment_ids)
        areas[_VOID_VALUE] = 0
        present = areas.nonzero()[0]
        unknown = present[self._category_ids[present] == IGNORE_INDEX]
        if len(unknown):
            message = (
                f"unknown value {unknown[0]} in {path}, {areas[unknown[0]]} pixels; expected official ids - 1 of the "
                f"{len(LABELS)} labels of COCO-Stuff that are used, and 255 for none"
            )
            raise DataError(message, kind=Kind.UNKNOWN_CATEGORY, file=path)
        segments = [Segment(int(v) + 1, int(self._category_ids[v]), area=int(areas[v])) for v in present]
        return PanopticMap(torch.from_numpy(segment_ids), segments)


def _files(folder: Path, suffix: str, what: str) -> dict[str, Path]:
    """{name without suffix: file}, in the order of the names."""
    if not folder.is_dir():
        message = f"no folder {folder}; expected {what}"
        raise MissingFileError(message, kind=Kind.MISSING_FILE, file=folder)
    files = {path.stem: path for path in sorted(folder.glob(f"*{suffix}"))}
    if not files:
        message = f"no {suffix} in {folder}; expected {what}"
        raise MissingFileError(message, kind=Kind.MISSING_FILE, file=folder)
    return files
