"""COCO with the classes of PASCAL VOC, to pretrain on (DeepLabv3, Sec. 4.3 and the last row of Table 6)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from panoptic.data.coco_instances import CocoInstances, paint_instances
from panoptic.data.faults import DataError, Kind
from panoptic.data.voc import SEMANTIC_CATEGORIES
from panoptic.data.voc_maps import class_segments
from panoptic.structures import Category, ImageStatistics, Instances, Sample

NAMES_IN_COCO = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""Of the classes that are called otherwise."""


class CocoForVOC:
    """Those images of an instances JSON that show enough of VOC's classes, with these as semantic ground truth.

    An image is taken if a region of one of the twenty classes has more pixels than `min_region_area`, by the JSON's own
    `area` (chosen: the paper selects "the images that have annotation regions larger than 1000 pixels and contain the
    classes defined in PASCAL VOC 2012"). Of the images taken every region of these classes counts, small ones and
    crowds too, painted from the largest to the smallest; other classes and the rest are background.

    Args:
        instances_json: of the official annotations; train2017 has the images of trainval minus minival of 2014.
        image_folder: images[].file_name is relative to it.
        image_statistics: mean and standard deviation of the images.
        min_region_area: in pixels.

    Raises:
        FileNotFoundError: the JSON or an image is missing.
        ValueError: the JSON lacks a class or the areas, or no image shows enough.
    """

    def __init__(
        self,
        instances_json: Path | str,
        image_folder: Path | str,
        image_statistics: ImageStatistics | None = None,
        *,
        min_region_area: int = 1000,
    ) -> None:
        self._coco = CocoInstances(instances_json, image_folder, image_statistics)
        self._path = Path(instances_json).expanduser()
        self.categories: list[Category] = list(SEMANTIC_CATEGORIES)
        self.image_statistics = self._coco.image_statistics
        self._class_of = _classes_by_coco_category(self._path, self._coco.categories)
        self._indices = [i for i in range(len(self._coco)) if self._largest_region(i) > min_region_area]
        if not self._indices:
            raise ValueError(
                f"no image of {self._path} has a region of more than {min_region_area} pixels of VOC's classes; use "
                "COCO's own annotations, or a smaller min_region_area"
            )

    @property
    def image_ids(self) -> list[int | str]:
        """COCO's ids of the images taken, in the order of the indices."""
        of_coco = self._coco.image_ids
        return [of_coco[index] for index in self._indices]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        sample = self._coco[self._indices[index]]
        assert sample.instances is not None, "CocoInstances has them"
        painted = paint_instances(self._of_voc(sample.instances))
        class_of_segment = np.zeros(1 + len(sample.instances.category_ids), dtype=np.uint8)
        for segment in painted.segments:
            class_of_segment[segment.id] = segment.category_id
        classes = class_of_segment[painted.segment_ids.numpy()]
        return replace(sample, panoptic_map=class_segments(classes, self._path), instances=None)

    def _of_voc(self, instances: Instances) -> Instances:
        """Instances of VOC's classes alone, with category ids of these."""
        pairs = [(row, self._class_of.get(i, 0)) for row, i in enumerate(instances.category_ids.tolist())]
        rows = [row for row, value in pairs if value]
        return Instances(
            instances.category_ids.new_tensor([value for _, value in pairs if value]),
            instances.masks[rows],
            instances.boxes[rows],
            instances.scores[rows],
            instances.is_crowd[rows],
        )

    def _largest_region(self, index: int) -> float:
        """Pixels of the largest region of a class of VOC in an image, 0 without any."""
        areas = [area for category_id, area in self._coco.regions(index) if category_id in self._class_of]
        return max(areas, default=0)


def _classes_by_coco_category(path: Path, categories: list[Category]) -> dict[int, int]:
    """{category id of COCO: value of the class in VOC}."""
    ids = {category.name: category.id for category in categories}
    names = {NAMES_IN_COCO.get(c.name, c.name): c.id for c in SEMANTIC_CATEGORIES if c.id > 0}
    lacking = sorted(set(names) - set(ids))
    if lacking:
        message = f"expected COCO's names of VOC's twenty classes in {path}, it lacks {lacking}"
        raise DataError(message, kind=Kind.CATEGORIES_DIFFER, file=path)
    return {ids[name]: value for name, value in names.items()}
