"""Panoptic quality as a metric."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from panoptic.metrics.functional import CategorySums, mean_over_categories, panoptic_quality
from panoptic.metrics.overlap_metric import OverlapMetric
from panoptic.metrics.rows import category_rows


class PanopticQuality(OverlapMetric):
    """Panoptic quality, COCO's official definition: void and crowd count as in panopticapi.

    Args:
        categories: C of them; the same list for predictions and targets.

    Example:
        >>> metric = PanopticQuality(categories)
        >>> metric.update(prediction, target)
        >>> metric.compute()["pq"]
    """

    def compute(self) -> dict[str, Tensor]:
        """Means over categories with a segment: `pq`, `sq`, `rq`, each also with `_things` and `_stuff`.

        float64 scalars in [0, 1]; nan where there is no such category.
        """
        matches = CategorySums(self.counts, self.sums).matches
        means: dict[str, Tensor] = {}
        for name, values in zip(("pq", "sq", "rq"), panoptic_quality(*matches), strict=True):
            means[name], means[f"{name}_things"], means[f"{name}_stuff"] = mean_over_categories(values, self.categories)
        return means

    def per_category(self) -> list[dict[str, Any]]:
        """One row per category: `pq`, `sq`, `rq` (nan without any segment), `iou` (sum over matches), `tp`, `fp`, `fn`.

        With several processes all of them must call it.
        """
        with self.synced_sums() as total:
            iou, tp, fp, fn = total.matches
            pq, sq, rq = panoptic_quality(iou, tp, fp, fn)
            columns = {"pq": pq, "sq": sq, "rq": rq, "iou": iou, "tp": tp, "fp": fp, "fn": fn}
            return category_rows(self.categories, columns)
