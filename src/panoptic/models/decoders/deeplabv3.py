"""Atrous spatial pyramid pooling of plain convolutions with image-level features (DeepLabv3, Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from panoptic.models.decoders.aspp import ImagePooling, exact_sizes, scaled_rates
from panoptic.models.decoders.base import Decoder
from panoptic.models.layers import ConvNormAct, Norm, set_rate


class DeepLabV3Decoder(Decoder):
    """A 1x1 branch, a 3x3 branch per atrous rate and image pooling, concatenated and projected (Fig. 5).

    Args:
        channels: {level: D} of the backbone.
        rates: atrous rates at output stride 16; at others they are times 16 / output stride. Table 5 adds 24.
        pointwise: False leaves the 1x1 branch out.
        image_pooling: False leaves image-level features out (Table 5). An image's mean is that of its own cells: those
            on the padding of a batch are left out (chosen; the paper pads all images to one size).
        filters: of each branch and of the projection.
        norm: makes the normalisation layers.

    Raises:
        ValueError: no branch is left, or rates that are not whole at the output stride.
    """

    reads_levels = ("c5",)

    def __init__(
        self,
        channels: Mapping[str, int],
        *,
        rates: Sequence[int] = (6, 12, 18),
        pointwise: bool = True,
        image_pooling: bool = True,
        filters: int = 256,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        num_branches = len(rates) + pointwise + image_pooling
        if num_branches == 0:
            raise ValueError(
                "expected at least one branch of rates, pointwise and image_pooling, got none; "
                "decoder=none with decoder.aspp=false leaves the whole pyramid out"
            )
        self.rates = tuple(rates)
        width = channels["c5"]
        self.pointwise = ConvNormAct(width, filters, norm=norm) if pointwise else None
        self.atrous = nn.ModuleList(ConvNormAct(width, filters, 3, norm=norm) for _ in rates)
        self.pooling = ImagePooling(width, filters, norm=norm) if image_pooling else None
        self.project = ConvNormAct(num_branches * filters, filters, norm=norm)
        self.channels = {"decoder": filters}
        self.set_output_stride(16)

    def set_output_stride(self, stride: int) -> None:
        """Scale the rates; at 513 pixels they reach as far as before."""
        for branch, rate in zip(self.atrous, scaled_rates(self.rates, stride), strict=True):
            set_rate(cast(nn.Conv2d, cast(ConvNormAct, branch)[0]), rate)
        self.size_rule = exact_sizes(stride)
        self.output_stride = stride

    def forward(
        self, levels: dict[str, Tensor], image_sizes: Sequence[tuple[int, int]] | None = None
    ) -> dict[str, Tensor]:
        """From "c5" (B, D, h, w) to "decoder" (B, filters, h, w).

        Args:
            levels: of the backbone.
            image_sizes: (h, w) of each image before padding, in pixels; None for images without padding.
        """
        features = levels["c5"]
        branches = [] if self.pointwise is None else [self.pointwise(features)]
        branches += [branch(features) for branch in self.atrous]
        if self.pooling is not None:
            branches.append(self.pooling(features, self._cells(image_sizes)))
        return {"decoder": self.project(torch.cat(branches, dim=1))}

    def _cells(self, image_sizes: Sequence[tuple[int, int]] | None) -> list[tuple[int, int]] | None:
        """(rows, columns) of each image: cell i lies on pixel i * stride."""
        if image_sizes is None:
            return None
        return [(-(-height // self.output_stride), -(-width // self.output_stride)) for height, width in image_sizes]
