"""From checkpoints to networks: of one run, or of two runs side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from panoptic.checkpoints import categories_of, find_checkpoint, load_weights, read_checkpoint, without_weights
from panoptic.inference.test_time import PLAIN
from panoptic.models.build import build_network
from panoptic.models.joined import JoinedNetworks, Network
from panoptic.models.network import ImageOutputs, NetworkPath, PanopticNetwork
from panoptic.structures import Category, FusionResult, ImageStatistics


@dataclass(frozen=True)
class SecondRun:
    """A run whose network is used beside another's.

    Args:
        checkpoint: of the run.
        heads: names of those to take; None takes all.
    """

    checkpoint: Path
    heads: Sequence[str] | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> SecondRun | None:
        """What `with_run`, `with_checkpoint` and `with_heads` of a command say; None without `with_run`.

        Raises:
            FileNotFoundError: no such folder or checkpoint.
            ValueError: `with_heads` without `with_run`.
        """
        run, heads = options["with_run"], options["with_heads"]
        if run is None:
            if heads is not None:
                raise ValueError(f"with_heads={heads} is of a second run; give with_run=<folder> too")
            return None
        return cls(find_checkpoint(run, options["with_checkpoint"]), [heads] if isinstance(heads, str) else heads)


def load_network(content: Mapping[str, Any], path: Path | str, second: SecondRun | None = None) -> Network:
    """The network of a checkpoint with its weights, and that of a second run beside it if there is one.

    Args:
        content: what `read_checkpoint` gave.
        path: of the checkpoint, for errors.
        second: another run, of the same categories.

    Raises:
        FileNotFoundError: the second checkpoint is missing.
        ValueError: weights that do not fit, unequal categories, a head in both or in neither.
    """
    network = _network_of(content, path)
    if second is None:
        return network
    other = read_checkpoint(second.checkpoint)
    ours, theirs = ([(c.name, c.is_thing) for c in categories_of(each)] for each in (content, other))
    if ours != theirs:
        raise ValueError(
            f"expected two runs of the same categories, got {[name for name, _ in ours]} in {path} "
            f"and {[name for name, _ in theirs]} in {second.checkpoint}"
        )
    return JoinedNetworks(network, _with_heads(_network_of(other, second.checkpoint), second, other))


def _network_of(content: Mapping[str, Any], path: Path | str) -> PanopticNetwork:
    own = content["panoptic"]
    network = build_network(without_weights(own["config"]), categories_of(content), _statistics(content))
    load_weights(network, content, path, prefix="network.")
    return network


def _with_heads(network: PanopticNetwork, run: SecondRun, content: Mapping[str, Any]) -> PanopticNetwork:
    """The same network with the wanted heads alone."""
    if run.heads is None:
        return network
    missing = sorted(set(run.heads) - set(network.heads))
    if missing or not run.heads:
        raise ValueError(
            f"expected with_heads to name heads of {run.checkpoint}, {list(network.heads)}, got {run.heads}"
        )
    kept = [{name: head for name, head in path.named_heads().items() if name in run.heads} for path in network.paths]
    paths = [
        NetworkPath(path.backbone, path.decoder, heads)
        for path, heads in zip(network.paths, kept, strict=True)
        if heads
    ]
    return PanopticNetwork(paths, _statistics(content))


def _statistics(content: Mapping[str, Any]) -> ImageStatistics:
    return ImageStatistics(**content["panoptic"]["statistics"])


@torch.no_grad()
def try_fusion(
    network: Network,
    fusion: Callable[..., FusionResult],
    categories: Sequence[Category],
    infer: Callable[..., Any] = PLAIN,
) -> FusionResult:
    """Fuse the outputs of one small image, so that parts which do not fit fail at once; returns what came of it.

    Args:
        network: on any device; its mode is kept.
        fusion: `fuse_*` with its options bound.
        categories: of the data set.
        infer: how the network looks at the image, as `TestTime` does.

    Raises:
        ValueError: the fusion lacks an output, or does not know an argument of its configuration.
    """
    size = network.size_rule.pad(64, 64)
    training = network.training
    device = next(network.parameters()).device
    outputs, _ = infer(network.eval(), torch.zeros(1, 3, *size, dtype=torch.uint8, device=device), [size])
    network.train(training)
    try:
        return fusion(ImageOutputs(outputs, 0, size), categories)
    except (KeyError, TypeError) as error:
        message = error.args[0] if error.args else error
        raise ValueError(
            f"heads {sorted(outputs)} and fusion do not fit: {message}; choose heads= and fusion="
        ) from error
