"""Atrous spatial pyramid pooling (DeepLabv3, Sec. 3.3; with separable branches in DeeperLab, Sec. 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panoptic.models.decoders.base import Decoder
from panoptic.models.layers import ConvNormAct, Norm, SeparableConv, resize_bilinear, set_rate
from panoptic.structures import SizeRule

RATES_ARE_FOR = 16
"""Output stride in pixels that atrous rates are given for."""


class ImagePooling(nn.Sequential):
    """Image-level features: the mean of an image, 1x1, normalisation, ReLU, on every cell (DeepLabv3, Sec. 3.3).

    Upsampling one cell bilinearly gives the same value everywhere.

    DEVIATION (DeepLabv3 Sec. 3.3): in training a batch of one image has no statistics here, one value per channel; it
    is normalised with the running ones, which stay as they are.

    Args:
        in_channels: D of the input.
        filters: D of the output.
        norm: makes the normalisation layer.
    """

    def __init__(self, in_channels: int, filters: int, *, norm: Norm) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), ConvNormAct(in_channels, filters, norm=norm))

    def forward(self, features: Tensor, cells: Sequence[tuple[int, int]] | None = None) -> Tensor:
        """(B, D, h, w) to (B, filters, h, w).

        Args:
            features: of the backbone.
            cells: (rows, columns) of each image, from the top left, that its mean is of; None for all.
        """
        average, (convolution, norm, activation) = self[0], cast(ConvNormAct, self[1]).children()
        size = features.shape[-2:]
        if cells is None or all(area == tuple(size) for area in cells):
            means = average(features)
        else:
            areas = zip(features, cells, strict=True)
            means = torch.stack([average(image[:, :rows, :columns]) for image, (rows, columns) in areas])
        pooled: Tensor = convolution(means)  # (B, filters, 1, 1)
        if len(pooled) == 1 and isinstance(norm, nn.BatchNorm2d):
            pooled = F.batch_norm(
                pooled, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
            )
        else:
            pooled = norm(pooled)
        activated: Tensor = activation(pooled)
        return activated.expand(-1, -1, *size)


class ASPP(nn.Module):
    """One 1x1 branch, one atrous 3x3 branch per rate, and image pooling, concatenated.

    Args:
        in_channels: D of the input.
        filters: of each branch.
        rates: atrous rates in cells of an input of output stride 16.
        norm: makes the normalisation layers.
    """

    def __init__(
        self, in_channels: int, *, filters: int = 256, rates: Sequence[int] = (6, 12, 18), norm: Norm = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.pointwise = ConvNormAct(in_channels, filters, norm=norm)
        self.atrous = nn.ModuleList(SeparableConv(in_channels, filters, 3, dilation=rate, norm=norm) for rate in rates)
        self.pooling = ImagePooling(in_channels, filters, norm=norm)
        self.out_channels = filters * (2 + len(rates))
        self.rates = tuple(rates)

    def set_output_stride(self, stride: int) -> None:
        """Scale the rates; a ValueError if they are not whole."""
        for branch, rate in zip(self.atrous, scaled_rates(self.rates, stride), strict=True):
            depthwise, _ = cast(SeparableConv, branch)
            set_rate(cast(nn.Conv2d, cast(ConvNormAct, depthwise)[0]), rate)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) to (B, (2 + rates) * filters, h, w)."""
        branches = [self.pointwise, *self.atrous, self.pooling]
        return torch.cat([branch(features) for branch in branches], dim=1)


