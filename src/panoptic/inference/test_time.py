"""Inference strategies: another output stride, several scales, left-right flips; for any head of class logits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from panoptic.models.heads.base import DenseOutput, Output
from panoptic.models.heads.keypoints import KeypointHead
from panoptic.models.heads.mask_rcnn import MaskRCNNHead
from panoptic.models.heads.spatial_ranking import SpatialRankingHead
from panoptic.models.joined import JoinedNetworks, Network
from panoptic.models.layers import resize_bilinear
from panoptic.models.network import NetworkPath, PanopticNetwork
from panoptic.models.output_stride import output_stride_of, set_output_stride
from panoptic.structures import Features, ImageStatistics, SizeRule

Sizes: TypeAlias = list[tuple[int, int]]

OTHER_KINDS = (KeypointHead, MaskRCNNHead, SpatialRankingHead)
"""Heads whose outputs are no class logits of pixels."""


@dataclass(frozen=True)
class TestTime:
    """How a network looks at images once it is trained (DeepLabv3, Sec. 4.2 and 4.3, Tables 4, 6 and 12).

    Calling it is calling the network. The class probabilities of one head are averaged over scales and flips, at the
    size of the network's input and in fp32 whatever the precision; the outputs of other heads stay those of the images
    as they are. One view runs after the other: beside the sum, memory is that of the largest one.

    Args:
        output_stride: of the backbone during a call, in pixels; None keeps the network's.
        scales: factors of both sides of an image, rounded to whole pixels, at least 1; bilinear between pixel centres
            and in 8 bits (not stated in the paper; chosen as images are resized in training).
        flip: whether each scale is also looked at flipped left-right.
        head: whose class probabilities are averaged.

    Raises:
        ValueError: a value of the wrong kind or range.
    """

    __test__ = False  # for pytest, which would take it for tests

    output_stride: int | None = None
    scales: Sequence[float] = (1.0,)
    flip: bool = False
    head: str = "semantic"

    def __post_init__(self) -> None:
        if self.output_stride is not None and not _is_power_of_two(self.output_stride):
            raise ValueError(f"expected output_stride as a power of 2 in pixels, or null, got {self.output_stride!r}")
        is_list = isinstance(self.scales, Sequence) and not isinstance(self.scales, str)
        if not is_list or not self.scales or not all(map(_is_factor, self.scales)):
            raise ValueError(f"expected scales as positive numbers, such as [0.75,1.0,1.25], got {self.scales!r}")
        if len(set(self.scales)) < len(self.scales):
            raise ValueError(f"expected each of scales once, got {list(self.scales)}")
        if type(self.flip) is not bool:
            raise ValueError(f"expected true or false for flip, got {self.flip!r}")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> TestTime:
        """What `output_stride`, `scales` and `flip` of a command say; runs from before there was a choice have none."""
        return cls(**{name: options[name] for name in ("output_stride", "scales", "flip") if name in options})

    @property
    def averages(self) -> bool:
        """Whether the head's probabilities are a mean of several views, or of one at another scale."""
        return self.flip or list(self.scales) != [1]

    def __str__(self) -> str:
        """What differs from plain inference, such as "output stride 8, scales 0.5 1, flip"; empty if nothing does."""
        parts = [f"output stride {self.output_stride}"] if self.output_stride is not None else []
        parts += [f"scales {' '.join(f'{scale:g}' for scale in self.scales)}"] if list(self.scales) != [1] else []
        return ", ".join([*parts, *(["flip"] if self.flip else [])])

    def check(self, network: Network) -> None:
        """Refuse a network that cannot be looked at like this; it stays as it is.

        Raises:
            ValueError: it has no such head, the head's outputs are no class logits, or it cannot have the output
                stride: that of feature pyramids, and so of all detection heads, is fixed.
        """
        with self._at_stride(network):
            pass

    def __call__(
        self, network: Network, images: Tensor, image_sizes: Sizes
    ) -> tuple[dict[str, Output], dict[str, Features]]:
        """Outputs and features by head, as `PanopticNetwork` gives them.

        Args:
            network: in any mode, which is kept, as its output stride is.
            images: (B, 3, H, W) uint8, padded at the bottom and right.
            image_sizes: (h, w) of each image before padding.

        Returns:
            outputs: those of the network; of `head`, if it averages, the logarithms of the mean class probabilities at
                the network's input resolution, which are logits of them.
            features: of the images as they are.

        Raises:
            ValueError: as `check`; or an output that is not finite.
        """
        with self._at_stride(network):
            if self.output_stride is not None:
                images, _ = _view(images, image_sizes, 1, False, network.size_rule)  # the rule depends on the stride
            if not self.averages:
                plain: tuple[dict[str, Output], dict[str, Features]] = network(images, image_sizes)
                return plain
            with torch.no_grad():
                return self._averaged(network, images, image_sizes)

    def _averaged(
        self, network: Network, images: Tensor, image_sizes: Sizes
    ) -> tuple[dict[str, Output], dict[str, Features]]:
        views = [(scale, flip) for scale in self.scales for flip in ((False, True) if self.flip else (False,))]
        alone = _with_one_head(self._part(network), self.head)
        total: Tensor | None = None
        for scale, flip in views:
            if scale != 1 or flip:
                total = self._add_view(total, alone, images, image_sizes, scale, flip)
        outputs, features = network(images, image_sizes)  # last: its features would lie beside those of other views
        plain = self._class_logits(outputs)
        if 1 in self.scales:
            total = _add_probabilities(total, plain, image_sizes, image_sizes, flip=False)
        assert total is not None
        logits = total.div_(len(views)).clamp_(min=torch.finfo(total.dtype).tiny).log_()  # logits have to be finite
        height, width = plain.padded_size
        padded = F.pad(logits, (0, width - logits.shape[-1], 0, height - logits.shape[-2]))
        return {**outputs, self.head: DenseOutput(padded, plain.padded_size)}, features

    def _add_view(
        self, total: Tensor | None, alone: PanopticNetwork, images: Tensor, image_sizes: Sizes, scale: float, flip: bool
    ) -> Tensor:
        """The sum with what the network sees in one view, whose features end here."""
        view, sizes = _view(images, image_sizes, scale, flip, alone.size_rule)
        outputs, _ = alone(view, sizes)
        return _add_probabilities(total, self._class_logits(outputs), sizes, image_sizes, flip=flip)

    def _class_logits(self, outputs: Mapping[str, Output]) -> DenseOutput:
        output = outputs[self.head]
        if not isinstance(output, DenseOutput) or output.pairs:
            kind = f"{type(output).__name__}{' of pairs' if isinstance(output, DenseOutput) else ''}"
            raise ValueError(
                f"expected class logits of the head {self.head!r}, got {kind}; leave scales and flip at their defaults"
            )
        return output

    def _part(self, network: Network) -> PanopticNetwork:
        """The network, or the one of two, that has the head."""
        parts = [network.first, network.second] if isinstance(network, JoinedNetworks) else [network]
        found = [part for part in parts if self.head in part.heads]
        if not found:
            raise ValueError(
                f"output_stride, scales and flip are of the head {self.head!r}, but the network has "
                f"{sorted(network.heads)}; leave them at their defaults"
            )
        if isinstance(found[0].heads[self.head], OTHER_KINDS):
            raise ValueError(
                f"expected a head of class logits to average, got {self.head!r}, a "
                f"{type(found[0].heads[self.head]).__name__}"
            )
        return found[0]

    @contextmanager
    def _at_stride(self, network: Network) -> Iterator[None]:
        """The part of the network that has the head is at the output stride that is asked for."""
        if self.output_stride is None and not self.averages:
            yield
            return
        part = self._part(network)
        if self.output_stride is None:
            yield
            return
        before = output_stride_of(part)
        try:
            set_output_stride(part, self.output_stride)
        except ValueError as error:
            raise ValueError(f"output_stride={self.output_stride} is not for this network: {error}") from error
        try:
            yield
        finally:
            set_output_stride(part, before)


