"""Which anchors and regions carry loss: not those on crowds, and of the others a seeded sample."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.ops import box_area

CROWD_SHARE = 0.5
"""Share of its area from which a box lies on a crowd (not stated in the papers; chosen)."""


def sample_balanced(
    labels: Tensor, numbers: BalancedPositiveNegativeSampler, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw positives and negatives as torchvision's sampler does, from a generator of their own.

    Args:
        labels: (T,), 1 or more is positive, 0 negative, -1 neither.
        numbers: how many to draw in all, and at most which share of them positive.
        generator: on the CPU, so that a seed gives the same on every device.

    Returns:
        positive: (P,) int64 indices in ascending order; all there are, or as many as the share allows.
        negative: (Q,) int64 indices in ascending order; all there are, or what is left of the number.
    """
    positive, negative = torch.where(labels >= 1)[0], torch.where(labels == 0)[0]  # device sync: once per image
    num_positive = min(len(positive), int(numbers.batch_size_per_image * numbers.positive_fraction))
    num_negative = min(len(negative), numbers.batch_size_per_image - num_positive)
    return _draw(positive, num_positive, generator), _draw(negative, num_negative, generator)


def _draw(indices: Tensor, count: int, generator: torch.Generator) -> Tensor:
    chosen = torch.randperm(len(indices), generator=generator)[:count].sort().values
    return indices[chosen.to(indices.device)]


def ignore_crowds(labels: Tensor, boxes: Tensor, crowd_boxes: Tensor) -> Tensor:
    """Labels without boxes that lie on a crowd, which nobody can call right or wrong.

    Args:
        labels: (T,), as `sample_balanced` reads them.
        boxes: (T, 4) of anchors or proposals, x1 y1 x2 y2 in pixels.
        crowd_boxes: (M, 4) of crowd regions.

    Returns:
        (T,), -1 where at least `CROWD_SHARE` of the box lies within one crowd box.
    """
    top_left = torch.maximum(boxes[:, None, :2], crowd_boxes[:, :2])  # (T, M, 2)
    bottom_right = torch.minimum(boxes[:, None, 2:], crowd_boxes[:, 2:])
    shared = (bottom_right - top_left).clamp(min=0).prod(dim=2)  # (T, M)
    on_crowd = (shared >= CROWD_SHARE * box_area(boxes)[:, None]).any(dim=1)
    return labels.masked_fill(on_crowd, -1)
