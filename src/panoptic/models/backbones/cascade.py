"""ResNets with more blocks in cascade, and multi-grid (DeepLabv3, Sec. 3.2)."""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from panoptic.models.backbones.base import LEVELS, SelectiveBackbone
from panoptic.models.backbones.timm import check_name, load_weights
from panoptic.models.layers import set_rate

log = logging.getLogger(__name__)

RESNET_BLOCKS = 4
MOST_BLOCKS = 7
FIRST_STRIDE = 4
"""Of block 1, in pixels."""

Unit = BasicBlock | Bottleneck


class CascadedResNet(SelectiveBackbone):
    """Features "c1".."c5" of a timm ResNet whose last block is repeated; "c5" is what the last repetition gives.

    Blocks 1 to 4 of the paper are timm's layer1 to layer4. Each block from the second on halves the resolution until
    `output_stride` is reached; every one after it doubles the atrous rate instead. All 3x3 convolutions of a block have
    its rate, those of its first unit too, and read no cells between those that a stride leaves: a stride comes before
    them, in the first 1x1 and the shortcut of a block (in basic units, which have no 1x1, the first 3x3 leaves the same
    cells out). So a network can be trained at one output stride and evaluated at another: finer features hold the
    coarser ones, to the border.

    DEVIATION (Sec. 3.2): the paper's blocks stride in the last 3x3 of the block before, which gives the next block the
    same cells; here "c2" to "c4" are what a block makes before cells are left out. Timm's weights were trained with
    strides in the first 3x3, which sees neighbours twice as far apart here until it is finetuned.

    Args:
        name: a timm ResNet of basic or bottleneck units, such as "resnet101" or "seresnet50".
        num_blocks: 4 to 7; blocks 5, 6 and 7 are replicas of block 4, a convolution that reads another number of
            channels is drawn anew.
        multi_grid: one unit rate for each unit of block 4 and of its replicas, which multiply the block's rate.
        output_stride: stride of "c5" in pixels: 4 times a power of two, 256 at most for seven blocks (Table 1).
        layers: number of units of each of blocks 1 to 4; None leaves those of the name. For small trainings.
        pretrained: load timm's weights of that name.
        checkpoint: a local file of weights of blocks 1 to 4 instead; excludes `pretrained`.

    Raises:
        ValueError: an unknown name or not a ResNet, a number of blocks or units, unit rates or an output stride that it
            cannot have, both sources of weights, or timm's weights for other `layers`.
        FileNotFoundError: `checkpoint` does not exist.
    """

    def __init__(
        self,
        name: str,
        *,
        num_blocks: int = RESNET_BLOCKS,
        multi_grid: Sequence[int] = (1, 1, 1),
        output_stride: int = 16,
        layers: Sequence[int] | None = None,
        pretrained: bool = False,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        check_name(name, pretrained=pretrained, checkpoint=checkpoint)
        if not RESNET_BLOCKS <= num_blocks <= MOST_BLOCKS:
            raise ValueError(f"expected num_blocks from {RESNET_BLOCKS} to {MOST_BLOCKS}, got {num_blocks}")
        self.body = _create(name, layers, pretrained)
        last = cast(nn.Sequential, self.body["layer4"])
        if len(multi_grid) != len(last) or min(multi_grid) < 1:
            raise ValueError(
                f"expected a multi_grid of {len(last)} rates of at least 1, one for each unit of block 4 of {name}, "
                f"got {list(multi_grid)}"
            )
        self.levels = list(LEVELS)
        self.multi_grid = tuple(multi_grid)
        self.weights_report = f"backbone {name}: {'timm' if pretrained else 'random'} weights"
        if checkpoint is not None:
            self.weights_report = load_weights(self.body, Path(checkpoint).expanduser())
        self.channels = dict(zip(self.levels, self.body.feature_info.channels(), strict=True))
        self.blocks = nn.ModuleList(replicate(last, self.channels["c5"]) for _ in range(num_blocks - RESNET_BLOCKS))
        log.info(self.weights_report)
        self.set_output_stride(output_stride)

    def set_output_stride(self, stride: int) -> None:
        """Change strides and rates, and no parameter.

        Raises:
            ValueError: a stride that so many blocks cannot have; nothing is changed.
        """
        blocks = [cast(nn.Sequential, self.body[f"layer{number}"]) for number in range(1, RESNET_BLOCKS + 1)]
        blocks += [cast(nn.Sequential, block) for block in self.blocks]
        geometry = block_geometry(len(blocks), stride)
        reached = FIRST_STRIDE
        self.strides = {"c1": 2}
        for number, (block, (block_stride, rate)) in enumerate(zip(blocks, geometry, strict=True), start=1):
            grid = self.multi_grid if number >= RESNET_BLOCKS else (1,) * len(block)
            for unit, unit_rate in zip(block, grid, strict=True):
                _set_rates(unit, rate * unit_rate)
            if number > 1:
                _set_stride(cast(Unit, block[0]), block_stride, rate)
            reached *= block_stride
            self.strides[f"c{min(number, RESNET_BLOCKS) + 1}"] = reached
        self.output_stride = stride

    def forward(self, images: Tensor, levels: Collection[str] = LEVELS) -> dict[str, Tensor]:
        """Normalised (B, 3, H, W) images to {level: (B, D, h, w)}, of `levels` and the last."""
        level_after = dict(zip(self.body.feature_info.module_name()[:-1], LEVELS[:-1], strict=True))
        found: dict[str, Tensor] = {}
        features = images
        for name, part in self.body.items():
            features = part(features)
            if level_after.get(name) in levels:
                found[level_after[name]] = features
        for block in self.blocks:
            features = block(features)
        return found | {LEVELS[-1]: features}


def block_geometry(num_blocks: int, output_stride: int) -> list[tuple[int, int]]:
    """Stride and atrous rate of each block (Sec. 3.2, Fig. 3): the stride of the first is the stem's own, here 1.

    Args:
        num_blocks: at least 1.
        output_stride: of the last block, in pixels.

    Raises:
        ValueError: a stride that so many blocks cannot have.
    """
    possible = [FIRST_STRIDE * 2**number for number in range(num_blocks)]
    if output_stride not in possible:
        raise ValueError(f"expected an output_stride of {possible} for {num_blocks} blocks, got {output_stride}")
    geometry, reached, rate = [(1, 1)], FIRST_STRIDE, 1
    for _ in range(num_blocks - 1):
        if reached < output_stride:
            reached *= 2
            geometry.append((2, rate))
        else:
            rate *= 2
            geometry.append((1, rate))
    return geometry


def replicate(block: nn.Sequential, in_channels: int) -> nn.Sequential:
    """A copy of a block that reads `in_channels`: weights too, but of convolutions whose shape changes.

    Those are the first of the first unit and its shortcut, drawn as He et al. do (`fan_out`, as timm).
    """
    replica = copy.deepcopy(block)
    first = cast(Unit, replica[0])
    first.conv1 = _reading(first.conv1, in_channels)
    shortcut = cast(nn.Sequential, first.downsample)
    for number, part in enumerate(shortcut):
        if isinstance(part, nn.Conv2d):
            shortcut[number] = _reading(part, in_channels)
    return replica


def _reading(convolution: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    """The convolution, if it reads so many channels; else one of random weights that does, of the same geometry."""
    if convolution.in_channels == in_channels:
        return convolution
    new = nn.Conv2d(
        in_channels,
        convolution.out_channels,
        cast(tuple[int, int], convolution.kernel_size),
        stride=cast(tuple[int, int], convolution.stride),
        padding=cast(tuple[int, int], convolution.padding),
        dilation=cast(tuple[int, int], convolution.dilation),
        bias=False,
        device=convolution.weight.device,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    return new


def _create(name: str, layers: Sequence[int] | None, pretrained: bool) -> Any:
    """The levels of a model; refuse what is not a ResNet of timm's plain units."""
    own: dict[str, Any] = {}
    if layers is not None:
        if len(layers) != RESNET_BLOCKS or min(layers) < 1:
            raise ValueError(f"expected layers as {RESNET_BLOCKS} numbers of units, at least 1, got {list(layers)}")
        if pretrained:
            raise ValueError(f"timm's weights of {name} are for its own layers; leave layers null, or pretrained false")
        own["layers"] = tuple(layers)
    body = timm.create_model(name, features_only=True, pretrained=pretrained, **own)
    parts = dict(body.named_children())
    names = [f"layer{number}" for number in range(1, RESNET_BLOCKS + 1)]
    units = [unit for block in names for unit in cast(nn.Sequential, parts.get(block, nn.Sequential()))]
    strange = sorted({type(unit).__name__ for unit in units if type(unit) not in (BasicBlock, Bottleneck)})
    if strange or not set(names) <= set(parts):
        raise ValueError(
            f"expected a timm ResNet of basic or bottleneck units to put in cascade, got {name} "
            f"of {strange or sorted({type(part).__name__ for part in parts.values()})}"
        )
    if not all(isinstance(unit.aa, nn.Identity) for unit in units):
        raise ValueError(f"{name} blurs before it strides, which has no atrous form; choose one without, as resnet50")
    return body


def _set_rates(unit: nn.Module, rate: int) -> None:
    for part in unit.modules():
        if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3):
            set_rate(part, rate)


def _set_stride(unit: Unit, stride: int, rate: int) -> None:
    """Of the first unit of a block: its convolutions, which have their rates, and its shortcut.

    Args:
        unit: changed in place.
        stride: of the block.
        rate: of the block, in cells of its result.
    """
    unit.conv1.stride = (stride, stride)
    if isinstance(unit, Bottleneck):
        unit.conv2.stride = (1, 1)
    else:  # its first convolution is a 3x3, of cells that the stride leaves
        set_rate(unit.conv1, stride * unit.conv1.dilation[0])
    shortcut = cast(nn.Sequential, unit.downsample)
    if isinstance(shortcut[0], nn.Conv2d):
        shortcut[0].stride = (stride, stride)
    elif stride > 1:
        shortcut[0] = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
    else:
        shortcut[0] = AtrousMean(rate // 2)


class AtrousMean(nn.Module):
    """Means of 2x2 cells, those of a ResNet-D's shortcut where its block does not stride.

    Args:
        rate: how far the cells are apart; that of the block before.
    """

    def __init__(self, rate: int) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w), each cell with those to the right and below, at the border with itself."""
        for dim in (-2, -1):
            size = features.shape[dim]
            nearest = min(self.rate, size)
            further = features.narrow(dim, nearest, size - nearest)
            border = features.narrow(dim, size - nearest, nearest)
            features = (features + torch.cat([further, border], dim)) / 2
        return features
