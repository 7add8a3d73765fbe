"""The decoder of DeeperLab (Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from panoptic.models.decoders.aspp import pyramid
from panoptic.models.decoders.base import Decoder
from panoptic.models.layers import ConvNormAct, Norm, SeparableConv, depth_to_space, space_to_depth
from panoptic.structures import SizeRule

BLOCK = 4
"""Cells of "c2" (stride 4) along each side of a cell of "c5" (stride 16)."""
OUTPUT_STRIDE = 16


class SpaceToDepthDecoder(Decoder):
    """The reduced ASPP output and the reduced "c2" at stride 16, two separable convolutions, depth to space.

    All but the first and last step run at stride 16: nothing is upsampled.

    Args:
        channels: {level: D} of the backbone.
        aspp: False reduces "c5" itself (Table 7).
        filters: D of the output; the last convolution gives 16 times as many. 256, or 128 in the Light variant.
        aspp_filters: of each ASPP branch and of their reduction.
        rates: atrous rates of the branches.
        low_level_filters: D that "c2" is reduced to (not stated in the paper; 32 give 512 at stride 16).
        kernel_size: of the two separable convolutions: 7, or 3 without large kernels (LK of Table 4) and in the
            Light variant. The first keeps the channels of its input (not stated in the paper).
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
        aspp_filters: int = 256,
        rates: Sequence[int] = (6, 12, 18),
        low_level_filters: int = 32,
        kernel_size: int = 7,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.aspp, width = pyramid(channels["c5"], aspp=aspp, filters=aspp_filters, rates=rates, norm=norm)
        self.project = ConvNormAct(width, aspp_filters, norm=norm)
        self.reduce = ConvNormAct(channels["c2"], low_level_filters, norm=norm)
        joined = aspp_filters + low_level_filters * BLOCK**2
        self.refine = nn.Sequential(
            SeparableConv(joined, joined, kernel_size, norm=norm),
            SeparableConv(joined, filters * BLOCK**2, kernel_size, norm=norm),
        )
        self.channels = {"decoder": filters}

    def set_output_stride(self, stride: int) -> None:
        """Refuse all but 16: how many channels "c2" has there is in the parameters."""
        if stride != OUTPUT_STRIDE:
            raise ValueError(
                f"space to depth needs a backbone of output_stride {OUTPUT_STRIDE}, got {stride}; "
                "choose decoder=bilinear for others"
            )

    def forward(
        self, levels: dict[str, Tensor], image_sizes: Sequence[tuple[int, int]] | None = None
    ) -> dict[str, Tensor]:
        """From "c2" and "c5" to "decoder" (B, filters, h, w) at the stride and size of "c2".

        Raises:
            ValueError: "c5" has not a quarter of the rows and columns of "c2".
        """
        low_level = space_to_depth(self.reduce(levels["c2"]), BLOCK)  # (B, 16 * low_level_filters, h/4, w/4)
        if levels["c5"].shape[-2:] != low_level.shape[-2:]:
            raise ValueError(
                f"expected c5 of {tuple(low_level.shape[-2:])} cells beside c2 of {tuple(levels['c2'].shape[-2:])}, "
                f"got {tuple(levels['c5'].shape[-2:])}; this decoder needs a backbone of output_stride 16"
            )
        context = self.project(self.aspp(levels["c5"]))
        refined = self.refine(torch.cat([context, low_level], dim=1))  # (B, 16 * filters, h/4, w/4)
        height, width = levels["c2"].shape[-2:]
        return {"decoder": depth_to_space(refined, BLOCK, (height, width))}
