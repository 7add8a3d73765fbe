"""The vocabulary of the package: categories, segments, panoptic maps, samples, batches, features, keypoint graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

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


@dataclass(frozen=True, eq=False)
class Instances:
    """Instance masks that may overlap (amodal masks, detections), of one image.

    Args:
        category_ids: (N,) int64, contiguous ids of things.
        masks: (N, H, W) bool.
        boxes: (N, 4) float, x1 y1 x2 y2 in pixels, x2 and y2 exclusive.
        scores: (N,) float in [0, 1]; 1 for ground truth.
        is_crowd: (N,) bool.
    """

    category_ids: Tensor
    masks: Tensor
    boxes: Tensor
    scores: Tensor
    is_crowd: Tensor

    def __post_init__(self) -> None:
        count = len(self.category_ids)
        lengths = {name: len(getattr(self, name)) for name in ("masks", "boxes", "scores", "is_crowd")}
        if any(length != count for length in lengths.values()):
            raise ValueError(f"expected {count} of each, one per category id, got {lengths}")
        if self.masks.ndim != 3 or self.masks.dtype != torch.bool:
            raise ValueError(f"expected masks (N, H, W) bool, got {tuple(self.masks.shape)} {self.masks.dtype}")
        if self.boxes.shape != (count, 4):
            raise ValueError(f"expected boxes of shape ({count}, 4), got {tuple(self.boxes.shape)}")


@dataclass(eq=False)
class Sample:
    """One image with its ground truth.

    Args:
        image: (3, H, W) uint8, RGB.
        image_id: the data set's id of the image, as its files give it.
        file_name: as the data set's own files give it, with folders; predictions are named after it. Drawn images get
            a made-up name.
        panoptic_map: ground truth of the same size; None for images that are only predicted.
        instances: overlapping masks of the same size, where the data set has them.
        original_size: (H, W) in pixels before any transform.
    """

    image: Tensor
    image_id: int | str
    file_name: str
    panoptic_map: PanopticMap | None
    instances: Instances | None
    original_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return int(self.image.shape[-2]), int(self.image.shape[-1])


@dataclass(frozen=True)
class ImageStatistics:
    """Mean and standard deviation per colour channel, of pixel values in [0, 1]; ImageNet's by default."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class SizeRule:
    """Image sizes a network takes: `multiple * k + remainder` pixels, each side (16k + 1 for DeeperLab, Sec. 4)."""

    multiple: int = 1
    remainder: int = 0

    def pad(self, height: int, width: int) -> tuple[int, int]:
        """The smallest allowed size that holds (height, width)."""
        padded = [side + (self.remainder - side) % self.multiple for side in (height, width)]
        return padded[0], padded[1]


@dataclass(eq=False)
class Batch:
    """Samples brought to one size.

    Args:
        images: (B, 3, H, W) uint8, padded at the bottom and right.
        image_sizes: (h, w) of each image before padding.
        targets: {head: one target per image}, what each head's `encode` returned.
        samples: the images as the network sees them, with ground truth of that size, for pictures and names.
        truths: the untouched ground truth of each image at its original size, for metrics; empty in training.
    """

    images: Tensor
    image_sizes: list[tuple[int, int]]
    targets: dict[str, list[Any]]
    samples: list[Sample]
    truths: list[PanopticMap] = field(default_factory=list)

    @property
    def padded_size(self) -> tuple[int, int]:
        """(H, W) of `images` in pixels."""
        return int(self.images.shape[-2]), int(self.images.shape[-1])


@dataclass(eq=False)
class Features:
    """What heads read.

    Args:
        levels: {"c2".."c5", "p2".."p6", "decoder": (B, D, h, w)}; at output stride 16 two levels share one stride.
        image_sizes: (h, w) of each image before padding, in pixels of the network's input.
        padded_size: (H, W) of the network's input.
    """

    levels: dict[str, Tensor]
    image_sizes: list[tuple[int, int]]
    padded_size: tuple[int, int]


@dataclass(frozen=True)
class KeypointGraph:
    """Keypoints of an instance and the directed edges along which middle-range offsets point (DeeperLab, Sec. 3.3.2).

    Args:
        name: "star" or "rectangle".
        keypoints: names of the P keypoint kinds, out of `top_left, top_right, bottom_right, bottom_left, centre`.
        edges: E directed edges (source, target), indices into `keypoints`.
    """

    name: str
    keypoints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]


STAR = KeypointGraph(
    name="star",
    keypoints=("top_left", "top_right", "bottom_right", "bottom_left", "centre"),
    edges=((4, 0), (4, 1), (4, 2), (4, 3), (0, 4), (1, 4), (2, 4), (3, 4)),
)
"""The mass centre joined with each corner, both ways: P = 5, E = 8 (DeeperLab, Fig. 4d)."""

RECTANGLE = KeypointGraph(
    name="rectangle",
    keypoints=("top_left", "top_right", "bottom_right", "bottom_left"),
    edges=((0, 1), (1, 2), (2, 3), (3, 0), (1, 0), (2, 1), (3, 2), (0, 3)),
)
"""The corners around the box, both ways, without the centre: P = 4, E = 8 (DeeperLab, Table 6)."""


@dataclass(frozen=True, eq=False)
class FusionResult:
    """What a fusion makes of one image's outputs.

    Args:
        panoptic_map: the prediction.
        semantic_map: (H, W) int64 category ids; the network's own, or refined by the fusion.
        instances: detections or refined masks that may overlap; None for fusions that make none.
    """

    panoptic_map: PanopticMap
    semantic_map: Tensor
    instances: Instances | None = field(default=None)
