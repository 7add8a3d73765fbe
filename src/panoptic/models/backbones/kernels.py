"""Larger kernels in place of a backbone's 3x3 convolutions (DeeperLab, Sec. 3.1, Table 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn


def widen_convolutions(body: nn.Module, kernel_size: int, *, inflate: bool) -> None:
    """Make every 3x3 convolution k x k: same centres of its windows, stride, dilation, groups and names.

    Args:
        body: the network, changed in place.
        kernel_size: k, odd.
        inflate: keep the weights, in the middle of zeros. Otherwise they are drawn again, 3/k times as spread as the
            3x3 ones, which is what initialisations that count a kernel's inputs or outputs would do.

    Raises:
        ValueError: no 3x3 convolution, or one that is more than a convolution with zeros around its input.
    """
    convolutions = [part for part in body.modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3)]
    if not convolutions:
        raise ValueError(
            f"the backbone has no 3x3 convolution to make {kernel_size}x{kernel_size}; leave kernel_size 3"
        )
    for convolution in convolutions:
        if type(convolution) not in (nn.Conv2d, Conv2dSame) or convolution.padding_mode != "zeros":
            raise ValueError(f"cannot make this 3x3 convolution {kernel_size}x{kernel_size}: {convolution}")
        if type(convolution) is nn.Conv2d and not isinstance(convolution.padding, str):
            sides = zip(convolution.padding, convolution.dilation, strict=True)
            more = (kernel_size - 3) // 2
            convolution.padding = tuple(padding + dilation * more for padding, dilation in sides)
        convolution.kernel_size = (kernel_size, kernel_size)
        old = convolution.weight.detach()
        new = inflate_kernel(old, kernel_size) if inflate else _draw_like(old, kernel_size)
        convolution.weight = nn.Parameter(new)


def inflate_kernel(weight: Tensor, kernel_size: int) -> Tensor:
    """(D, d, j, j) to (D, d, k, k): the same convolution, its weights in the middle of zeros.

    DEVIATION (DeeperLab Sec. 4): the paper's wider backbone is pretrained with its own kernels.
    """
    return F.pad(weight, [(kernel_size - weight.shape[-1]) // 2] * 4)


def fits_inside(weight: Tensor, shape: Sequence[int]) -> bool:
    """Whether `inflate_kernel` can bring a weight to `shape`."""
    if weight.ndim != 4 or len(shape) != 4 or weight.shape[:2] != tuple(shape[:2]):
        return False
    (height, width), (new_height, new_width) = weight.shape[2:], shape[2:]
    return height == width and new_height == new_width and width < new_width and (new_width - width) % 2 == 0


def _draw_like(weight: Tensor, kernel_size: int) -> Tensor:
    shape = (*weight.shape[:2], kernel_size, kernel_size)
    return torch.randn(shape, dtype=weight.dtype, device=weight.device) * weight.std() * (3 / kernel_size)
