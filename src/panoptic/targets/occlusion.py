"""What the spatial ranking module must predict: which of the things that cover a pixel is on top (OANet, Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from panoptic.structures import IGNORE_INDEX, Category, Sample
from panoptic.targets.instances import InstanceTargets, encode_instances
from panoptic.targets.semantic import encode_semantic


@dataclass(frozen=True, eq=False)
class OcclusionTargets:
    """Instances of one image, and the categories that are seen.

    Args:
        instances: that may overlap.
        semantic_map: (H, W) uint8 category ids of the panoptic map, `IGNORE_INDEX` on void and crowd.
    """

    instances: InstanceTargets
    semantic_map: Tensor


def encode_occlusion(sample: Sample, *, categories: Sequence[Category], instances_from: str) -> OcclusionTargets:
    """Overlapping instances and the non-overlapping map of a sample (OANet, Sec. 4.2).

    Args:
        sample: an image with its ground truth.
        categories: of the data set, category ids are indices into them.
        instances_from: as for `encode_instances`; those of "panoptic" never overlap and teach nothing.

    Raises:
        ValueError: as `encode_instances`, or the sample has no panoptic map.
    """
    return OcclusionTargets(
        encode_instances(sample, categories=categories, instances_from=instances_from),
        encode_semantic(sample, categories=categories, small_instance_area=0).semantic_map,
    )


def thing_channels(categories: Sequence[Category]) -> list[int]:
    """For every id of a semantic map, 0..255, the channel of that thing, in ascending order; `IGNORE_INDEX` if none."""
    things = [category.id for category in categories if category.is_thing]
    return [things.index(number) if number in things else IGNORE_INDEX for number in range(IGNORE_INDEX + 1)]


def draw_class_masks(
    boxes: Tensor, masks: Iterable[Tensor], channels: Iterable[int], *, num_channels: int, size: tuple[int, int]
) -> Tensor:
    """Where each class has an instance: the input of the spatial ranking module (OANet, Fig. 4).

    Args:
        boxes: (N, 4), x1 y1 x2 y2 in whole pixels, x2 and y2 exclusive, within the image.
        masks: N masks (y2 - y1, x2 - x1) bool.
        channels: N channels, 0..T-1.
        num_channels: T, the number of thing categories.
        size: (H, W) in pixels.

    Returns:
        (T, H, W) bool, on the device of `boxes`.
    """
    drawn = torch.zeros(num_channels, *size, dtype=torch.bool, device=boxes.device)
    for (x1, y1, x2, y2), mask, channel in zip(boxes.long().tolist(), masks, channels, strict=True):
        drawn[channel, y1:y2, x1:x2] |= mask
    return drawn
