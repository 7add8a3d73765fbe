"""Losses of the keypoint heads (DeeperLab, Sec. 3.3.2). Each is a mean per image; the caller averages over images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def heatmap_loss(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Sigmoid cross entropy of one image's keypoint heatmap, mean over valid pixels and keypoint kinds.

    Args:
        logits: (P, H, W) before the sigmoid.
        target: (P, H, W) float, 1 inside the disks.
        valid: (H, W) bool, False on void and crowd.

    Returns:
        A scalar; 0 with a gradient of 0 when no pixel is valid.
    """
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * valid
    return losses.sum() / (valid.sum() * logits.shape[0]).clamp(min=1)


def offset_loss(offsets: Tensor, target: Tensor, active: Tensor) -> Tensor:
    """L1 distance |dy| + |dx| of one image's offsets, mean over active (pixel, keypoint) pairs.

    Args:
        offsets: (K, 2, H, W), (dy, dx) in pixels of the network's input; K keypoint kinds or edges.
        target: (K, 2, H, W), in the same unit.
        active: (K, H, W) or (H, W) bool, where the loss applies.

    Returns:
        A scalar; 0 with a gradient of 0 when nothing is active (an image without instances).
    """
    active = active.expand(offsets.shape[0], *offsets.shape[-2:])
    distances = (offsets - target).abs().sum(dim=1)  # (K, H, W)
    return (distances * active).sum() / active.sum().clamp(min=1)
