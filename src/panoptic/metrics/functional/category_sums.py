"""What one image adds to every metric, per category; images are added up, processes too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from panoptic.metrics.functional.overlaps import count_overlaps
from panoptic.metrics.functional.panoptic_quality import match_segments
from panoptic.metrics.functional.parsing_covering import cover_segments
from panoptic.metrics.functional.semantic_iou import count_pixels
from panoptic.structures import Category, PanopticMap


@dataclass(frozen=True, eq=False)
class CategorySums:
    """Sums over images, from which PQ, PC and mIoU are ratios.

    Args:
        counts: (7, C) int64; matched, unmatched predicted and unmatched target segments (tp, fp, fn), target area,
            right, wrongly predicted and missed pixels.
        sums: (4, C) float64; IoU of matches, covered area, and covered and target area as shares of their image.
    """

    counts: Tensor
    sums: Tensor

    @staticmethod
    def zeros(num_categories: int) -> CategorySums:
        """No image yet."""
        return CategorySums(
            counts=torch.zeros(7, num_categories, dtype=torch.int64),
            sums=torch.zeros(4, num_categories, dtype=torch.float64),
        )

    def __add__(self, other: CategorySums) -> CategorySums:
        return CategorySums(self.counts + other.counts, self.sums + other.sums)

    def to(self, device: torch.device | str) -> CategorySums:
        """The same sums on `device`."""
        return CategorySums(self.counts.to(device), self.sums.to(device))

    @property
    def matches(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(C,) each: sum of IoU, tp, fp, fn of segments."""
        return self.sums[0], self.counts[0], self.counts[1], self.counts[2]

    @property
    def covering(self) -> tuple[Tensor, Tensor]:
        """(C,) each: covered area and target area in pixels."""
        return self.sums[1], self.counts[3]

    @property
    def normalized_covering(self) -> tuple[Tensor, Tensor]:
        """(C,) each: covered area and target area as shares of their image."""
        return self.sums[2], self.sums[3]

    @property
    def pixels(self) -> tuple[Tensor, Tensor, Tensor]:
        """(C,) each: tp, fp, fn of pixels."""
        return self.counts[4], self.counts[5], self.counts[6]


def sum_image(prediction: PanopticMap, target: PanopticMap, *, num_categories: int) -> CategorySums:
    """What one image adds, on the device of its maps.

    Args:
        prediction: (H, W) map.
        target: (H, W) map.
        num_categories: C; category ids are 0..C-1.

    Raises:
        ValueError: the sizes or the devices differ, or a segment's category id is not 0..C-1.
    """
    overlaps = count_overlaps(prediction, target, num_categories=num_categories)
    iou, matches = match_segments(overlaps, num_categories=num_categories)
    covered, area = cover_segments(overlaps, num_categories=num_categories)
    pixels = count_pixels(overlaps, num_categories=num_categories)
    size = target.segment_ids.numel()
    return CategorySums(
        counts=torch.cat([matches, area[None], pixels]),
        sums=torch.stack([iou, covered, covered / size, area.double() / size]),
    )


def mean_over_categories(values: Tensor, categories: Sequence[Category]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean over all categories, over things and over stuff.

    Args:
        values: (C,) float64; nan where a category does not take part.
        categories: C of them.

    Returns:
        three float64 scalars; nan where no category takes part.
    """
    is_thing = torch.tensor([category.is_thing for category in categories], device=values.device)
    return values.nanmean(), values[is_thing].nanmean(), values[~is_thing].nanmean()
