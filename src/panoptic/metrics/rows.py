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
