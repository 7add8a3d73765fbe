"""What a backbone may promise beside its features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

from torch import Tensor, nn

LEVELS = ("c1", "c2", "c3", "c4", "c5")
"""Of a backbone; one may lack the first."""


class SelectiveBackbone(nn.Module, ABC):
    """A backbone that can let go of levels which nothing reads while it makes those after them."""

    @abstractmethod
    def forward(self, images: Tensor, levels: Collection[str] = LEVELS) -> dict[str, Tensor]:
        """Normalised (B, 3, H, W) images to {level: (B, D, h, w)}, of `levels` and the last."""
