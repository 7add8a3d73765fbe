"""Any data set in COCO's instances format alone: images and one JSON of overlapping masks, things only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from panoptic.data.images import read_image
from panoptic.data.instances_format import collect_instances, load_instances_json, read_instances
from panoptic.data.panoptic_format import ImageId
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
        self._check_images()

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
            raise ValueError(f"image {path} has size {size}, but {self._file.path} says {listed} (height, width)")
        instances = read_instances(self._file, entry["id"], size)
        return Sample(image, entry["id"], entry["file_name"], paint_instances(instances), instances, size)

    def _check_images(self) -> None:
        """Raise FileNotFoundError unless every image is there."""
        paths = [self._image_folder / image["file_name"] for image in self._images]
        present = {entry for folder in {path.parent for path in paths} if folder.is_dir() for entry in folder.iterdir()}
        missing = [path for path in paths if path not in present]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(paths)} images of {self._file.path} are missing, the first is {missing[0]}; "
                "check the option image_folder"
            )


def paint_instances(instances: Instances) -> PanopticMap:
    """A panoptic map of overlapping masks: painted from the largest to the smallest, crowd too; the rest is void.

    Segment ids are places in `instances` + 1; an instance of which nothing is left has no segment.
    """
    masks = instances.masks.numpy()
    order = np.argsort(-masks.sum(axis=(1, 2)), kind="stable")
    segment_ids = np.full(masks.shape[1:], VOID, dtype=np.int64)
    for number in order:
        segment_ids[masks[number]] = number + 1
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
        entries = sorted(content["categories"], key=lambda entry: entry["id"])
        categories = [
            Category(number, entry["name"], True, entry.get("supercategory"), dataset_category_id=entry["id"])
            for number, entry in enumerate(entries)
        ]
        check_categories(categories)
    except KeyError as error:
        raise ValueError(f"{path} or a category of it lacks the key {error}") from error
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"the categories of {path} are not as in COCO's instances format: {error}") from error
    if len({category.dataset_category_id for category in categories}) != len(categories):
        raise ValueError(f"{path} lists a category id twice: {[c.dataset_category_id for c in categories]}")
    return categories


def _images(path: Path, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The list `images`, each with an id and a file name."""
    images: list[dict[str, Any]] = list(content["images"])
    if not images:
        raise ValueError(f"{path} has no images; expected at least one")
    for image in images:
        if "file_name" not in image:
            raise ValueError(f"image {image['id']} in {path} has no file_name; add it")
    if len({image["id"] for image in images}) != len(images):
        raise ValueError(f"{path} lists an image id twice in `images`")
    return images