def _is_power_of_two(stride: Any) -> bool:
    return type(stride) is int and stride > 0 and stride & (stride - 1) == 0


def _is_factor(scale: Any) -> bool:
    return isinstance(scale, int | float) and not isinstance(scale, bool) and math.isfinite(scale) and scale > 0


def _with_one_head(network: PanopticNetwork, name: str) -> PanopticNetwork:
    """The same layers without those that only other heads need."""
    path = next(path for path in network.paths if name in path.heads)
    head = path.named_heads()[name]
    alone = PanopticNetwork([NetworkPath(path.backbone, path.decoder, {name: head})], ImageStatistics())
    alone.mean, alone.std = network.mean, network.std  # to the bit, and on their device
    return alone


def _view(images: Tensor, image_sizes: Sizes, scale: float, flip: bool, size_rule: SizeRule) -> tuple[Tensor, Sizes]:
    """Each image without its padding, flipped or not, resized, and padded again.

    Flipped before it is resized: an image and its flipped one have the same views, to the bit.

    Returns:
        (B, 3, H', W') uint8, and (h', w') of each image in it.
    """
    sizes = [(max(1, round(scale * height)), max(1, round(scale * width))) for height, width in image_sizes]
    padded = size_rule.pad(max(height for height, _ in sizes), max(width for _, width in sizes))
    view = images.new_zeros((*images.shape[:2], *padded))
    for target, image, (old_height, old_width), (height, width) in zip(view, images, image_sizes, sizes, strict=True):
        pixels = image[:, :old_height, :old_width].float()[None]
        resized = resize_bilinear(pixels.flip(-1) if flip else pixels, (height, width), align_corners=False)
        target[:, :height, :width] = resized[0].round()
    return view, sizes


def _add_probabilities(
    total: Tensor | None, output: DenseOutput, sizes: Sizes, image_sizes: Sizes, *, flip: bool
) -> Tensor:
    """The sum with the class probabilities of one view.

    Args:
        total: (B, C, H, W), changed in place, H and W those of the largest image without padding; None makes it.
        output: logits of the view.
        sizes: (h', w') of each image in the view.
        image_sizes: (h, w) of each image, to which probabilities are resized, bilinear between pixel centres.
        flip: whether the view is flipped.
    """
    if total is None:
        size = (max(height for height, _ in image_sizes), max(width for _, width in image_sizes))
        total = output.values.new_zeros((*output.values.shape[:2], *size), dtype=torch.float32)
    for index, (size, (height, width)) in enumerate(zip(sizes, image_sizes, strict=True)):
        probabilities = output.image(index, size).softmax(dim=0)[None]
        resized = resize_bilinear(probabilities, (height, width), align_corners=False)[0]
        total[index, :, :height, :width] += resized.flip(-1) if flip else resized
    return total


PLAIN = TestTime()
"""What the network itself gives."""
