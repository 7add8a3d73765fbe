"""Cityscapes in its official layout: `leftImg8bit/<split>/<city>` and `gtFine/<split>/<city>`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from panoptic.data.faults import DataError, Kind, MissingFileError, report
from panoptic.data.images import read_grey16_png
from panoptic.data.pairing import paired, read_sample
from panoptic.data.panoptic_format import check_files, read_panoptic_json, read_panoptic_map
from panoptic.data.value_maps import look_up
from panoptic.structures import VOID, Category, ImageStatistics, PanopticMap, Sample, Segment

_PHOTOGRAPH = "_leftImg8bit.png"
_INSTANCE_IDS = "_gtFine_instanceIds.png"

_NUMBERS = 1000
"""A value of `*_instanceIds.png` is label * 1000 + number; below 1000 it is the label of stuff or of a group."""

NUM_LABELS = 34
"""Labels 0..33, in the order of cityscapesScripts' table; 19 of them are evaluated."""

_WITH_INSTANCES = range(24, NUM_LABELS)
"""Labels whose objects are numbered: the eight things, and caravan and trailer, which are not evaluated."""

_EVALUATED = (
    (7, "road", "flat", (128, 64, 128)),
    (8, "sidewalk", "flat", (244, 35, 232)),
    (11, "building", "construction", (70, 70, 70)),
    (12, "wall", "construction", (102, 102, 156)),
    (13, "fence", "construction", (190, 153, 153)),
    (17, "pole", "object", (153, 153, 153)),
    (19, "traffic light", "object", (250, 170, 30)),
    (20, "traffic sign", "object", (220, 220, 0)),
    (21, "vegetation", "nature", (107, 142, 35)),
    (22, "terrain", "nature", (152, 251, 152)),
    (23, "sky", "sky", (70, 130, 180)),
    (24, "person", "human", (220, 20, 60)),
    (25, "rider", "human", (255, 0, 0)),
    (26, "car", "vehicle", (0, 0, 142)),
    (27, "truck", "vehicle", (0, 0, 70)),
    (28, "bus", "vehicle", (0, 60, 100)),
    (31, "train", "vehicle", (0, 80, 100)),
    (32, "motorcycle", "vehicle", (0, 0, 230)),
    (33, "bicycle", "vehicle", (119, 11, 32)),
)

CATEGORIES = tuple(
    Category(number, name, label in _WITH_INSTANCES, group, colour, dataset_category_id=label)
    for number, (label, name, group, colour) in enumerate(_EVALUATED)
)
"""The evaluated labels; contiguous ids are the official train ids, dataset ids the official label ids."""


class Cityscapes:
    """A split by index, in the order of cities and frames. That no file is missing is checked on opening.

    The ground truth is `gtFine/cityscapes_panoptic_<split>.json` with its PNGs where that is there, else
    `*_gtFine_instanceIds.png`; both give the same segments. Labels that are not evaluated are void, and a group of
    things that was not separated is a crowd.

    Args:
        root: the folder with `leftImg8bit` and `gtFine`; "~" is the home folder.
        split: "train", "val" or "test"; the ground truth of test is not public.
        image_statistics: mean and standard deviation of the images.

    Raises:
        FileNotFoundError: a folder, an image or its ground truth is missing.
        ValueError: the split has no images, or the files do not belong together.
    """

    def __init__(self, root: Path | str, split: str, image_statistics: ImageStatistics | None = None) -> None:
        root = Path(root).expanduser()
        self.categories: list[Category] = list(CATEGORIES)
        self.image_statistics = image_statistics or ImageStatistics()
        self._images = find_photographs(root / "leftImg8bit" / split)
        self._truth = _open_truth(root / "gtFine", split)
        self._frames = self._truth.check(list(self._images))

    @property
    def image_ids(self) -> list[str]:
        """Frames, such as "frankfurt_000000_000294", in the order of the indices."""
        return list(self._frames)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Sample:
        frame = self._frames[index]
        path = self._images[frame]
        return read_sample(path, frame, f"{path.parent.name}/{path.name}", partial(self._truth.read, frame))

    def category_ids(self, index: int) -> set[int]:
        """Categories of an image's ground truth; the photograph is not read."""
        return {segment.category_id for segment in self._truth.read(self._frames[index]).segments}


class _Truth(Protocol):
    """Where panoptic maps come from."""

    def check(self, frames: Sequence[str]) -> list[str]:
        """The frames; raises unless there is ground truth for exactly these, recorded faults leave some out."""

    def read(self, frame: str) -> PanopticMap:
        """The map of one frame."""


