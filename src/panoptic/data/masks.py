"""Stacks of instance masks and their boxes."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def stack_masks(masks: Sequence[NDArray[np.uint8]], size: tuple[int, int]) -> Tensor:
    """(N, H, W) bool from N masks of `size` (H, W); N may be 0."""
    stacked = np.stack(masks).astype(bool) if len(masks) else np.zeros((0, *size), dtype=bool)
    return torch.from_numpy(stacked)


def mask_boxes(masks: Tensor) -> Tensor:
    """Boxes of masks: (N, 4) float, x1 y1 x2 y2 in pixels, x2 and y2 exclusive; zeros for an empty mask.

    Args:
        masks: (N, H, W) bool.
    """
    corners = [cv2.boundingRect(mask.view(np.uint8)) for mask in masks.numpy()]  # x y width height
    return torch.tensor([(x, y, x + w, y + h) for x, y, w, h in corners], dtype=torch.float32).reshape(-1, 4)
