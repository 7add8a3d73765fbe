"""Parsing covering as a metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from panoptic.metrics.functional import CategorySums, mean_over_categories, parsing_covering
from panoptic.metrics.overlap_metric import OverlapMetric
from panoptic.metrics.rows import category_rows
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
        covering = parsing_covering(*self._covered_and_area(CategorySums(self.counts, self.sums)))
        means = mean_over_categories(covering, self.categories)
        return dict(zip(("pc", "pc_things", "pc_stuff"), means, strict=True))

    def per_category(self) -> list[dict[str, Any]]:
        """One row per category: `pc` (nan without target area), `covered` and `area`, in pixels or shares of images.

        With several processes all of them must call it.
        """
        with self.synced_sums() as total:
            covered, area = self._covered_and_area(total)
            columns = {"pc": parsing_covering(covered, area), "covered": covered, "area": area}
            return category_rows(self.categories, columns)

    def _covered_and_area(self, total: CategorySums) -> tuple[Tensor, Tensor]:
        """(C,) each, in the unit that was chosen."""
        return total.normalized_covering if self.normalize_by_image_size else total.covering