class _PanopticTruth:
    """`cityscapes_panoptic_<split>.json`, in COCO's panoptic format; its category ids are label ids.

    Args:
        path: the JSON; its PNGs are in the folder beside it.
    """

    def __init__(self, path: Path) -> None:
        file = read_panoptic_json(path)
        ours, theirs = ({(c.dataset_category_id, c.name) for c in side} for side in (CATEGORIES, file.categories))
        if theirs != ours:
            message = (
                f"expected the {len(ours)} evaluated labels as categories (label id, name) of {path}, got "
                f"{sorted(theirs - ours)} instead of {sorted(ours - theirs)}; a file of train ids is not read"
            )
            raise DataError(message, kind=Kind.CATEGORIES_DIFFER, file=path)
        self._file = replace(file, categories=list(CATEGORIES))  # numbered alike, by the same ids

    def check(self, frames: Sequence[str]) -> list[str]:
        check_files(self._file)
        return paired(frames, [str(frame) for frame in self._file.annotations], f"entries of {self._file.path}")

    def read(self, frame: str) -> PanopticMap:
        return read_panoptic_map(self._file, self._file.annotations[frame])


class _InstanceIdsTruth:
    """`<city>/*_gtFine_instanceIds.png`; segment ids are their values, as in the official panoptic files.

    Args:
        folder: `gtFine/<split>`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths = {path.name.removesuffix(_INSTANCE_IDS): path for path in folder.glob(f"*/*{_INSTANCE_IDS}")}
        self._is_known = np.zeros(2**16, dtype=bool)
        self._is_known[:NUM_LABELS] = True
        self._is_known[_WITH_INSTANCES.start * _NUMBERS : _WITH_INSTANCES.stop * _NUMBERS] = True
        self._category_of = {category.dataset_category_id: category for category in CATEGORIES}
        values = np.arange(2**16)
        labels = np.where(values < _NUMBERS, values, values // _NUMBERS)
        is_evaluated = np.isin(labels, [label for label, *_ in _EVALUATED])
        self._segment_ids = np.where(self._is_known & is_evaluated, values, VOID)

    def check(self, frames: Sequence[str]) -> list[str]:
        return paired(frames, self._paths, f"PNGs <city>/<frame>{_INSTANCE_IDS} in {self._folder}")

    def read(self, frame: str) -> PanopticMap:
        path = self._paths[frame]
        values = read_grey16_png(path)
        segment_ids, counts = look_up(values, self._segment_ids)
        for value in np.flatnonzero((counts > 0) & ~self._is_known):
            message = (
                f"unknown value {value} in {path}; expected label ids 0..{NUM_LABELS - 1}, or for labels "
                f"{_WITH_INSTANCES.start}..{_WITH_INSTANCES.stop - 1} {_NUMBERS} times the label id plus a number"
            )
            report(DataError(message, kind=Kind.UNKNOWN_CATEGORY, file=path))
        known = np.flatnonzero((counts > 0) & self._is_known)
        segments = [self._segment(int(value), int(counts[value])) for value in known]
        return PanopticMap(torch.from_numpy(segment_ids), [segment for segment in segments if segment is not None])

    def _segment(self, value: int, area: int) -> Segment | None:
        """The segment of all pixels of one value; None where its label is not evaluated."""
        label = value if value < _NUMBERS else value // _NUMBERS
        category = self._category_of.get(label)
        if category is None:
            return None
        assert value != VOID, "label 0 is not evaluated"
        return Segment(value, category.id, is_crowd=category.is_thing and value < _NUMBERS, area=area)


def _open_truth(folder: Path, split: str) -> _Truth:
    """The panoptic files of a split, or its instance ids."""
    panoptic_json = folder / f"cityscapes_panoptic_{split}.json"
    if panoptic_json.is_file():
        return _PanopticTruth(panoptic_json)
    if (folder / split).is_dir():
        return _InstanceIdsTruth(folder / split)
    message = (
        f"expected ground truth, {panoptic_json} or {folder / split}, found neither; "
        "images without it are for panoptic predict"
    )
    raise MissingFileError(message, kind=Kind.MISSING_FILE, file=panoptic_json)


def find_photographs(folder: Path) -> dict[str, Path]:
    """{frame: photograph}, in the order of cities and frames."""
    if not folder.is_dir():
        message = f"no folder {folder}; expected the photographs of a split of Cityscapes"
        raise MissingFileError(message, kind=Kind.MISSING_FILE, file=folder)
    images = {path.name.removesuffix(_PHOTOGRAPH): path for path in sorted(folder.glob(f"*/*{_PHOTOGRAPH}"))}
    if not images:
        message = f"no <city>/<frame>{_PHOTOGRAPH} in {folder}; expected a split of Cityscapes"
        raise MissingFileError(message, kind=Kind.MISSING_FILE, file=folder)
    return images
