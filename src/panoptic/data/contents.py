"""What a data set holds: pixels, instances and sizes, summed over images one at a time."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from panoptic.data.extents import measure_segments
from panoptic.structures import Category, Sample

KEPT_CROWDED = 64
"""So many of the images with the most instances are remembered, however many images there are."""


@dataclass(frozen=True)
class ImageContents:
    """What one image holds, in plain numbers.

    Args:
        index: of the sample.
        file_name: as the sample has it.
        size: (H, W) in pixels.
        pixels: {category_id: pixels}, of those that the image has.
        instances: {category_id: number} of things that are no crowd; the data set's own instances where it has them.
        crowds: number of crowds.
        has_truth: False for images that are only to be predicted.
    """

    index: int
    file_name: str
    size: tuple[int, int]
    pixels: dict[int, int]
    instances: dict[int, int]
    crowds: int
    has_truth: bool


def contents_of(sample: Sample, index: int, categories: Sequence[Category]) -> ImageContents:
    """Count pixels and instances of one sample."""
    pixels: Counter[int] = Counter()
    instances: Counter[int] = Counter()
    crowds = 0
    segments = () if sample.panoptic_map is None else sample.panoptic_map.segments
    if sample.panoptic_map is not None:
        ids = sample.panoptic_map.segment_ids.numpy()
        areas = measure_segments(ids, [segment.id for segment in segments]).areas.tolist()
        for segment, area in zip(segments, areas, strict=True):
            pixels[segment.category_id] += area
    if sample.instances is not None:
        instances.update(sample.instances.category_ids[~sample.instances.is_crowd].tolist())
        crowds = int(sample.instances.is_crowd.sum())
    else:
        things = [segment for segment in segments if categories[segment.category_id].is_thing]
        instances.update(segment.category_id for segment in things if not segment.is_crowd)
        crowds = sum(segment.is_crowd for segment in things)
    return ImageContents(
        index=index,
        file_name=sample.file_name,
        size=sample.size,
        pixels=dict(+pixels),
        instances=dict(instances),
        crowds=crowds,
        has_truth=sample.panoptic_map is not None,
    )


class SplitContents:
    """Sums over images, of constant size for any number of them.

    Args:
        categories: of the data set, C of them.
    """

    def __init__(self, categories: Sequence[Category]) -> None:
        self.categories = list(categories)
        self.pixels = np.zeros(len(categories), dtype=np.int64)
        """(C,) of each category."""
        self.images = np.zeros(len(categories), dtype=np.int64)
        """(C,) images with a pixel of each category."""
        self.instances = np.zeros(len(categories), dtype=np.int64)
        """(C,) instances of each category that are no crowd."""
        self.num_images = 0
        self.crowds = 0
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._labelled_area = 0
        self._per_image: Counter[int] = Counter()
        self._most_pixels = [(0, -1)] * len(categories)  # of each category, (pixels, index) of one image
        self._crowded: list[tuple[int, int]] = []  # a heap of (instances, -index)

    def add(self, image: ImageContents, *, is_example: bool = True) -> None:
        """Count one image.

        Args:
            image: to count.
            is_example: it may be named as an example, because it has no fault.
        """
        self.num_images += 1
        self._sizes[image.size] += 1
        if not image.has_truth:
            return
        self._labelled_area += image.size[0] * image.size[1]
        self.crowds += image.crowds
        for category_id, pixels in image.pixels.items():
            self.pixels[category_id] += pixels
            self.images[category_id] += 1
            if is_example and pixels > self._most_pixels[category_id][0]:
                self._most_pixels[category_id] = (pixels, image.index)
        for category_id, number in image.instances.items():
            self.instances[category_id] += number
        total = sum(image.instances.values())
        self._per_image[total] += 1
        if is_example and total:
            push = heapq.heappush if len(self._crowded) < KEPT_CROWDED else heapq.heappushpop
            push(self._crowded, (total, -image.index))

    @property
    def num_labelled(self) -> int:
        """Images with ground truth."""
        return self._per_image.total()

    def rarest(self, count: int) -> list[tuple[Category, int]]:
        """The categories with the fewest pixels, rarest first, each with the index of the image that has most of it."""
        occurring = [c for c in self.categories if self._most_pixels[c.id][1] >= 0]
        ordered = sorted(occurring, key=lambda category: (self.pixels[category.id], category.id))
        return [(category, self._most_pixels[category.id][1]) for category in ordered[:count]]

    def most_crowded(self, count: int) -> list[tuple[int, int]]:
        """(number of instances, index) of the images with the most, most first; at most `KEPT_CROWDED`."""
        return [(total, -index) for total, index in heapq.nlargest(count, self._crowded)]

    def as_dict(self) -> dict[str, Any]:
        """The sums for machines; shares are of the pixels of images with ground truth, null where there are none."""
        area = self._labelled_area
        labelled = int(self.pixels.sum())
        rows = [
            {
                "name": category.name,
                "is_thing": category.is_thing,
                "pixels": int(self.pixels[category.id]),
                "share": int(self.pixels[category.id]) / area if area else None,
                "images": int(self.images[category.id]),
                "instances": int(self.instances[category.id]) if category.is_thing else None,
            }
            for category in self.categories
        ]
        counts = sorted(self._per_image.elements())
        return {
            "images_read": self.num_images,
            "images_with_truth": self.num_labelled,
            "void_share": (area - labelled) / area if area else None,
            "instances": int(self.instances.sum()),
            "crowds": self.crowds,
            "instances_per_image": {
                "min": counts[0],
                "median": float(np.median(counts)),
                "max": counts[-1],
            }
            if counts
            else None,
            "sizes": [{"height": h, "width": w, "images": n} for (h, w), n in self._sizes.most_common()],
            "categories": rows,
        }
