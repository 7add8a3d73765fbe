"""Two networks side by side, such as semantic segmentation and a Mask R-CNN that were trained apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn import functional as F

from panoptic.models.heads.base import Head, Output
from panoptic.models.network import NetworkPath, PanopticNetwork
from panoptic.structures import Batch, Features, Sample, SizeRule


class JoinedNetworks(nn.Module):
    """Looks at images with two networks, each of which pads and normalises them as it needs; has the outputs of both.

    Args:
        first: any network.
        second: one whose heads have other names.

    Raises:
        ValueError: both have a head of one name.
    """

    def __init__(self, first: PanopticNetwork, second: PanopticNetwork) -> None:
        super().__init__()
        both = sorted(set(first.heads) & set(second.heads))
        if both:
            others = sorted(set(second.heads) - set(both))
            raise ValueError(
                f"both runs have heads {both}, expected each name in one; say which heads of the second to take, "
                f"such as with_heads=[{','.join(others)}]"
            )
        self.first, self.second = first, second

    @property
    def paths(self) -> list[NetworkPath]:
        """The paths of both, in the order they run."""
        return [*self.first.paths, *self.second.paths]

    @property
    def heads(self) -> dict[str, Head]:
        """Every head by name, in the order they run."""
        return {**self.first.heads, **self.second.heads}

    @property
    def encoders(self) -> dict[str, Callable[[Sample], Any]]:
        """{head: its target encoder}."""
        return {**self.first.encoders, **self.second.encoders}

    @property
    def losses_of_heads(self) -> dict[str, list[str]]:
        """{head: `<head>_<term>` of its losses}."""
        return {**self.first.losses_of_heads, **self.second.losses_of_heads}

    @property
    def loss_names(self) -> list[str]:
        """`<head>_<term>` of every loss."""
        return [*self.first.loss_names, *self.second.loss_names]

    @property
    def size_rule(self) -> SizeRule:
        """Any size: each network pads for itself."""
        return SizeRule()

    def forward(
        self, images: Tensor, image_sizes: list[tuple[int, int]]
    ) -> tuple[dict[str, Output], dict[str, Features]]:
        """Run both; arguments and results as those of `PanopticNetwork`."""
        outputs: dict[str, Output] = {}
        features: dict[str, Features] = {}
        for network in (self.first, self.second):
            own_outputs, own_features = network(_padded(images, image_sizes, network.size_rule), image_sizes)
            outputs |= own_outputs
            features |= own_features
        return outputs, features

    def losses(
        self, outputs: Mapping[str, Output], features: Mapping[str, Features], batch: Batch
    ) -> dict[str, Tensor]:
        """{`<head>_<term>`: unweighted scalar}."""
        return {**self.first.losses(outputs, features, batch), **self.second.losses(outputs, features, batch)}

    @property
    def shares_features(self) -> bool:
        """Whether `shared` gives any."""
        return self.first.shares_features or self.second.shares_features

    def shared(self, features: Mapping[str, Features]) -> list[Tensor]:
        """What heads of the first share, and what those of the second do; the networks share nothing."""
        return [
            tensor
            for network in (self.first, self.second)
            for tensor in network.shared({name: features[name] for name in network.heads})
        ]


Network: TypeAlias = PanopticNetwork | JoinedNetworks
"""What is trained, evaluated and predicted with."""


def _padded(images: Tensor, image_sizes: list[tuple[int, int]], size_rule: SizeRule) -> Tensor:
    """The images (B, 3, H, W) with the padding at the bottom and right that a network needs, in any colour."""
    height, width = max(h for h, _ in image_sizes), max(w for _, w in image_sizes)
    padded_height, padded_width = size_rule.pad(height, width)
    return F.pad(images[..., :height, :width], (0, padded_width - width, 0, padded_height - height))
