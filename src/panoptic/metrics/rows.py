"""Per-category arrays as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from panoptic.structures import Category


def category_rows(categories: Sequence[Category], columns: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """One dict per category: `category_id`, `name`, `is_thing` and a Python number of every column.

    Args:
        categories: C of them.
        columns: {name: (C,) of any type}.
    """
    numbers = {name: values.tolist() for name, values in columns.items()}
    return [
        {"category_id": category.id, "name": category.name, "is_thing": category.is_thing}
        | {name: values[category.id] for name, values in numbers.items()}
        for category in categories
    ]


def join_category_rows(
    quality: Sequence[Mapping[str, Any]], covering: Sequence[Mapping[str, Any]], semantic: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One row per category out of what the three metrics' `per_category` give.

    Args:
        quality: of `PanopticQuality`; all its columns are kept, so `tp`, `fp` and `fn` are segments.
        covering: of `ParsingCovering`; adds `pc`.
        semantic: of `SemanticIoU`; adds its IoU as `semantic_iou`.

    Raises:
        ValueError: the rows are not of the same categories in the same order.
    """
    names = [[row["name"] for row in rows] for rows in (quality, covering, semantic)]
    if names[1] != names[0] or names[2] != names[0]:
        raise ValueError(f"expected rows of the same categories, got {names}; give every metric one category list")
    return [{**q, "pc": c["pc"], "semantic_iou": s["iou"]} for q, c, s in zip(quality, covering, semantic, strict=True)]
