"""Cityscapes for semantic segmentation, in its official layout: label ids of the fine and the coarse annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from panoptic.data.cityscapes import CATEGORIES, NUM_LABELS, find_photographs
from panoptic.data.faults import DataError, Kind, MissingFileError
from panoptic.data.images import read_index_png
from panoptic.data.pairing import paired, read_sample
from panoptic.data.value_maps import look_up
from panoptic.structures import IGNORE_INDEX, VOID, Category, ImageStatistics, PanopticMap, Sample, Segment

SEMANTIC_CATEGORIES = tuple(replace(category, is_thing=False) for category in CATEGORIES)
"""The evaluated labels by train id; nothing is counted."""

_COARSE = "train_extra"
"""The split of which there are coarse annotations alone."""


class CityscapesSemantic:
    """Splits by index, in the order of splits, cities and frames. That no file is missing is checked on opening.

    The ground truth is `*_labelIds.png` of `gtFine`, or of `gtCoarse` for "train_extra". Each evaluated label is one
    segment, groups of things too, which are no crowds here; labels that are not evaluated are void.

    Args:
        root: the folder with `leftImg8bit` and `gtFine`; "~" is the home folder.
        split: "train", "val" or "train_extra", or several; the ground truth of "test" is not public.
        image_statistics: mean and standard deviation of the images.

    Raises:
        FileNotFoundError: a folder, an image or its ground truth is missing.
    """

    def __init__(
        self, root: Path | str, split: str | Sequence[str], image_statistics: ImageStatistics | None = None
    ) -> None:
        root = Path(root).expanduser()
        self.categories: list[Category] = list(SEMANTIC_CATEGORIES)
        self.image_statistics = image_statistics or ImageStatistics()
        self._category_ids = np.full(256, IGNORE_INDEX)
        for category in self.categories:
            self._category_ids[category.dataset_category_id] = category.id
        self._segment_ids = np.where(self._category_ids == IGNORE_INDEX, VOID, np.arange(256))
        self._images: dict[str, Path] = {}
        self._label_ids: dict[str, Path] = {}
        for name in [split] if isinstance(split, str) else split:
            photographs, label_ids = find_photographs(root / "leftImg8bit" / name), _find_label_ids(root, name)
            what = f"PNGs of label ids for the split {name} in {root}"
            for frame in paired(list(photographs), label_ids, what):
                self._images[frame], self._label_ids[frame] = photographs[frame], label_ids[frame]
        self.image_ids = list(self._images)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        frame = self.image_ids[index]
        path = self._images[frame]
        return read_sample(path, frame, f"{path.parent.name}/{path.name}", partial(self._read_truth, frame))

    def category_ids(self, index: int) -> set[int]:
        """Categories of an image's ground truth; the photograph is not read."""
        return {segment.category_id for segment in self._read_truth(self.image_ids[index]).segments}

    def _read_truth(self, frame: str) -> PanopticMap:
        """The map of one frame; segment ids are label ids."""
        path = self._label_ids[frame]
        labels = read_index_png(path)
        segment_ids, areas = look_up(labels, self._segment_ids)
        if areas[NUM_LABELS:].any():
            unknown = int(areas[NUM_LABELS:].nonzero()[0][0]) + NUM_LABELS
            message = f"unknown label {unknown} in {path}; expected label ids 0..{NUM_LABELS - 1}, not train ids"
            raise DataError(message, kind=Kind.UNKNOWN_CATEGORY, file=path)
        present = np.flatnonzero((areas > 0) & (self._segment_ids != VOID)).tolist()
        segments = [Segment(label, int(self._category_ids[label]), area=int(areas[label])) for label in present]
        return PanopticMap(torch.from_numpy(segment_ids), segments)


def _find_label_ids(root: Path, split: str) -> dict[str, Path]:
    """{frame: PNG of label ids} of a split."""
    annotations = "gtCoarse" if split == _COARSE else "gtFine"
    folder, ending = root / annotations / split, f"_{annotations}_labelIds.png"
    if not folder.is_dir():
        message = f"no folder {folder}; expected <city>/<frame>{ending}; images without them are for panoptic predict"
        raise MissingFileError(message, kind=Kind.MISSING_FILE, file=folder)
    return {path.name.removesuffix(ending): path for path in folder.glob(f"*/*{ending}")}
