"""Atrous spatial pyramid pooling (DeepLabv3, Sec. 3.3; with separable branches in DeeperLab, Sec. 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from panoptic.models.decoders.base import Decoder
from panoptic.models.layers import ConvNormAct, Norm, SeparableConv, resize_bilinear
from panoptic.structures import SizeRule


class ASPP(nn.Module):
    """One 1x1 branch, one atrous 3x3 branch per rate, and image pooling, concatenated.

    Args:
        in_channels: D of the input.
        filters: of each branch.
        rates: atrous rates in cells of the input; 6, 12, 18 at output stride 16.
        norm: makes the normalisation layers.
    """

    def __init__(
        self, in_channels: int, *, filters: int = 256, rates: Sequence[int] = (6, 12, 18), norm: Norm = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.pointwise = ConvNormAct(in_channels, filters, norm=norm)
        self.atrous = nn.ModuleList(SeparableConv(in_channels, filters, 3, dilation=rate, norm=norm) for rate in rates)
        self.pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvNormAct(in_channels, filters, norm=norm))
        self.out_channels = filters * (2 + len(rates))

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) to (B, (2 + rates) * filters, h, w)."""
        pooled = self.pooling(features).expand(-1, -1, *features.shape[-2:])
        return torch.cat([self.pointwise(features), *(branch(features) for branch in self.atrous), pooled], dim=1)


def pyramid(in_channels: int, *, aspp: bool, filters: int, rates: Sequence[int], norm: Norm) -> tuple[nn.Module, int]:
    """What a decoder puts on "c5", and its D: `ASPP`, or nothing without `aspp` (DeeperLab, Tables 3 and 7)."""
    if not aspp:
        return nn.Identity(), in_channels
    module = ASPP(in_channels, filters=filters, rates=rates, norm=norm)
    return module, module.out_channels


class ASPPDecoder(Decoder):
    """No decoder: heads sit on the projected ASPP output at the stride of "c5" (DeeperLab, Table 4, first row).

    Args:
        channels: {level: D} of the backbone.
        aspp: False gives heads "c5" as it is (Table 3); `filters` and `rates` then mean nothing.
        filters: of each branch and of the output.
        rates: atrous rates of the branches.
        norm: makes the normalisation layers.
    """

    size_rule = SizeRule(16, 1)

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

    def forward(self, levels: dict[str, Tensor]) -> dict[str, Tensor]:
        """From "c5" (B, D, h, w) to "decoder" (B, filters, h, w), or "c5" itself without ASPP."""
        return {"decoder": self.project(self.aspp(levels["c5"]))}


class BilinearDecoder(Decoder):
    """The reduced ASPP output upsampled to "c2", concatenated with the reduced "c2" (DeeperLab, Table 4, BU).

    Args:
        channels: {level: D} of the backbone.
        aspp: False reduces "c5" itself.
        filters: of each ASPP branch and of the output.
        rates: atrous rates of the branches.
        low_level_filters: D that "c2" is reduced to (not stated in the paper; 48 in DeepLabv3+, 32 here as for `s2d`).
        kernel_size: of the two separable convolutions: 7, or 3 without large kernels (LK of Table 4).
        norm: makes the normalisation layers.
    """

    size_rule = SizeRule(16, 1)

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

    def forward(self, levels: dict[str, Tensor]) -> dict[str, Tensor]:
        """From "c2" and "c5" to "decoder" (B, filters, h, w) at the stride of "c2"."""
        low_level = self.reduce(levels["c2"])
        context = resize_bilinear(self.project(self.aspp(levels["c5"])), low_level.shape[-2:])
        return {"decoder": self.refine(torch.cat([context, low_level], dim=1))}
