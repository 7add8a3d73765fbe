"""Loss of the spatial ranking module (OANet, Sec. 3.2, Eq. 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from panoptic.losses.cross_entropy import pixel_cross_entropy
from panoptic.structures import IGNORE_INDEX


def ranking_loss(logits: Tensor, class_masks: Tensor, target: Tensor) -> Tensor:
    """Cross entropy against the class that is on top, on pixels where classes are in conflict (Eq. 2, Fig. 4).

    Pixels of fewer than two classes carry no loss (instances of one class have one channel, which cannot rank them),
    nor do pixels on which no thing is on top.

    Args:
        logits: (T, H, W), one channel per thing category.
        class_masks: (T, H, W) bool, where each thing category has an instance.
        target: (H, W) integer channels of the panoptic ground truth, `IGNORE_INDEX` where it has no thing.

    Returns:
        A scalar, the mean over those pixels; 0 with a gradient of 0 where there is none.
    """
    in_conflict = class_masks.sum(0) >= 2
    return pixel_cross_entropy(logits[None], torch.where(in_conflict, target.long(), IGNORE_INDEX)[None])
