"""How the learning rate follows the number of images of an optimizer step: a factor of the optimizer's own rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def none(images_per_step: int) -> float:
    """1: the rate is what the configuration says, whatever the batch."""
    return 1.0


def linear(images_per_step: int, *, reference_batch_size: int) -> float:
    """In proportion to the images of a step (Goyal et al. 2017, "Accurate, Large Minibatch SGD", Sec. 2.1).

    Args:
        images_per_step: of all processes and accumulated batches together.
        reference_batch_size: images of a step that the configured rate is meant for.
    """
    return images_per_step / _checked(reference_batch_size)


def sqrt(images_per_step: int, *, reference_batch_size: int) -> float:
    """By the root of the images of a step (Krizhevsky 2014, "One weird trick"), which keeps the variance of gradients.

    Args:
        images_per_step: of all processes and accumulated batches together.
        reference_batch_size: images of a step that the configured rate is meant for.
    """
    return math.sqrt(images_per_step / _checked(reference_batch_size))


def with_scaled_rate(optimizer: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """The node of an optimizer with its `lr` multiplied.

    Raises:
        ValueError: it has no `lr`, and the factor is not 1.
    """
    if factor == 1:
        return dict(optimizer)
    if "lr" not in optimizer:
        raise ValueError(
            f"expected optimizer.lr, which lr_scaling multiplies, got {sorted(optimizer)}; give +optimizer.lr"
        )
    return {**optimizer, "lr": optimizer["lr"] * factor}


def _checked(reference_batch_size: int) -> int:
    if reference_batch_size < 1:
        raise ValueError(f"expected lr_scaling.reference_batch_size of at least 1, got {reference_batch_size}")
    return reference_batch_size
