"""Layers that several parts share: convolution with norm and activation, separable convolution, resolution."""

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


def set_rate(convolution: nn.Conv2d, rate: int) -> None:
    """Give a k x k convolution, k odd, an atrous rate in cells, and the padding that keeps "same" sizes at stride 1."""
    convolution.dilation = (rate, rate)
    convolution.padding = (rate * (convolution.kernel_size[0] // 2), rate * (convolution.kernel_size[1] // 2))


def resize_bilinear(tensor: Tensor, size: tuple[int, int], *, align_corners: bool = True) -> Tensor:
    """Bring (B, D, h, w) to (B, D, *size).

    Args:
        tensor: features or logits.
        size: (H, W) wanted.
        align_corners: True keeps corner cells on corner pixels: at sizes 16k + 1, cell i of a level of stride s lies on
            pixel i*s, and stays there. False keeps the borders of cells on borders of pixels: at multiples of s, cell i
            covers the pixels i*s to i*s + s - 1.
    """
    if tensor.shape[-2:] == size:
        return tensor
    return F.interpolate(tensor, size=size, mode="bilinear", align_corners=align_corners)


def space_to_depth(tensor: Tensor, block: int) -> Tensor:
    """(B, D, h, w) to (B, D * block**2, ceil(h / block), ceil(w / block)): cells into channels (DeeperLab, Fig. 3).

    Cell i of the result holds cells block * i to block * i + block - 1. Where `block` does not divide the size, zeros
    are added at the bottom and right (not stated in the paper; chosen so that cell i stays on cell block * i: at
    16k + 1 pixels, stride 4 has 4k + 1 rows and stride 16 has k + 1, which both begin on the same pixel).
    """
    height, width = tensor.shape[-2:]
    return F.pixel_unshuffle(F.pad(tensor, (0, -width % block, 0, -height % block)), block)


def depth_to_space(tensor: Tensor, block: int, size: tuple[int, int]) -> Tensor:
    """The inverse of `space_to_depth`: (B, D * block**2, h, w) to (B, D, *size), without the cells it added.

    Raises:
        ValueError: (h, w) is not what `space_to_depth` makes of `size`.
    """
    expected = (-(-size[0] // block), -(-size[1] // block))
    if tensor.shape[-2:] != expected:
        raise ValueError(
            f"expected {expected[0]}x{expected[1]} cells for {size[0]}x{size[1]} in blocks of {block}, "
            f"got {tensor.shape[-2]}x{tensor.shape[-1]}"
        )
    return F.pixel_shuffle(tensor, block)[..., : size[0], : size[1]]
