"""Panoptic quality as a metric."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from panoptic.metrics.overlap_metric import OverlapMetric
from panoptic.metrics.summaries import quality_means, quality_rows


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
        return quality_means(self.total, self.categories)

    def per_category(self) -> list[dict[str, Any]]:
        """One row per category: `pq`, `sq`, `rq` (nan without any segment), `iou` (sum over matches), `tp`, `fp`, `fn`.

        With several processes all of them must call it.
        """
        with self.synced_total() as total:
            return quality_rows(total, self.categories)
