"""Cross entropy over pixels: of all of them, or of the hardest (DeeperLab, Sec. 3.3.1, Eq. 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from panoptic.structures import IGNORE_INDEX


def pixel_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Softmax cross entropy over the labelled pixels of each image, averaged over images.

    Args:
        logits: (B, C, H, W).
        target: (B, H, W) integer category ids, `IGNORE_INDEX` on pixels without loss.

    Returns:
        A scalar in fp32; an image without labelled pixels adds 0, with a gradient of 0.
    """
    target = target.long()
    losses = F.cross_entropy(logits.float(), target, ignore_index=IGNORE_INDEX, reduction="none")  # (B, H, W)
    labelled = (target != IGNORE_INDEX).flatten(1).sum(1)
    return (losses.flatten(1).sum(1) / labelled.clamp(min=1)).mean()


def bootstrapped_cross_entropy(
    logits: Tensor, target: Tensor, small_instances: Tensor, *, hard_pixel_fraction: float, small_instance_weight: float
) -> Tensor:
    """Weighted cross entropy over the K hardest pixels of each image, averaged over images (Eq. 1).

    The K = floor(`hard_pixel_fraction` * N) pixels (at least one) with the highest unweighted loss are selected among
    the N labelled pixels of their image; their losses are weighted and summed, and the sum is divided by K.

    Args:
        logits: (B, C, H, W).
        target: (B, H, W) integer category ids, `IGNORE_INDEX` on pixels without loss (leaving them out of N is chosen;
            the paper does not say).
        small_instances: (B, H, W) bool, pixels of small instances.
        hard_pixel_fraction: in (0, 1]; 0.15 in the paper, 1 selects every pixel (HPM off in Table 5).
        small_instance_weight: w_i of `small_instances`; 3 in the paper, 1 switches it off (SI off in Table 5).

    Returns:
        A scalar in fp32; an image without labelled pixels adds 0.

    Raises:
        ValueError: a fraction outside (0, 1].
    """
    if not 0 < hard_pixel_fraction <= 1:
        raise ValueError(f"expected hard_pixel_fraction in (0, 1], got {hard_pixel_fraction}")
    target = target.long()
    losses = F.cross_entropy(logits.float(), target, ignore_index=IGNORE_INDEX, reduction="none")  # (B, H, W)
    weights = torch.where(small_instances, small_instance_weight, 1.0)
    per_image = [
        _hardest_mean(loss[valid], weight[valid], hard_pixel_fraction)
        for loss, weight, valid in zip(losses, weights, target != IGNORE_INDEX, strict=True)
    ]
    return torch.stack(per_image).mean()


def _hardest_mean(losses: Tensor, weights: Tensor, fraction: float) -> Tensor:
    """Mean of weights * losses over the hardest `fraction` of (N,) losses; 0, with a gradient of 0, for N = 0."""
    if losses.numel() == 0:
        return losses.sum()
    if fraction == 1:
        return (weights * losses).mean()
    count = max(1, int(fraction * losses.numel()))
    hardest, chosen = losses.topk(count, sorted=False)
    return (weights[chosen] * hardest).sum() / count
