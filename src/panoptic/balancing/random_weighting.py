"""Random weighting (Lin et al., Reasonable Effectiveness of Random Weighting, 2022)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from panoptic.balancing.base import LossBalancer, Reducer, TaskLosses, TaskWeights
from panoptic.balancing.draws import generator_of


class RandomWeightingBalancer(LossBalancer):
    """T times the softmax of T draws of a normal distribution, new ones for every step (Sec. 3, RLW).

    The softmax is the paper's; the factor T is chosen, so that the mean weight is 1 as with the others.

    Args:
        losses_of_heads: as for every balancer.
        seed: of the draws, which are the same in every process and for every batch of an accumulated step.
        options: as for every balancer.
    """

    steps: Tensor

    def __init__(self, losses_of_heads: Mapping[str, Sequence[str]], *, seed: int = 0, **options: Any) -> None:
        super().__init__(losses_of_heads, **options)
        self.seed = seed
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def weigh(self, step: TaskLosses, shared: Sequence[Tensor], reducer: Reducer) -> TaskWeights:
        """Drawn for all tasks, and shared among those of this step."""
        draws = torch.randn(len(self.tasks), generator=generator_of(self.seed, int(self.steps)))
        weights = len(step.rows) * torch.softmax(draws.to(step.rows.device)[step.rows], dim=0)
        return TaskWeights(weights)

    def after_step(self, losses_again: Callable[[], dict[str, Tensor]]) -> None:
        """The next step has draws of its own."""
        self.steps += 1
