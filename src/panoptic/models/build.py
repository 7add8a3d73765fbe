"""From configuration nodes to a network; what the data knows is handed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from panoptic.instantiation import build, complete
from panoptic.models.batch_norm import set_momentum
from panoptic.models.heads.base import Head
from panoptic.models.network import PanopticNetwork
from panoptic.models.sharing import share_decoder
from panoptic.structures import Category, ImageStatistics


def build_network(
    config: Mapping[str, Any], categories: Sequence[Category], statistics: ImageStatistics
) -> PanopticNetwork:
    """The network of a configuration.

    Args:
        config: resolved nodes `backbone`, `decoder` (partial), `heads` ({name: partial}), `sharing` (partial, makes
            paths of them; runs from before there was a choice have one path) and `channels_last`, the order of values
            in memory: 1.4 to 1.9 times as fast as torch's own on CPUs and under mixed precision. `batch_norm`, which
            runs from before do not have: `momentum` of all of them, and whether they are `frozen`.
        categories: of the data set.
        statistics: that images are normalised with.
    """
    share = build(config["sharing"]) if "sharing" in config else share_decoder
    paths = share(
        partial(build, config["backbone"]),
        partial(complete, "decoder", config["decoder"]),
        {name: partial(_head, name, node, categories) for name, node in config["heads"].items()},
    )
    network: Any = PanopticNetwork(paths, statistics)
    _set_batch_norm(network, **config.get("batch_norm", {}))
    # Convolutions whose weights lie channels last give features that do, whatever their input.
    memory_format = torch.channels_last if config["channels_last"] else torch.contiguous_format
    arranged: PanopticNetwork = network.to(memory_format=memory_format)  # torch's annotations know no memory_format
    return arranged


def _set_batch_norm(network: PanopticNetwork, *, momentum: float | None = None, frozen: bool = False) -> None:
    if momentum is not None:
        set_momentum(network, momentum)
    if frozen:
        network.freeze_batch_norm()


def _head(name: str, node: Any, categories: Sequence[Category], channels: Mapping[str, int]) -> Head:
    try:
        head: Head = complete(f"heads.{name}", node, channels, categories)
    except KeyError as error:
        raise ValueError(
            f"heads.{name} reads the level {error}, but backbone and decoder have {sorted(channels)}; choose decoder="
        ) from error
    return head
