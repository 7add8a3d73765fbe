"""The four instance heads of DeeperLab (Sec. 3.3.2): heatmap, short-, middle- and long-range offsets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from panoptic.losses.keypoints import heatmap_loss, offset_loss
from panoptic.models.heads.base import DenseOutput, Head, Output, prediction_layers
from panoptic.models.layers import Norm
from panoptic.structures import Category, Features, KeypointGraph, Sample
from panoptic.targets.keypoints import (
    KeypointTargets,
    encode_keypoints,
    expand_disks,
    heatmap_target,
    long_range_target,
    middle_range_target,
    short_range_target,
)

PERFECT_LOGIT = 20.0
"""Logit of a certain prediction: sigmoid(20) is 1 to fp32's resolution."""


class KeypointHead(Head):
    """What the four heads share: two layers on "decoder", keypoint targets, one loss averaged over images.

    Args:
        channels: {level: D}; reads "decoder".
        categories: of the data set; its things have keypoints.
        graph: keypoint kinds and edges.
        radius: R of the disks, in pixels of the network's input; 25 in the paper, smaller for small images.
        filters: of the first layer, 64 in the paper.
        kernel_size: of the first layer, 7 in the paper, 3 without large kernels (LK of Table 4).
        deep_head: False leaves only the last layer, a 1x1 convolution (DH of Table 4).
        norm: makes the normalisation layer.
    """

    reads_levels = ()
    pairs: bool

    def __init__(
        self,
        channels: Mapping[str, int],
        categories: Sequence[Category],
        *,
        graph: KeypointGraph,
        radius: float = 25.0,
        filters: int = 64,
        kernel_size: int = 7,
        deep_head: bool = True,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.categories = tuple(categories)
        self.graph = graph
        self.radius = radius
        self.layers = prediction_layers(
            channels["decoder"], filters, self.num_channels, kernel_size=kernel_size, deep_head=deep_head, norm=norm
        )

    @property
    @abstractmethod
    def num_channels(self) -> int:
        """K of the output."""

    @abstractmethod
    def image_loss(self, prediction: Tensor, target: KeypointTargets) -> Tensor:
        """The loss of one image, at the network's input resolution."""

    @abstractmethod
    def perfect(self, target: KeypointTargets) -> Tensor:
        """(K, h, w) of a perfect head for one image."""

    @property
    def encode(self) -> Callable[[Sample], KeypointTargets]:
        """Instance map and keypoints; equal for the four heads, so a loader computes it once."""
        return partial(encode_keypoints, categories=self.categories, graph=self.graph)

    def forward(self, features: Features, outputs: Mapping[str, Output]) -> DenseOutput:
        """(B, K, h, w) at the stride of the decoder."""
        values = self.layers(features.levels["decoder"])
        return DenseOutput(values, features.padded_size, pairs=self.pairs)

    def losses(self, output: DenseOutput, features: Features, targets: Sequence[KeypointTargets]) -> dict[str, Tensor]:
        """One term, averaged over images."""
        predictions = output.upsampled()
        losses = [
            self.image_loss(prediction[..., : target.valid.shape[0], : target.valid.shape[1]], target)
            for prediction, target in zip(predictions, targets, strict=True)
        ]
        return {self.terms[0]: torch.stack(losses).mean()}

    def as_outputs(self, targets: Sequence[KeypointTargets], features: Features) -> DenseOutput:
        """Disks as certain logits; offsets exact where they are active, 0 elsewhere."""
        height, width = features.padded_size
        values = torch.zeros(len(targets), self.num_channels, height, width, device=targets[0].valid.device)
        for value, target in zip(values, targets, strict=True):
            value[:, : target.valid.shape[0], : target.valid.shape[1]] = self.perfect(target)
        return DenseOutput(values, features.padded_size, pairs=self.pairs)


class HeatmapHead(KeypointHead):
    """Whether a pixel lies in the disk around a keypoint: P channels of logits."""

    terms = ("cross_entropy",)
    pairs = False

    @property
    def num_channels(self) -> int:
        """P."""
        return len(self.graph.keypoints)

    def image_loss(self, prediction: Tensor, target: KeypointTargets) -> Tensor:
        """Sigmoid cross entropy over valid pixels."""
        return heatmap_loss(prediction, heatmap_target(expand_disks(target, self.radius)), target.valid)

    def perfect(self, target: KeypointTargets) -> Tensor:
        """Certain logits."""
        return (2 * heatmap_target(expand_disks(target, self.radius)) - 1) * PERFECT_LOGIT


class OffsetHead(KeypointHead):
    """What the three heads of (dy, dx) pairs share.

    Args:
        unit: pixels that a value of 1 of the last layer stands for; 1 in the paper. Training from random weights for
            few steps is quicker with a unit of the size of the offsets: the last layer need not grow that large.

    Others: as `KeypointHead`.
    """

    terms = ("l1",)
    pairs = True

    def __init__(
        self,
        channels: Mapping[str, int],
        categories: Sequence[Category],
        *,
        graph: KeypointGraph,
        radius: float = 25.0,
        filters: int = 64,
        kernel_size: int = 7,
        deep_head: bool = True,
        unit: float = 1.0,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__(
            channels,
            categories,
            graph=graph,
            radius=radius,
            filters=filters,
            kernel_size=kernel_size,
            deep_head=deep_head,
            norm=norm,
        )
        if not unit > 0:
            raise ValueError(f"expected a positive unit in pixels, got {unit}")
        self.unit = unit

    def forward(self, features: Features, outputs: Mapping[str, Output]) -> DenseOutput:
        """(B, K, h, w) in pixels, at the stride of the decoder."""
        output = super().forward(features, outputs)
        return replace(output, values=self.unit * output.values)


class ShortRangeHead(OffsetHead):
    """From a pixel of a disk to its keypoint: 2P channels."""

    @property
    def num_channels(self) -> int:
        """2P."""
        return 2 * len(self.graph.keypoints)

    def image_loss(self, prediction: Tensor, target: KeypointTargets) -> Tensor:
        """L1 inside the disks."""
        return offset_loss(prediction, *short_range_target(target, expand_disks(target, self.radius)))

    def perfect(self, target: KeypointTargets) -> Tensor:
        """Exact inside the disks."""
        return short_range_target(target, expand_disks(target, self.radius))[0].flatten(0, 1)


class MiddleRangeHead(OffsetHead):
    """From a pixel of a disk to another keypoint of the same instance, along each edge of the graph: 2E channels."""

    @property
    def num_channels(self) -> int:
        """2E."""
        return 2 * len(self.graph.edges)

    def image_loss(self, prediction: Tensor, target: KeypointTargets) -> Tensor:
        """L1 inside the disks of each edge's source."""
        return offset_loss(prediction, *middle_range_target(target, expand_disks(target, self.radius), self.graph))

    def perfect(self, target: KeypointTargets) -> Tensor:
        """Exact inside the disks of each edge's source."""
        return middle_range_target(target, expand_disks(target, self.radius), self.graph)[0].flatten(0, 1)


class LongRangeHead(OffsetHead):
    """From a pixel of an instance to each of its keypoints: 2P channels."""

    @property
    def num_channels(self) -> int:
        """2P."""
        return 2 * len(self.graph.keypoints)

    def image_loss(self, prediction: Tensor, target: KeypointTargets) -> Tensor:
        """L1 on pixels of instances."""
        return offset_loss(prediction, *long_range_target(target))

    def perfect(self, target: KeypointTargets) -> Tensor:
        """Exact on pixels of instances."""
        return long_range_target(target)[0].flatten(0, 1)
