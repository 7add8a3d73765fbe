"""Stacks of instance masks and their boxes."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

MAX_COORDINATE = 1_000_000
"""Of a polygon's points, in pixels: drawing takes memory by the length of the outline, and overflows far beyond."""


def stack_masks(masks: Sequence[NDArray[np.uint8]] | Sequence[NDArray[np.bool_]], size: tuple[int, int]) -> Tensor:
    """(N, H, W) bool from N masks of `size` (H, W); N may be 0."""
    stacked = np.empty((len(masks), *size), dtype=bool)
    for place, mask in zip(stacked, masks, strict=True):
        np.not_equal(mask, 0, out=place)
    return torch.from_numpy(stacked)


@njit(cache=True, nogil=True)
def draw_runs(counts: NDArray[np.int64], height: int, width: int) -> NDArray[np.bool_]:
    """(H, W) bool of COCO's run lengths: in turn off and on, column by column.

    The library's own decoder visits every pixel, this only those of the mask.

    Args:
        counts: pixels of each run, none negative, H * W together.
        height: of the image.
        width: of the image.
    """
    mask = np.zeros((height, width), dtype=np.bool_)
    position = 0
    for number, count in enumerate(counts):
        end = position + count
        while number % 2 and position < end:
            x, y = divmod(position, height)
            stop = min(height, y + end - position)
            mask[y:stop, x] = True
            position += stop - y
        position = end
    return mask


def mask_boxes(masks: Tensor) -> Tensor:
    """Boxes of masks: (N, 4) float, x1 y1 x2 y2 in pixels, x2 and y2 exclusive; zeros for an empty mask.

    Args:
        masks: (N, H, W) bool.
    """
    corners = [cv2.boundingRect(mask.view(np.uint8)) for mask in masks.numpy()]  # x y width height
    return torch.tensor([(x, y, x + w, y + h) for x, y, w, h in corners], dtype=torch.float32).reshape(-1, 4)
