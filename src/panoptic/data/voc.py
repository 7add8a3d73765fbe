"""PASCAL VOC 2012 segmentation in its official layout, `VOCdevkit/VOC2012`, with SBD's annotations for `trainaug`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from panoptic.data.faults import DataError, Kind, MissingFileError, read_text, report_each
from panoptic.data.images import read_index_png
from panoptic.data.pairing import read_sample
from panoptic.data.sbd import read_sbd_classes, read_sbd_objects
from panoptic.data.voc_maps import class_segments, object_segments
from panoptic.structures import Category, ImageStatistics, PanopticMap, Sample

LABELS = ("panoptic", "semantic")
_WITHOUT_TRUTH = "test"
_SHOWN = 5
"""Lines of a list that an error names."""

_NAMES = (
    ("background", None),
    ("aeroplane", "vehicle"),
    ("bicycle", "vehicle"),
    ("bird", "animal"),
    ("boat", "vehicle"),
    ("bottle", "indoor"),
    ("bus", "vehicle"),
    ("car", "vehicle"),
    ("cat", "animal"),
    ("chair", "indoor"),
    ("cow", "animal"),
    ("diningtable", "indoor"),
    ("dog", "animal"),
    ("horse", "animal"),
    ("motorbike", "vehicle"),
    ("person", "person"),
    ("pottedplant", "indoor"),
    ("sheep", "animal"),
    ("sofa", "indoor"),
    ("train", "vehicle"),
    ("tvmonitor", "indoor"),
)
"""The development kit's names and groups, in the order of the values in `SegmentationClass`."""


def voc_colour(value: int) -> tuple[int, int, int]:
    """(red, green, blue) of a value 0..255 in VOC's palette: its bits go to them in turn, the lowest counts most."""
    red = green = blue = 0
    for place in range(8):
        bits = value >> 3 * place
        red |= (bits & 1) << 7 - place
        green |= (bits >> 1 & 1) << 7 - place
        blue |= (bits >> 2 & 1) << 7 - place
    return red, green, blue


CATEGORIES = tuple(
    Category(value, name, value > 0, group, voc_colour(value), dataset_category_id=value)
    for value, (name, group) in enumerate(_NAMES)
)
"""The panoptic form: background is stuff, the twenty classes are things; ids are the values of `SegmentationClass`."""

SEMANTIC_CATEGORIES = tuple(replace(category, is_thing=False) for category in CATEGORIES)
"""The semantic form: nothing is counted."""


class VOC2012:
    """A split by index, in the order of its list. That no file is missing is checked on opening.

    An image's ground truth is the challenge's own PNG where there is one, else SBD's annotation. Value 255, the outline
    of objects and what is too difficult, is void.

    Args:
        root: the folder with `JPEGImages`, which is `VOCdevkit/VOC2012`; "~" is the home folder, here and below.
        split: a list of `ImageSets/Segmentation`: "train", "val", "trainval", "test", or "trainaug", which
            scripts/prepare_voc.py writes. The ground truth of "test" is not public: its samples have none.
        image_statistics: mean and standard deviation of the images.
        labels: "panoptic", each object a segment, or "semantic", each class one segment.
        sbd: the folder with SBD's `cls` and `inst`, to read its annotations as they are given out; None reads them from
            `SegmentationClassAug` and `SegmentationObjectAug`.

    Raises:
        FileNotFoundError: a folder, the list, an image or its ground truth is missing.
        ValueError: the list is empty, names an image twice or is none; or unknown `labels`.
    """

    def __init__(
        self,
        root: Path | str,
        split: str,
        image_statistics: ImageStatistics | None = None,
        *,
        labels: str = "panoptic",
        sbd: Path | str | None = None,
    ) -> None:
        if labels not in LABELS:
            raise ValueError(f"expected labels to be one of {', '.join(LABELS)}, got {labels!r}")
        root = Path(root).expanduser()
        photographs = root / "JPEGImages"
        if not photographs.is_dir():
            message = f"no folder {photographs}; expected VOCdevkit/VOC2012, which has it, as root"
            raise MissingFileError(message, kind=Kind.MISSING_FILE, file=photographs)
        is_semantic = labels == "semantic"
        self.categories: list[Category] = list(SEMANTIC_CATEGORIES if is_semantic else CATEGORIES)
        self.image_statistics = image_statistics or ImageStatistics()
        listed = read_list(root / "ImageSets" / "Segmentation" / f"{split}.txt")
        listed = listed.found(_stems(photographs, ".jpg"), f"photograph {photographs}/<id>.jpg", "add it to the folder")
        self._photographs = photographs
        self._truths: dict[str, _Truth] | None = None
        if split != _WITHOUT_TRUTH:
            truths, place = _find_truths(root, None if sbd is None else Path(sbd).expanduser(), is_semantic)
            advice = "SBD's is there after scripts/prepare_voc.py, or by the option sbd"
            listed = listed.found(set(truths), f"ground truth in {place}", advice)
            self._truths = {image_id: truths[image_id] for image_id in listed.lines}
        self.image_ids = list(listed.lines)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        image_id = self.image_ids[index]
        path = self._photographs / f"{image_id}.jpg"
        return read_sample(path, image_id, path.name, partial(self._read_truth, image_id))

    def category_ids(self, index: int) -> set[int]:
        """Categories of an image's ground truth; the photograph is not read."""
        panoptic_map = self._read_truth(self.image_ids[index])
        return set() if panoptic_map is None else {segment.category_id for segment in panoptic_map.segments}

    def _read_truth(self, image_id: str) -> PanopticMap | None:
        """The map of one image; None where ground truth is not public."""
        return None if self._truths is None else self._truths[image_id].read()


