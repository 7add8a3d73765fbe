"""Any data set in COCO's instances format alone: images and one JSON of overlapping masks, things only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from panoptic.data.faults import DataError, Kind, report
from panoptic.data.images import check_images_present, read_image
from panoptic.data.instances_format import collect_instances, load_instances_json, read_instances
from panoptic.data.panoptic_entries import ImageId, text_of
from panoptic.structures import (
    VOID,
    Category,
    ImageStatistics,
    Instances,
    PanopticMap,
    Sample,
    Segment,
    check_categories,
)


class CocoInstances:
    """A data set by index, in the order of the JSON's images. That no file is missing is checked on opening.

    Samples carry the masks as they are, and a panoptic map painted from them, see `paint_instances`. Images without any
    annotation are void.

    Args:
        instances_json: the JSON; "~" is the home folder, here and below.
        image_folder: images[].file_name is relative to it.
        image_statistics: mean and standard deviation of the images.

    Raises:
        FileNotFoundError: the JSON or an image is missing.
        ValueError: no images, or an entry that is not as in COCO's instances format.
    """

    def __init__(
        self,
        instances_json: Path | str,
        image_folder: Path | str,
        image_statistics: ImageStatistics | None = None,
    ) -> None:
        path = Path(instances_json).expanduser()
        content = load_instances_json(path)
        self.categories = _thing_categories(path, content)
        self.image_statistics = image_statistics or ImageStatistics()
        self._file = collect_instances(path, content, self.categories)
        self._image_folder = Path(image_folder).expanduser()
        self._images = _images(path, content)
        check_images_present([self._image_folder / image["file_name"] for image in self._images], path)

    @property
    def image_ids(self) -> list[ImageId]:
        """In the order of the indices."""
        return [image["id"] for image in self._images]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        entry = self._images[index]
        path = self._image_folder / entry["file_name"]
        image = torch.from_numpy(read_image(path)).permute(2, 0, 1)  # (3, H, W)
        size = (image.shape[1], image.shape[2])
        listed = (entry.get("height", size[0]), entry.get("width", size[1]))
        if listed != size:
            message = f"image {path} has size {size}, but {self._file.path} says {listed} (height, width)"
            raise DataError(message, kind=Kind.SIZE, file=path)
        instances = read_instances(self._file, entry["id"], size)
        return Sample(image, entry["id"], entry["file_name"], paint_instances(instances), instances, size)

    def regions(self, index: int) -> list[tuple[int, float]]:
        """(category id, area in pixels as the JSON says) of each annotation of an image, crowds too."""
        entries = self._file.entries[self._images[index]["id"]]
        without = [entry["id"] for entry in entries if "area" not in entry]
        if without:
            message = f"annotation {without[0]} in {self._file.path} has no area; use COCO's own annotations"
            raise DataError(message, kind=Kind.FORMAT, file=self._file.path)
        return [(self._file.contiguous[entry["category_id"]], entry["area"]) for entry in entries]


def paint_instances(instances: Instances) -> PanopticMap:
    """A panoptic map of overlapping masks: painted from the largest to the smallest, crowd too; the rest is void.

    Segment ids are places in `instances` + 1; an instance of which nothing is left has no segment.
    """
    masks = instances.masks.numpy()
    order = np.argsort([-np.count_nonzero(mask) for mask in masks], kind="stable")
    segment_ids = np.full(masks.shape[1:], VOID, dtype=np.int64)
    for number in order:
        np.copyto(segment_ids, number + 1, where=masks[number])
    areas = np.bincount(segment_ids.reshape(-1), minlength=len(masks) + 1)[1:].tolist()
    category_ids, is_crowd = instances.category_ids.tolist(), instances.is_crowd.tolist()
    segments = [
        Segment(number + 1, category_ids[number], is_crowd=is_crowd[number], area=area)
        for number, area in enumerate(areas)
        if area > 0
    ]
    return PanopticMap(torch.from_numpy(segment_ids), segments)


def _thing_categories(path: Path, content: Any) -> list[Category]:
    """The JSON's categories, numbered 0..C-1 by their ids in the data set; all are things."""
    try:
        listed = sorted(entry["id"] for entry in content["categories"])
        firsts = {entry["id"]: entry for entry in reversed(content["categories"])}
        categories = [
            Category(number, text_of(firsts[i], "name"), True, firsts[i].get("supercategory"), dataset_category_id=i)
            for number, i in enumerate(sorted(firsts))
        ]
    except KeyError as error:
        message = f"{path} or a category of it lacks the key {error}"
        raise DataError(message, kind=Kind.FORMAT, file=path) from error
    except (TypeError, AttributeError) as error:
        raise DataError(f"{_not_as_in(path)}: {error}", kind=Kind.FORMAT, file=path) from error
    if len(categories) != len(listed):
        report(DataError(f"{path} lists a category id twice: {listed}", kind=Kind.REPEATED, file=path))
    try:
        check_categories(categories)
    except ValueError as error:
        report(DataError(f"{_not_as_in(path)}: {error}", kind=Kind.REPEATED, file=path))
    return categories


def _not_as_in(path: Path) -> str:
    return f"the categories of {path} are not as in COCO's instances format"


def _images(path: Path, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The list `images`, each with an id and a file name."""
    images: list[dict[str, Any]] = list(content["images"])
    if not images:
        raise DataError(f"{path} has no images; expected at least one", kind=Kind.FORMAT, file=path)
    by_id: dict[ImageId, dict[str, Any]] = {}
    for image in images:
        if not isinstance(image.get("file_name"), str):
            message = f"image {image['id']} in {path} has no file_name; add it"
            report(DataError(message, kind=Kind.FORMAT, file=path))
        elif image["id"] in by_id:
            message = f"{path} lists an image id twice in `images`: {image['id']}"
            report(DataError(message, kind=Kind.REPEATED, file=path))
        else:
            by_id[image["id"]] = image
    return list(by_id.values())
