"""Categories and probabilities from logits at the size of the result, which are never held for all categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from panoptic.fusion.arrays import in_threads, padded_array, split_range
from panoptic.fusion.logit_kernels import argmax_rows, best_probability_rows, resizing_of, sum_probability_rows
from panoptic.fusion.masks import PastedMasks
from panoptic.fusion.paste import check_finite, output_of
from panoptic.structures import IGNORE_INDEX, Category


@dataclass(frozen=True, eq=False)
class SemanticPrediction:
    """The most probable categories of each pixel of one image.

    Args:
        logits: (C, h, w), at the network's input resolution.
        categories: (H, W) uint8 ids, of all categories; on the CPU, as `stuff`.
        stuff: (H, W) uint8 ids, of stuff alone; `IGNORE_INDEX` if no category is stuff.
    """

    logits: Tensor
    categories: np.ndarray
    stuff: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        height, width = self.categories.shape
        return height, width

    @property
    def logits_size(self) -> tuple[int, int]:
        """(h, w) of the logits."""
        return int(self.logits.shape[1]), int(self.logits.shape[2])

    @property
    def semantic_map(self) -> Tensor:
        """(H, W) int64 ids of all categories, on the device of the logits."""
        return torch.from_numpy(self.categories).to(self.logits.device).long()


def predict_semantic(
    outputs: Mapping[str, Any], categories: Sequence[Category], size: tuple[int, int] | None
) -> SemanticPrediction:
    """The most probable categories at `size`, from "semantic" (C, h, w); of equal ones the lowest.

    Args:
        outputs: of one image.
        categories: of the data set, C of them.
        size: (H, W) in pixels, to which logits are resized before they are compared; None keeps theirs.

    Raises:
        KeyError: there is no output "semantic".
        ValueError: its shape is another, or a logit that is read is not finite.
    """
    logits = output_of(outputs, "semantic", (len(categories), None, None))
    old = (logits.shape[1], logits.shape[2])
    size = old if size is None else size
    is_stuff = torch.tensor([not category.is_thing for category in categories])
    if logits.device.type != "cpu":
        return predict_semantic_torch(logits, is_stuff, size)
    channels = torch.cat([is_stuff.nonzero(), (~is_stuff).nonzero()]).flatten().numpy()
    num_stuff = int(is_stuff.sum())
    array, resizing = padded_array(logits), resizing_of(old, size)
    semantic_map = np.empty(size, dtype=np.uint8)
    stuff_map = np.full(size, IGNORE_INDEX, dtype=np.uint8)

    def predict(band: slice) -> bool:
        maps = (semantic_map, stuff_map)
        return bool(argmax_rows(array, resizing, channels, num_stuff, *maps, band.start, band.stop))

    check_finite(all(in_threads(predict, split_range(size[0]))), "semantic")
    return SemanticPrediction(logits, semantic_map, stuff_map)


def predict_semantic_torch(logits: Tensor, is_stuff: Tensor, size: tuple[int, int]) -> SemanticPrediction:
    """`predict_semantic` in torch, for devices other than the CPU, of logits (C, h, w) and is_stuff (C,) bool."""
    check_finite(bool(logits.sum(dtype=torch.float32).isfinite()), "semantic")  # device sync: once per image
    resized = resized_logits(logits, size)
    stuff_ids = is_stuff.nonzero().flatten().to(logits.device)
    stuff_map = torch.full(size, IGNORE_INDEX, device=logits.device)
    if len(stuff_ids) > 0:
        stuff_map = stuff_ids[resized[stuff_ids].argmax(0)]
    maps = torch.stack([resized.argmax(0), stuff_map]).byte().cpu().numpy()
    return SemanticPrediction(logits, maps[0], maps[1])


def resized_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (C, h, w) at (H, W) = `size` in fp32, bilinear with half-pixel centres."""
    if logits.shape[1:] == size:
        return logits.float()
    return F.interpolate(logits.float()[None], size=size, mode="bilinear", align_corners=False)[0]


def best_probabilities(logits: Tensor, needed: np.ndarray) -> np.ndarray:
    """The softmax probability of the most probable category of pixels.

    Args:
        logits: (C, h, w), finite; resized to (H, W).
        needed: (H, W) bool, where it is computed.

    Returns:
        (H, W); 0 where it is not needed.
    """
    size = (needed.shape[0], needed.shape[1])
    if logits.device.type != "cpu":
        return best_probabilities_torch(logits, needed)
    array, resizing = padded_array(logits), resizing_of((logits.shape[1], logits.shape[2]), size)
    best = np.zeros(size, dtype=np.float32)
    bands = split_range(size[0])
    in_threads(lambda band: best_probability_rows(array, resizing, needed, best, band.start, band.stop), bands)
    return best


def best_probabilities_torch(logits: Tensor, needed: np.ndarray) -> np.ndarray:
    """`best_probabilities` in torch, for devices other than the CPU."""
    best: np.ndarray = resized_logits(logits, (needed.shape[0], needed.shape[1])).softmax(0).amax(0).cpu().numpy()
    return np.where(needed, best, np.float32(0))


def mean_probabilities(logits: Tensor, masks: PastedMasks, channels: Tensor) -> Tensor:
    """The mean over each mask of the softmax probability of its channel.

    Args:
        logits: (T, H, W).
        masks: N of them, in an image of that size.
        channels: (N,) int64 channel 0..T-1 of each mask.

    Returns:
        (N,) float64 on the CPU; 0 for a mask without pixels.

    Raises:
        ValueError: a logit is not finite: in the window of a mask, or anywhere if they are not on the CPU.
    """
    if logits.device.type != "cpu":
        return mean_probabilities_torch(logits, masks, channels)
    height, width = masks.size
    array, chosen = padded_array(logits), channels.cpu().numpy()
    sums = np.zeros((height, len(masks)))  # by row: their order does not depend on the number of threads

    def add(band: slice) -> bool:
        arrays = (masks.windows, masks.starts, masks.pixels)
        return bool(sum_probability_rows(array, chosen, *arrays, width, sums, band.start, band.stop))

    check_finite(all(in_threads(add, split_range(height))), "ranking")
    return torch.from_numpy(sums.sum(axis=0) / np.maximum(masks.areas, 1))


def mean_probabilities_torch(logits: Tensor, masks: PastedMasks, channels: Tensor) -> Tensor:
    """`mean_probabilities` in torch, for devices other than the CPU."""
    check_finite(bool(logits.sum(dtype=torch.float32).isfinite()), "ranking")  # device sync: once per image
    probabilities = logits.float().softmax(0)
    sums = torch.zeros(len(masks), dtype=torch.float64, device=logits.device)
    windows = zip(masks.windows.tolist(), channels.tolist(), strict=True)
    for index, ((left, top, right, bottom), channel) in enumerate(windows):
        window = probabilities[channel, top:bottom, left:right].double()
        sums[index] = (window * masks.patch(index).to(logits.device)).sum()
    return sums.cpu() / torch.from_numpy(masks.areas).clamp(min=1)
