"""What every decoder promises."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from panoptic.structures import SizeRule


class Decoder(nn.Module, ABC):
    """Backbone levels to the levels that heads read.

    Attributes:
        channels: {level: D} of what `forward` returns.
        size_rule: image sizes the decoder is exact for; batches are padded to it.
    """

    channels: dict[str, int]
    size_rule: SizeRule = SizeRule()

    @property
    def shared_levels(self) -> tuple[str, ...]:
        """Levels of `channels` that all others are made of, none of them made of another; by default, all."""
        return tuple(self.channels)

    @abstractmethod
    def forward(self, levels: dict[str, Tensor]) -> dict[str, Tensor]:
        """{"c1".."c5": (B, D, h, w)} to {level: (B, D, h, w)}."""
