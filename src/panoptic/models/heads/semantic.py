"""The semantic head of DeeperLab (Sec. 3.3.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panoptic.losses.cross_entropy import bootstrapped_cross_entropy
from panoptic.models.heads.base import DenseOutput, Head, Output, prediction_layers
from panoptic.models.layers import Norm
from panoptic.structures import IGNORE_INDEX, Category, Features, Sample
from panoptic.targets.semantic import SemanticTargets, encode_semantic


class SemanticHead(Head):
    """A category for every pixel, trained with bootstrapped cross entropy.

    Args:
        channels: {level: D}; reads "decoder".
        categories: of the data set, C of them.
        filters: of the first layer, 256 in the paper.
        kernel_size: of the first layer, 7 in the paper, 3 without large kernels (LK of Table 4).
        deep_head: False leaves only the last layer, a 1x1 convolution (DH of Table 4).
        hard_pixel_fraction: share of pixels that carry loss, 0.15 in the paper.
        small_instance_weight: weight of pixels of small instances, 3 in the paper.
        small_instance_area: instances below it are small, in pixels of the network's input; 64 * 64 in the paper.
        upsample_logits: False brings the labels to the logits' size for the loss instead, one pixel for each cell
            (DeepLabv3, Table 8).
        norm: makes the normalisation layer.
    """

    reads_levels = ()
    terms = ("cross_entropy",)

    def __init__(
        self,
        channels: Mapping[str, int],
        categories: Sequence[Category],
        *,
        filters: int = 256,
        kernel_size: int = 7,
        deep_head: bool = True,
        hard_pixel_fraction: float = 0.15,
        small_instance_weight: float = 3.0,
        small_instance_area: int = 4096,
        upsample_logits: bool = True,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.layers = prediction_layers(
            channels["decoder"], filters, len(categories), kernel_size=kernel_size, deep_head=deep_head, norm=norm
        )
        self.categories = tuple(categories)
        self.hard_pixel_fraction = hard_pixel_fraction
        self.small_instance_weight = small_instance_weight
        self.small_instance_area = small_instance_area
        self.upsample_logits = upsample_logits

    @property
    def encode(self) -> Callable[[Sample], SemanticTargets]:
        """Semantic map and small instances of a sample."""
        return partial(encode_semantic, categories=self.categories, small_instance_area=self.small_instance_area)

    def forward(self, features: Features, outputs: Mapping[str, Output]) -> DenseOutput:
        """Logits (B, C, h, w) at the stride of the decoder."""
        return DenseOutput(self.layers(features.levels["decoder"]), features.padded_size)

    def losses(self, output: DenseOutput, features: Features, targets: Sequence[SemanticTargets]) -> dict[str, Tensor]:
        """`cross_entropy` at the network's input resolution, or at that of the logits; averaged over images."""
        size = features.padded_size
        semantic_maps = torch.stack([pad_map(target.semantic_map, size, IGNORE_INDEX) for target in targets])
        small_instances = torch.stack([pad_map(target.small_instances, size, False) for target in targets])
        if not self.upsample_logits:
            cells = (int(output.values.shape[-2]), int(output.values.shape[-1]))
            semantic_maps, small_instances = at_cells(semantic_maps, cells), at_cells(small_instances, cells)
        loss = bootstrapped_cross_entropy(
            output.upsampled() if self.upsample_logits else output.values,
            semantic_maps,
            small_instances,
            hard_pixel_fraction=self.hard_pixel_fraction,
            small_instance_weight=self.small_instance_weight,
        )
        return {"cross_entropy": loss}

    def as_outputs(self, targets: Sequence[SemanticTargets], features: Features) -> DenseOutput:
        """One-hot logits; uniform where the target is void."""
        maps = torch.stack(
            [pad_map(target.semantic_map, features.padded_size, IGNORE_INDEX) for target in targets]
        ).long()
        one_hot = maps[:, None] == torch.arange(len(self.categories), device=maps.device)[:, None, None]
        return DenseOutput(one_hot * PERFECT_LOGIT, features.padded_size)


PERFECT_LOGIT = 20.0
"""Logit of a certain prediction: exp(-20) is below the resolution of fp32 beside 1."""


def at_cells(maps: Tensor, cells: tuple[int, int]) -> Tensor:
    """Maps (B, H, W) at the pixels on which cells lie, (B, h, w); (h, w) = `cells`, corner cells on corner pixels."""
    rows, columns = (
        torch.linspace(0, side - 1, count, device=maps.device).round().long()
        for side, count in zip(maps.shape[-2:], cells, strict=True)
    )
    return maps[:, rows[:, None], columns]


def pad_map(image: Tensor, size: tuple[int, int], value: float) -> Tensor:
    """A map (h, w) brought to `size` = (H, W), `value` at the bottom and right."""
    height, width = image.shape
    return F.pad(image, (0, size[1] - width, 0, size[0] - height), value=value)
