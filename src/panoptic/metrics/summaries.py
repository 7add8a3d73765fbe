"""From sums over images to the numbers that are reported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from panoptic.metrics.functional import (
    CategorySums,
    mean_over_categories,
    panoptic_quality,
    parsing_covering,
    semantic_iou,
)
from panoptic.metrics.rows import category_rows
from panoptic.structures import Category


def quality_means(total: CategorySums, categories: Sequence[Category]) -> dict[str, Tensor]:
    """Means over categories with a segment: `pq`, `sq`, `rq`, each also with `_things` and `_stuff`.

    float64 scalars in [0, 1]; nan where there is no such category.
    """
    means: dict[str, Tensor] = {}
    for name, values in zip(("pq", "sq", "rq"), panoptic_quality(*total.matches), strict=True):
        means[name], means[f"{name}_things"], means[f"{name}_stuff"] = mean_over_categories(values, categories)
    return means


def quality_rows(total: CategorySums, categories: Sequence[Category]) -> list[dict[str, Any]]:
    """One row per category: `pq`, `sq`, `rq` (nan without any segment), `iou` (sum over matches), `tp`, `fp`, `fn`."""
    iou, tp, fp, fn = total.matches
    pq, sq, rq = panoptic_quality(iou, tp, fp, fn)
    return category_rows(categories, {"pq": pq, "sq": sq, "rq": rq, "iou": iou, "tp": tp, "fp": fp, "fn": fn})


def _covered_and_area(total: CategorySums, normalize_by_image_size: bool) -> tuple[Tensor, Tensor]:
    """(C,) each, in shares of images or in pixels."""
    return total.normalized_covering if normalize_by_image_size else total.covering


def covering_means(
    total: CategorySums, categories: Sequence[Category], *, normalize_by_image_size: bool = False
) -> dict[str, Tensor]:
    """Means over categories with target area: `pc`, `pc_things`, `pc_stuff`.

    float64 scalars in [0, 1]; nan where there is no such category.
    """
    covering = parsing_covering(*_covered_and_area(total, normalize_by_image_size))
    return dict(zip(("pc", "pc_things", "pc_stuff"), mean_over_categories(covering, categories), strict=True))


def covering_rows(
    total: CategorySums, categories: Sequence[Category], *, normalize_by_image_size: bool = False
) -> list[dict[str, Any]]:
    """One row per category: `pc` (nan without target area), `covered` and `area`, in pixels or shares of images."""
    covered, area = _covered_and_area(total, normalize_by_image_size)
    return category_rows(categories, {"pc": parsing_covering(covered, area), "covered": covered, "area": area})


def semantic_means(total: CategorySums) -> dict[str, Tensor]:
    """`miou`: mean over categories in either map, a float64 scalar in [0, 1]; nan where there is none."""
    return {"miou": semantic_iou(*total.pixels).nanmean()}


def semantic_rows(total: CategorySums, categories: Sequence[Category]) -> list[dict[str, Any]]:
    """One row per category: `iou` (nan for a category in neither map), `tp`, `fp`, `fn` in pixels."""
    tp, fp, fn = total.pixels
    return category_rows(categories, {"iou": semantic_iou(tp, fp, fn), "tp": tp, "fp": fp, "fn": fn})