def scaled_rates(rates: Sequence[int], output_stride: int) -> list[int]:
    """Atrous rates that reach as far at another output stride (DeepLabv3, Sec. 3.3: doubled at 8).

    Args:
        rates: in cells at output stride 16.
        output_stride: in pixels.

    Raises:
        ValueError: one is not whole there.
    """
    if any(rate * RATES_ARE_FOR % output_stride for rate in rates):
        scaled = ", ".join(f"{rate * RATES_ARE_FOR / output_stride:g}" for rate in rates)
        raise ValueError(
            f"rates {list(rates)} at output stride {RATES_ARE_FOR} are [{scaled}] at {output_stride}; "
            f"give rates that are multiples of {output_stride // RATES_ARE_FOR}"
        )
    return [rate * RATES_ARE_FOR // output_stride for rate in rates]


def exact_sizes(output_stride: int) -> SizeRule:
    """Sizes at which cell i of "c5" lies on pixel i * stride and the last cell on the last pixel; 16k + 1 at 16."""
    return SizeRule(max(16, output_stride), 1)


def pyramid(in_channels: int, *, aspp: bool, filters: int, rates: Sequence[int], norm: Norm) -> tuple[nn.Module, int]:
    """What a decoder puts on "c5", and its D: `ASPP`, or nothing without `aspp` (DeeperLab, Tables 3 and 7)."""
    if not aspp:
        return nn.Identity(), in_channels
    module = ASPP(in_channels, filters=filters, rates=rates, norm=norm)
    return module, module.out_channels


class PyramidDecoder(Decoder):
    """What decoders on `pyramid` share; `aspp` is what that gave."""

    aspp: nn.Module

    def set_output_stride(self, stride: int) -> None:
        """Scale the rates of ASPP."""
        if isinstance(self.aspp, ASPP):
            self.aspp.set_output_stride(stride)
        self.size_rule = exact_sizes(stride)
        self.output_stride = stride


class ASPPDecoder(PyramidDecoder):
    """No decoder: heads sit on the projected ASPP output at the stride of "c5" (DeeperLab, Table 4, first row).

    Args:
        channels: {level: D} of the backbone.
        aspp: False gives heads "c5" as it is (Table 3); `filters` and `rates` then mean nothing.
        filters: of each branch and of the output.
        rates: atrous rates of the branches at output stride 16; they follow the backbone's.
        norm: makes the normalisation layers.
    """

    size_rule = SizeRule(16, 1)
    reads_levels = ("c5",)

    def __init__(
        self,
        channels: Mapping[str, int],
        *,
        aspp: bool = True,
        filters: int = 256,
        rates: Sequence[int] = (6, 12, 18),
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.aspp, width = pyramid(channels["c5"], aspp=aspp, filters=filters, rates=rates, norm=norm)
        self.project = ConvNormAct(width, filters, norm=norm) if aspp else nn.Identity()
        self.channels = {"decoder": filters if aspp else width}

    def forward(
        self, levels: dict[str, Tensor], image_sizes: Sequence[tuple[int, int]] | None = None
    ) -> dict[str, Tensor]:
        """From "c5" (B, D, h, w) to "decoder" (B, filters, h, w), or "c5" itself without ASPP."""
        return {"decoder": self.project(self.aspp(levels["c5"]))}


class BilinearDecoder(PyramidDecoder):
    """The reduced ASPP output upsampled to "c2", concatenated with the reduced "c2" (DeeperLab, Table 4, BU).

    Args:
        channels: {level: D} of the backbone.
        aspp: False reduces "c5" itself.
        filters: of each ASPP branch and of the output.
        rates: atrous rates of the branches at output stride 16; they follow the backbone's.
        low_level_filters: D that "c2" is reduced to (not stated in the paper; 48 in DeepLabv3+, 32 here as for `s2d`).
        kernel_size: of the two separable convolutions: 7, or 3 without large kernels (LK of Table 4).
        norm: makes the normalisation layers.
    """

    size_rule = SizeRule(16, 1)
    reads_levels = ("c2", "c5")

    def __init__(
        self,
        channels: Mapping[str, int],
        *,
        aspp: bool = True,
        filters: int = 256,
        rates: Sequence[int] = (6, 12, 18),
        low_level_filters: int = 32,
        kernel_size: int = 7,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.aspp, width = pyramid(channels["c5"], aspp=aspp, filters=filters, rates=rates, norm=norm)
        self.project = ConvNormAct(width, filters, norm=norm)
        self.reduce = ConvNormAct(channels["c2"], low_level_filters, norm=norm)
        self.refine = nn.Sequential(
            SeparableConv(filters + low_level_filters, filters, kernel_size, norm=norm),
            SeparableConv(filters, filters, kernel_size, norm=norm),
        )
        self.channels = {"decoder": filters}

    def forward(
        self, levels: dict[str, Tensor], image_sizes: Sequence[tuple[int, int]] | None = None
    ) -> dict[str, Tensor]:
        """From "c2" and "c5" to "decoder" (B, filters, h, w) at the stride of "c2"."""
        low_level = self.reduce(levels["c2"])
        context = resize_bilinear(self.project(self.aspp(levels["c5"])), low_level.shape[-2:])
        return {"decoder": self.refine(torch.cat([context, low_level], dim=1))}
