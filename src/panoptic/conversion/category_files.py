"""The user's own table of categories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from panoptic.data import panoptic_entries
from panoptic.structures import Category


def read_categories(path: Path | str, option: str) -> list[Category]:
    """Read categories as a panoptic JSON lists them: `id`, `name`, `isthing`, and `supercategory`, `color` if known.

    Args:
        path: a JSON with that list, or with an object that has it as `categories`, such as a panoptic JSON.
        option: that gave the path, for errors.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, an entry that lacks a key, an id or a name that occurs twice.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"{option}={path}: no such file; expected a JSON with a list of categories")
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"expected JSON in {file}, got: {error}") from error
    if isinstance(content, list):
        content = {"categories": content}
    if not isinstance(content, dict):
        raise ValueError(f"expected a list of categories in {file}, got {type(content).__name__}")
    return panoptic_entries.read_categories(file, content)


def dataset_ids(categories: Sequence[Category]) -> list[int]:
    """The ids that files have, by category id."""
    return [c.id if c.dataset_category_id is None else c.dataset_category_id for c in categories]
