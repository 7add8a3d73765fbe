"""From configuration nodes to a network; what the data knows is handed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.utils import instantiate

from panoptic.models.network import NetworkPath, PanopticNetwork
from panoptic.structures import Category, ImageStatistics


def build_network(
    config: Mapping[str, Any], categories: Sequence[Category], statistics: ImageStatistics
) -> PanopticNetwork:
    """A network of one path.

    Args:
        config: resolved nodes `backbone`, `decoder` (partial) and `heads` ({name: partial}).
        categories: of the data set.
        statistics: that images are normalised with.
    """
    backbone = instantiate(config["backbone"])
    decoder = instantiate(config["decoder"])(backbone.channels)
    channels = {**backbone.channels, **decoder.channels}
    heads = {name: instantiate(node)(channels, categories) for name, node in config["heads"].items()}
    return PanopticNetwork([NetworkPath(backbone, decoder, heads)], statistics)
