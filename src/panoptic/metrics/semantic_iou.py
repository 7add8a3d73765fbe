"""Semantic IoU as a metric."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from panoptic.metrics.functional import CategorySums, semantic_iou
from panoptic.metrics.overlap_metric import OverlapMetric
from panoptic.metrics.rows import category_rows


class SemanticIoU(OverlapMetric):
    """Intersection over union of the categories of panoptic maps; void targets are dropped, crowd keeps its category.

    Args:
        categories: C of them; the same list for predictions and targets.
    """

    def compute(self) -> dict[str, Tensor]:
        """`miou`: mean over categories in either map, a float64 scalar in [0, 1]; nan where there is none."""
        return {"miou": semantic_iou(*CategorySums(self.counts, self.sums).pixels).nanmean()}

    def per_category(self) -> list[dict[str, Any]]:
        """One row per category: `iou` (nan for a category in neither map), `tp`, `fp`, `fn` in pixels.

        With several processes all of them must call it.
        """
        with self.synced_sums() as total:
            tp, fp, fn = total.pixels
            return category_rows(self.categories, {"iou": semantic_iou(tp, fp, fn), "tp": tp, "fp": fp, "fn": fn})
