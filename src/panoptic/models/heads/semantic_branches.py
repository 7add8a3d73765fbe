"""What semantic heads put on the levels of a feature pyramid: OANet's stuff branch, the Fusion Scheme's two heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from panoptic.models.layers import ConvNormAct, Norm, resize_bilinear

NUMBERS = (2, 3, 4, 5)
"""Of the levels that are read, from stride 4 to stride 32."""

group_norm: Norm = partial(nn.GroupNorm, 32)
"""32 groups: not stated in the papers; chosen as in the work that introduced it."""


class TwoConvBranch(nn.Module):
    """Two 3x3 convolutions per level, all brought to stride 4, concatenated, 1x1 (Fusion Scheme, Sec. V, baseline).

    Args:
        channels: {level: D}; reads "p2".."p5".
        out_channels: K of the logits.
        filters: D of every convolution (not stated for the baseline; chosen as in the proposed head).
        norm: makes the normalisation layers.
    """

    def __init__(
        self, channels: Mapping[str, int], out_channels: int, *, filters: int = 128, norm: Norm = group_norm
    ) -> None:
        super().__init__()
        self.level_names = _pyramid_levels(channels, "p")
        self.levels = nn.ModuleList(_two_convolutions(channels[name], filters, norm) for name in self.level_names)
        self.predict = nn.Conv2d(len(NUMBERS) * filters, out_channels, 1)

    def forward(self, levels: Mapping[str, Tensor]) -> Tensor:
        """(B, D, h, w) per level to logits (B, K, h, w) at stride 4."""
        maps = [layers(levels[name]) for name, layers in zip(self.level_names, self.levels, strict=True)]
        logits: Tensor = self.predict(_concatenate(maps))
        return logits


class AspRpBranch(nn.Module):
    """Atrous spatial pyramids, and a refinement pyramid over the levels (Fusion Scheme, Sec. III-B, Fig. 1).

    Args:
        channels: {level: D}; reads "p2".."p5".
        out_channels: K of the logits.
        filters: D of what each level makes: 128 in the paper. The branches of the atrous pyramids have as many (not
            stated in the paper).
        rates: atrous rates at strides 16 and 32, in cells.
        norm: makes the normalisation layers.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        out_channels: int,
        *,
        filters: int = 128,
        rates: Sequence[int] = (6, 12, 18),
        norm: Norm = group_norm,
    ) -> None:
        super().__init__()
        self.level_names = _pyramid_levels(channels, "p")
        p2, p3, p4, p5 = (channels[name] for name in self.level_names)
        self.levels = nn.ModuleList(
            [
                _two_convolutions(p2, filters, norm),
                _two_convolutions(p3, filters, norm),
                AtrousSpatialPyramid(p4, filters, rates=rates, norm=norm),
                AtrousSpatialPyramid(p5, filters, rates=rates, norm=norm),
            ]
        )
        self.predict = nn.Conv2d(len(NUMBERS) * filters, out_channels, 1)

    def forward(self, levels: Mapping[str, Tensor]) -> Tensor:
        """(B, D, h, w) per level to logits (B, K, h, w) at stride 4."""
        maps = [layers(levels[name]) for name, layers in zip(self.level_names, self.levels, strict=True)]
        logits: Tensor = self.predict(_concatenate(refine_coarse_to_fine(maps)))
        return logits


class StuffBranch(nn.Module):
    """Two 3x3 convolutions per level, all brought to stride 4, concatenated, 3x3, 1x1 (OANet, Sec. 3.1, Fig. 3).

    Width and normalisation are not stated in the paper; chosen as in the Fusion Scheme's heads.

    Args:
        channels: {level: D}; reads the RPN feature maps "r2".."r5", or "p2".."p5" of a decoder that has none.
        out_channels: K of the logits.
        filters: D of every convolution.
        norm: makes the normalisation layers.
    """

    def __init__(
        self, channels: Mapping[str, int], out_channels: int, *, filters: int = 128, norm: Norm = group_norm
    ) -> None:
        super().__init__()
        self.level_names = _pyramid_levels(channels, "r" if "r2" in channels else "p")
        self.levels = nn.ModuleList(_two_convolutions(channels[name], filters, norm) for name in self.level_names)
        self.join = ConvNormAct(len(NUMBERS) * filters, filters, 3, norm=norm)
        self.predict = nn.Conv2d(filters, out_channels, 1)

    def forward(self, levels: Mapping[str, Tensor]) -> Tensor:
        """(B, D, h, w) per level to logits (B, K, h, w) at stride 4."""
        maps = [layers(levels[name]) for name, layers in zip(self.level_names, self.levels, strict=True)]
        logits: Tensor = self.predict(self.join(_concatenate(maps)))
        return logits


class AtrousSpatialPyramid(nn.Module):
    """One 1x1 and one atrous 3x3 convolution per rate, concatenated, 1x1; no pooling (Fusion Scheme, Sec. III-B).

    Args:
        in_channels: D of the input.
        filters: D of each branch and of the output.
        rates: atrous rates in cells.
        norm: makes the normalisation layers.
    """

    def __init__(self, in_channels: int, filters: int, *, rates: Sequence[int], norm: Norm) -> None:
        super().__init__()
        pointwise = ConvNormAct(in_channels, filters, norm=norm)
        atrous = [ConvNormAct(in_channels, filters, 3, dilation=rate, norm=norm) for rate in rates]
        self.branches = nn.ModuleList([pointwise, *atrous])
        self.project = ConvNormAct(len(self.branches) * filters, filters, norm=norm)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) to (B, filters, h, w)."""
        projected: Tensor = self.project(torch.cat([branch(features) for branch in self.branches], dim=1))
        return projected


def refine_coarse_to_fine(maps: Sequence[Tensor]) -> list[Tensor]:
    """The refinement pyramid: from the coarsest map, each is upsampled and added to the next finer one.

    Args:
        maps: (B, D, h, w), the finest first.

    Returns:
        As many maps of the same sizes; the coarsest as it was.
    """
    refined = [maps[-1]]
    for finer in reversed(maps[:-1]):
        refined.insert(0, finer + _upsample(refined[0], finer))
    return refined


def _two_convolutions(in_channels: int, filters: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(ConvNormAct(in_channels, filters, 3, norm=norm), ConvNormAct(filters, filters, 3, norm=norm))


def _concatenate(maps: Sequence[Tensor]) -> Tensor:
    """All maps (B, D, h, w) at the size of the first, one after the other in the channels."""
    return torch.cat([maps[0], *(_upsample(coarse, maps[0]) for coarse in maps[1:])], dim=1)


def _upsample(coarse: Tensor, fine: Tensor) -> Tensor:
    return resize_bilinear(coarse, (int(fine.shape[-2]), int(fine.shape[-1])), align_corners=False)


def _pyramid_levels(channels: Mapping[str, int], letter: str) -> list[str]:
    """The names of the levels that are read; raises ValueError if there is one missing."""
    names = [f"{letter}{number}" for number in NUMBERS]
    if not set(names) <= set(channels):
        raise ValueError(
            f"expected the levels {names} of a feature pyramid, got {sorted(channels)}; choose decoder=fpn"
        )
    return names