@dataclass(frozen=True, eq=False)
class ImageList:
    """A list of `ImageSets/Segmentation`.

    Args:
        path: of the list.
        lines: {image id: number of its line, from 1 on}, in the order of the list.
    """

    path: Path
    lines: dict[str, int]

    def found(self, found: set[str], what: str, advice: str) -> ImageList:
        """The list without images that were not found; raises FileNotFoundError, which names their lines, if any."""
        missing = [image_id for image_id in self.lines if image_id not in found]
        if not missing:
            return self
        shown = ", ".join(f"line {self.lines[image_id]} {image_id}" for image_id in missing[:_SHOWN])
        more = ", .." if len(missing) > _SHOWN else ""
        message = f"{len(missing)} of {len(self.lines)} images of {self.path} have no {what}: {shown}{more}; {advice}"
        report_each(
            MissingFileError(message, kind=Kind.MISSING_FILE, file=self.path),
            ((self.path, f"image {i} of {self.path}, line {self.lines[i]}, has no {what}") for i in missing),
        )
        return ImageList(self.path, {image_id: self.lines[image_id] for image_id in self.lines if image_id in found})


def read_list(path: Path) -> ImageList:
    """Read a list of one image id per line.

    Raises:
        FileNotFoundError: no such list.
        ValueError: an empty list, an id twice, or a line that is none.
    """
    if not path.is_file():
        there = ", ".join(sorted(_stems(path.parent, ".txt"))) if path.parent.is_dir() else "none"
        message = f"no list {path}; there are: {there}. scripts/prepare_voc.py writes trainaug"
        raise MissingFileError(message, kind=Kind.MISSING_FILE, file=path)
    lines: dict[str, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        image_id = line.strip()
        if "/" in image_id:
            message = f"expected an image id such as 2007_000032 in each line of {path}, got {line!r} in line {number}"
            raise DataError(message, kind=Kind.FORMAT, file=path)
        if image_id in lines:
            message = f"{path} lists image {image_id} twice, in lines {lines[image_id]} and {number}; remove one"
            raise DataError(message, kind=Kind.REPEATED, file=path)
        if image_id:
            lines[image_id] = number
    if not lines:
        raise DataError(f"{path} is empty; expected at least one image id", kind=Kind.FORMAT, file=path)
    return ImageList(path, lines)


class _Truth(Protocol):
    """Where the map of one image comes from."""

    def read(self) -> PanopticMap:
        """The map."""


@dataclass(frozen=True)
class _ClassPng:
    path: Path

    def read(self) -> PanopticMap:
        return class_segments(read_index_png(self.path), self.path)


@dataclass(frozen=True)
class _ObjectPng:
    classes: Path
    objects: Path

    def read(self) -> PanopticMap:
        files = (self.classes, self.objects)
        return object_segments(read_index_png(self.classes), read_index_png(self.objects), files)


@dataclass(frozen=True)
class _SbdClasses:
    path: Path

    def read(self) -> PanopticMap:
        return class_segments(read_sbd_classes(self.path), self.path)


@dataclass(frozen=True)
class _SbdObjects:
    path: Path

    def read(self) -> PanopticMap:
        return object_segments(*read_sbd_objects(self.path), (self.path, self.path))


def _find_truths(root: Path, sbd: Path | None, is_semantic: bool) -> tuple[dict[str, _Truth], str]:
    """{image id: its ground truth}, the challenge's own or else SBD's, of all images; and where it was looked for."""
    if sbd is None:
        added = _pngs(root, "Aug", is_semantic)
        folders = "SegmentationClass" if is_semantic else "SegmentationClass and SegmentationObject"
        place = f"{folders} of {root}, nor in the folders whose names go on with Aug"
    else:
        folder = sbd / ("cls" if is_semantic else "inst")
        if not folder.is_dir():
            message = f"no folder {folder}; expected SBD's folder dataset, which has it, as sbd"
            raise MissingFileError(message, kind=Kind.MISSING_FILE, file=folder)
        added = {stem: _sbd(folder / f"{stem}.mat", is_semantic) for stem in _stems(folder, ".mat")}
        place = f"{root}, nor in {folder}"
    return {**added, **_pngs(root, "", is_semantic)}, place


def _sbd(path: Path, is_semantic: bool) -> _Truth:
    return _SbdClasses(path) if is_semantic else _SbdObjects(path)


def _pngs(root: Path, suffix: str, is_semantic: bool) -> dict[str, _Truth]:
    """{image id: ground truth} of the folders of PNGs whose names end so."""
    classes, objects = root / f"SegmentationClass{suffix}", root / f"SegmentationObject{suffix}"
    if is_semantic:
        return {stem: _ClassPng(classes / f"{stem}.png") for stem in _stems(classes, ".png")}
    both = _stems(classes, ".png") & _stems(objects, ".png")
    return {stem: _ObjectPng(classes / f"{stem}.png", objects / f"{stem}.png") for stem in both}


def _stems(folder: Path, suffix: str) -> set[str]:
    """Names of a folder's files without suffix, none of a folder that is not there."""
    return {path.stem for path in folder.glob(f"*{suffix}")}
