"""Semantic IoU as a metric."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from panoptic.metrics.overlap_metric import OverlapMetric
from panoptic.metrics.summaries import semantic_means, semantic_rows


class SemanticIoU(OverlapMetric):
    """Intersection over union of the categories of panoptic maps; void targets are dropped, crowd keeps its category.

    Args:
        categories: C of them; the same list for predictions and targets.
    """

    def compute(self) -> dict[str, Tensor]:
        """`miou`: mean over categories in either map, a float64 scalar in [0, 1]; nan where there is none."""
        return semantic_means(self.total)

    def per_category(self) -> list[dict[str, Any]]:
        """One row per category: `iou` (nan for a category in neither map), `tp`, `fp`, `fn` in pixels.

        With several processes all of them must call it.
        """
        with self.synced_total() as total:
            return semantic_rows(total, self.categories)
