"""Heads that make no mistake: what a result would be if one of them were as good as the ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from panoptic.models.heads.base import Head, Output
from panoptic.structures import Features


def with_perfect_heads(
    heads: Mapping[str, Head],
    outputs: Mapping[str, Output],
    features: Mapping[str, Features],
    targets: Mapping[str, Sequence[Any]],
    perfect: Sequence[str],
) -> dict[str, Output]:
    """The outputs with those of some heads made of their targets; heads that read one of these run again.

    Args:
        heads: in the order they run.
        outputs: of a batch, by head.
        features: what each head reads.
        targets: {head: one per image}.
        perfect: names of the heads that make no mistake.
    """
    changed: dict[str, Output] = dict(outputs)
    for name, head in heads.items():
        if name in perfect:
            changed[name] = head.as_outputs(targets[name], features[name])
        elif any(changed[read] is not outputs[read] for read in head.reads):
            changed[name] = head(features[name], changed)
    return changed
