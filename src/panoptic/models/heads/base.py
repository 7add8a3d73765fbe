"""What every head promises, and the two layers that DeeperLab's heads share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from panoptic.models.backbones.base import LEVELS
from panoptic.models.layers import Norm, SeparableConv, resize_bilinear
from panoptic.structures import Features


class Output(Protocol):
    """What a head returns for a batch."""

    def image(self, index: int, image_size: tuple[int, int]) -> Any:
        """What fusion reads of image `index`, at (h, w) = `image_size`, the network's input without padding."""


class Head(nn.Module, ABC):
    """A task: its layers, its targets and its losses.

    Attributes:
        reads: names of heads whose outputs it needs at inference.
        reads_features: False for a head that works on the outputs of others alone.
        reads_levels: of the backbone, beside those of the decoder; without gradients, others need not be kept.
        terms: names of its losses; they are logged and weighted as `<head>_<term>`.
    """

    reads: tuple[str, ...] = ()
    reads_features: bool = True
    reads_levels: tuple[str, ...] = LEVELS
    terms: tuple[str, ...]

    @abstractmethod
    def forward(self, features: Features, outputs: Mapping[str, Output]) -> Any:
        """Features and the outputs of earlier heads to this head's `Output`, the same in training and evaluation."""

    @property
    @abstractmethod
    def encode(self) -> Any:
        """`Callable[[Sample], Target]`, picklable; runs in loader workers, returns small tensors."""

    @abstractmethod
    def losses(self, output: Any, features: Features, targets: Sequence[Any]) -> dict[str, Tensor]:
        """Unweighted scalars by term; `targets` holds one entry per image, on the device of the output."""

    @abstractmethod
    def as_outputs(self, targets: Sequence[Any], features: Features) -> Any:
        """The output of a perfect head, at the network's input resolution."""


@dataclass(eq=False)
class DenseOutput:
    """Values per pixel, at the resolution of the features.

    Args:
        values: (B, K, h, w) logits or offsets; h, w as the features have them, or those of the input.
        padded_size: (H, W) of the network's input.
        pairs: the K channels are K/2 (dy, dx) pairs.
        align_corners: as in `resize_bilinear`: True at sizes 16k + 1, False for feature pyramids.
    """

    values: Tensor
    padded_size: tuple[int, int]
    pairs: bool = False
    align_corners: bool = True

    def upsampled(self) -> Tensor:
        """(B, K, H, W) in fp32, or (B, K/2, 2, H, W) for pairs, at the network's input resolution."""
        return self._shaped(resize_bilinear(self.values.float(), self.padded_size, align_corners=self.align_corners))

    def image(self, index: int, image_size: tuple[int, int]) -> Tensor:
        """(K, h, w), or (K/2, 2, h, w) for pairs, of one image without its padding.

        Raises:
            ValueError: a value that is not finite; what a fusion made of it would look like a prediction.
        """
        height, width = image_size
        # Channels last would stay so when upsampled, and the fusion's loops would copy what is 16 times as large.
        values = self.values[index : index + 1].float().contiguous()
        if not values.isfinite().all():  # device sync: once per head and image
            raise ValueError("expected finite outputs of every head, got nan or infinity; the network has diverged")
        full = resize_bilinear(values, self.padded_size, align_corners=self.align_corners)
        return self._shaped(full)[0, ..., :height, :width]

    def _shaped(self, full: Tensor) -> Tensor:
        if not self.pairs:
            return full
        batch, channels, height, width = full.shape
        return full.view(batch, channels // 2, 2, height, width)


def prediction_layers(
    in_channels: int, filters: int, out_channels: int, *, kernel_size: int, deep_head: bool, norm: Norm
) -> nn.Module:
    """A k x k separable convolution, then 1x1 to the output (DeeperLab, Sec. 3.3).

    Args:
        in_channels: D of the decoder.
        filters: of the first layer: 256 for semantic, 64 for the instance heads.
        out_channels: K of the output.
        kernel_size: k of the first layer, 7 in the paper.
        deep_head: False leaves only the 1x1 (DH of Table 4).
        norm: makes the normalisation layer.
    """
    if not deep_head:
        return nn.Conv2d(in_channels, out_channels, 1)
    return nn.Sequential(
        SeparableConv(in_channels, filters, kernel_size, norm=norm), nn.Conv2d(filters, out_channels, 1)
    )
