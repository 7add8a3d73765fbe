"""Parsing covering as a metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from panoptic.metrics.overlap_metric import OverlapMetric
from panoptic.metrics.summaries import covering_means, covering_rows
from panoptic.structures import Category


class ParsingCovering(OverlapMetric):
    """Parsing covering (DeeperLab, Sec. 3.5): how well the best prediction covers each target segment, by area.

    Args:
        categories: C of them; the same list for predictions and targets.
        normalize_by_image_size: weigh a segment by its share of its image instead of its pixels, as the authors'
            published numbers do; the paper's formula (False) does not.
    """

    def __init__(self, categories: Sequence[Category], normalize_by_image_size: bool = False) -> None:
        super().__init__(categories)
        self.normalize_by_image_size = normalize_by_image_size

    def compute(self) -> dict[str, Tensor]:
        """Means over categories with target area: `pc`, `pc_things`, `pc_stuff`.

        float64 scalars in [0, 1]; nan where there is no such category.
        """
        return covering_means(self.total, self.categories, normalize_by_image_size=self.normalize_by_image_size)

    def per_category(self) -> list[dict[str, Any]]:
        """One row per category: `pc` (nan without target area), `covered` and `area`, in pixels or shares of images.

        With several processes all of them must call it.
        """
        with self.synced_total() as total:
            return covering_rows(total, self.categories, normalize_by_image_size=self.normalize_by_image_size)
