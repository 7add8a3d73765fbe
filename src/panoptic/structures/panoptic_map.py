"""Categories, segments and panoptic maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from panoptic.id_lookup import first_unlisted_id

VOID = 0
"""Segment id of unlabelled pixels in a panoptic map."""

IGNORE_INDEX = 255
"""Category id of pixels without a label in semantic targets."""

MAX_SEGMENT_ID = 2**24 - 1
"""Largest segment id that COCO's three-channel PNG can hold."""


@dataclass(frozen=True)
class Category:
    """One class of a data set.

    Args:
        id: contiguous, 0..C-1; the index of every per-category array and channel.
        name: shown in tables and legends.
        is_thing: countable (True) or stuff (False).
        group: the super-category, such as "vehicle"; None where the data set has none.
        colour: (red, green, blue), each 0..255; None lets the pictures choose one.
        dataset_category_id: the data set's own id, used only where files are read and written; None means `id`.
    """

    id: int
    name: str
    is_thing: bool
    group: str | None = None
    colour: tuple[int, int, int] | None = None
    dataset_category_id: int | None = None


def check_categories(categories: Sequence[Category]) -> None:
    """Raise ValueError unless ids are 0..C-1 in order, names are unique and C is at most 255."""
    ids = [category.id for category in categories]
    if ids != list(range(len(categories))):
        raise ValueError(f"expected category ids 0..{len(categories) - 1} in order, got {ids}; renumber the categories")
    if not 0 < len(categories) <= IGNORE_INDEX:
        raise ValueError(f"expected 1 to {IGNORE_INDEX} categories, got {len(categories)}")
    names = [category.name for category in categories]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"category names must be unique, but {repeated} occur more than once")


@dataclass(frozen=True)
class Segment:
    """One region of one image; whether it is a thing, its category says.

    Args:
        id: 1..2^24 - 1, unique within its image.
        category_id: contiguous id of its `Category`.
        is_crowd: a group that was not separated; ignored by the metrics when unmatched.
        score: confidence in [0, 1] of a predicted segment, None for ground truth.
        area: pixels, None where nobody counted.
    """

    id: int
    category_id: int
    is_crowd: bool = False
    score: float | None = None
    area: int | None = None


@dataclass(frozen=True, eq=False)
class PanopticMap:
    """A segment for every pixel: an id map and the table of its segments. Checks itself on construction.

    Args:
        segment_ids: (H, W) int64, 0 (`VOID`) is unlabelled, every other id has one entry in `segments`.
        segments: one entry per id; an entry without a pixel is allowed (and counts, see `metrics`).

    Raises:
        TypeError: `segment_ids` is not an int64 tensor.
        ValueError: not two-dimensional, an id twice or outside 1..2^24 - 1, an id of the map without entry.
    """

    segment_ids: Tensor
    segments: tuple[Segment, ...]

    def __init__(self, segment_ids: Tensor, segments: Sequence[Segment]) -> None:
        object.__setattr__(self, "segment_ids", segment_ids)
        object.__setattr__(self, "segments", tuple(segments))
        self._check()

    def _check(self) -> None:
        if not isinstance(self.segment_ids, Tensor) or self.segment_ids.dtype != torch.int64:
            came = self.segment_ids.dtype if isinstance(self.segment_ids, Tensor) else type(self.segment_ids).__name__
            raise TypeError(f"expected segment_ids as an int64 tensor, got {came}; convert it with .long()")
        if self.segment_ids.ndim != 2 or self.segment_ids.numel() == 0:
            raise ValueError(f"expected segment_ids of shape (H, W), not empty, got {tuple(self.segment_ids.shape)}")
        ids = [segment.id for segment in self.segments]
        if len(set(ids)) != len(ids):
            repeated = sorted({i for i in ids if ids.count(i) > 1})
            raise ValueError(f"segment ids must be unique, but the table lists {repeated} more than once")
        if ids and not 0 < min(ids) <= max(ids) <= MAX_SEGMENT_ID:
            raise ValueError(f"segment ids must be 1..{MAX_SEGMENT_ID}, got {min(ids)}..{max(ids)}")
        unlisted = first_unlisted_id(self.segment_ids, ids)
        if unlisted is not None:
            raise ValueError(
                f"id {unlisted} is in the map but not among its {len(ids)} segments; add its segment or set it to 0"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        height, width = self.segment_ids.shape
        return height, width

    def to(self, device: torch.device | str) -> PanopticMap:
        """The same map with its ids on `device`; the checks are not repeated."""
        moved = object.__new__(PanopticMap)
        object.__setattr__(moved, "segment_ids", self.segment_ids.to(device))
        object.__setattr__(moved, "segments", self.segments)
        return moved
