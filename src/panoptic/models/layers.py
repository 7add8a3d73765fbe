"""Layers that several parts share: convolution with norm and activation, separable convolution, resizing."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]
"""Makes a normalisation layer for a number of channels, such as `nn.BatchNorm2d`."""


class ConvNormAct(nn.Sequential):
    """A k x k convolution without bias, normalisation, ReLU; "same" padding at stride 1.

    Args:
        in_channels: D of the input.
        out_channels: D of the output.
        kernel_size: k, odd.
        dilation: atrous rate in cells.
        groups: of the convolution.
        norm: makes the normalisation layer.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        dilation: int = 1,
        groups: int = 1,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__(
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                padding=dilation * (kernel_size // 2),
                dilation=dilation,
                groups=groups,
                bias=False,
            ),
            norm(out_channels),
            nn.ReLU(inplace=True),
        )


class SeparableConv(nn.Sequential):
    """Depthwise k x k, then pointwise 1x1, each with normalisation and ReLU (DeeperLab, Sec. 3.1).

    Args: as `ConvNormAct`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, dilation: int = 1, norm: Norm = nn.BatchNorm2d
    ) -> None:
        super().__init__(
            ConvNormAct(in_channels, in_channels, kernel_size, dilation=dilation, groups=in_channels, norm=norm),
            ConvNormAct(in_channels, out_channels, norm=norm),
        )


def resize_bilinear(tensor: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring (B, D, h, w) to (B, D, *size) so that corner cells stay on corner pixels.

    At sizes 16k + 1, cell i of a level of stride s lies exactly on pixel i*s, which is what aligned corners keep.
    """
    if tensor.shape[-2:] == size:
        return tensor
    return F.interpolate(tensor, size=size, mode="bilinear", align_corners=True)
