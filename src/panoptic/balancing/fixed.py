"""The papers' way: a sum with the weights lambda, which `loss_weights` has applied already."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from panoptic.balancing.base import LossBalancer, Reducer, TaskLosses, TaskWeights


class FixedBalancer(LossBalancer):
    """The plain sum of the losses."""

    def weigh(self, step: TaskLosses, shared: Sequence[Tensor], reducer: Reducer) -> TaskWeights:
        """Weights of 1."""
        return TaskWeights(torch.ones_like(step.values))
