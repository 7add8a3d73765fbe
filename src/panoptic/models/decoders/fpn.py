"""Feature pyramid network (Lin et al., 2017), and the RPN feature maps of OANet (Sec. 3.1)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from panoptic.models.decoders.base import Decoder
from panoptic.structures import SizeRule

BACKBONE_LEVELS = ("c2", "c3", "c4", "c5")
OUTPUT_STRIDE = 32


class FPNDecoder(Decoder):
    """torchvision's feature pyramid: "p2".."p5" at strides 4 to 32, and "p6", every second cell of "p5".

    Args:
        channels: {level: D} of the backbone, which needs output stride 32.
        filters: D of every level of the pyramid.
        rpn_features: adds "r2".."r6": a 3x3 convolution with ReLU, the same for every level (OANet, Sec. 3.1: "RPN
            feature maps"), which RPN and stuff branch share (one for all levels is chosen, as in Mask R-CNN).

    Raises:
        ValueError: the backbone lacks one of "c2".."c5".
    """

    size_rule = SizeRule(32)
    reads_levels = BACKBONE_LEVELS
    output_stride = OUTPUT_STRIDE

    def __init__(self, channels: Mapping[str, int], *, filters: int = 256, rpn_features: bool = False) -> None:
        super().__init__()
        missing = sorted(set(BACKBONE_LEVELS) - set(channels))
        if missing:
            raise ValueError(f"expected a backbone with levels c2 to c5, got {sorted(channels)} without {missing}")
        self.pyramid = FeaturePyramidNetwork(
            [channels[level] for level in BACKBONE_LEVELS], filters, extra_blocks=LastLevelMaxPool()
        )
        self.channels = {f"p{number}": filters for number in range(2, 7)}
        self.rpn_features: nn.Module | None = None
        if rpn_features:
            self.rpn_features = nn.Sequential(nn.Conv2d(filters, filters, 3, padding=1), nn.ReLU())
            self.channels |= {f"r{number}": filters for number in range(2, 7)}

    @property
    def shared_levels(self) -> tuple[str, ...]:
        """Levels "p2" to "p5": all others are made of them."""
        return ("p2", "p3", "p4", "p5")

    def set_output_stride(self, stride: int) -> None:
        """Refuse all but 32: anchors and regions of detection heads are tied to the strides of the levels."""
        if stride != OUTPUT_STRIDE:
            raise ValueError(
                f"a feature pyramid, and the heads that read it, need a backbone of output_stride {OUTPUT_STRIDE}, "
                f"got {stride}"
            )

    def forward(
        self, levels: dict[str, Tensor], image_sizes: Sequence[tuple[int, int]] | None = None
    ) -> dict[str, Tensor]:
        """From "c2".."c5" (B, D, h, w) to "p2".."p6", and "r2".."r6", (B, filters, h, w) at strides 4 to 64.

        Raises:
            ValueError: a level has not half the rows and columns of the one before.
        """
        read = OrderedDict((level, levels[level]) for level in BACKBONE_LEVELS)
        for fine, coarse in pairwise(BACKBONE_LEVELS):
            height, width = read[fine].shape[-2:]
            if read[coarse].shape[-2:] != ((height + 1) // 2, (width + 1) // 2):
                raise ValueError(
                    f"expected {coarse} of {(height + 1) // 2}x{(width + 1) // 2} cells beside {fine} of "
                    f"{height}x{width}, got {read[coarse].shape[-2]}x{read[coarse].shape[-1]}; this decoder needs a "
                    "backbone of output_stride 32"
                )
        pyramid = {f"p{number}": level for number, level in enumerate(self.pyramid(read).values(), start=2)}
        if self.rpn_features is None:
            return pyramid
        return pyramid | {name.replace("p", "r"): self.rpn_features(level) for name, level in pyramid.items()}
