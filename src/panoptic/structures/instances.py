"""Instances of one image: with masks of the whole image, and as a network detects them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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


@dataclass(frozen=True, eq=False)
class Detections:
    """What an instance head found in one image: masks as probabilities on a grid over each box.

    Args:
        category_ids: (N,) int64, contiguous ids of things.
        boxes: (N, 4) float, x1 y1 x2 y2 in pixels of the network's input.
        scores: (N,) float in [0, 1].
        masks: N tensors (m, n) of probabilities; cells divide the box evenly, whatever its size: (N, M, M) will do.
        image_size: (h, w) of the network's input without padding, in pixels.

    Raises:
        ValueError: unequal numbers, or boxes of another shape.
    """

    category_ids: Tensor
    boxes: Tensor
    scores: Tensor
    masks: Sequence[Tensor] | Tensor
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        count = len(self.category_ids)
        lengths = {name: len(getattr(self, name)) for name in ("boxes", "scores", "masks")}
        if any(length != count for length in lengths.values()):
            raise ValueError(f"expected {count} of each, one per category id, got {lengths}")
        if self.boxes.shape != (count, 4):
            raise ValueError(f"expected boxes of shape ({count}, 4), got {tuple(self.boxes.shape)}")

    def __len__(self) -> int:
        return len(self.category_ids)
