"""What every decoder promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from panoptic.models.backbones.base import LEVELS
from panoptic.structures import SizeRule


class Decoder(nn.Module, ABC):
    """Backbone levels to the levels that heads read.

    Attributes:
        channels: {level: D} of what `forward` returns.
        size_rule: image sizes the decoder is exact for; batches are padded to it.
        output_stride: of "c5" in pixels, as the backbone has it.
        reads_levels: of the backbone; without gradients, others need not be kept.
    """

    channels: dict[str, int]
    size_rule: SizeRule = SizeRule()
    output_stride: int = 16
    reads_levels: tuple[str, ...] = LEVELS

    def set_output_stride(self, stride: int) -> None:
        """Follow a backbone whose "c5" has another stride, without change of parameters; by default, just take note.

        Raises:
            ValueError: the decoder cannot read features of this stride; nothing is changed.
        """
        self.output_stride = stride

    @property
    def shared_levels(self) -> tuple[str, ...]:
        """Levels of `channels` that all others are made of, none of them made of another; by default, all."""
        return tuple(self.channels)

    @abstractmethod
    def forward(
        self, levels: dict[str, Tensor], image_sizes: Sequence[tuple[int, int]] | None = None
    ) -> dict[str, Tensor]:
        """{"c1".."c5": (B, D, h, w)} to {level: (B, D, h, w)}.

        Args:
            levels: of the backbone.
            image_sizes: (h, w) of each image before padding, in pixels; None for images without padding.
        """
