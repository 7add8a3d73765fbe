"""GradNorm (Chen et al., 2018), with norms on the shared features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from panoptic.balancing.base import TaskLosses
from panoptic.balancing.gramian import FeatureGradientBalancer

LEAST_WEIGHT = 1e-3


class GradNormBalancer(FeatureGradientBalancer):
    """Weights that move until w_t times the norm of a task's gradient is the mean norm times r_t^alpha (Sec. 3.2).

    r_t is the task's loss over that of its first step, over the mean of this quotient. One step down the slope of
    sum |w_t n_t - target_t| with the target held fixed (Eq. 2) is w_t -= rate sign(w_t n_t - target_t) n_t; weights are
    then scaled to a mean of 1, those of a step among themselves. DEVIATION: norms are on the shared features, not on
    the last shared layer's weights, and divided by the mean of w_t n_t, so that `rate` means the same for every
    network. Weights stay above 0.001 before they are scaled (chosen).

    Args:
        losses_of_heads: as for every balancer.
        alpha: strength of the pull to equal rates of training; 1.5 in the paper for its main experiments.
        rate: of the weights; 0.025 in the paper.
        options: as for every balancer.

    Raises:
        ValueError: a rate that is not positive; a negative loss, in `forward`.
    """

    task_weights: Tensor
    first_values: Tensor

    def __init__(
        self, losses_of_heads: Mapping[str, Sequence[str]], *, alpha: float = 1.5, rate: float = 0.025, **options: Any
    ) -> None:
        super().__init__(losses_of_heads, **options)
        if not rate > 0:
            raise ValueError(f"expected a positive balancing.rate, got {rate}")
        self.alpha, self.rate = alpha, rate
        self.register_buffer("task_weights", torch.ones(len(self.tasks)))
        self.register_buffer("first_values", torch.zeros(len(self.tasks)))  # 0 before a task's first step

    def weights_of(self, gramian: Tensor, step: TaskLosses) -> Tensor:
        """The weights so far; they move afterwards."""
        self.check_positive(step, "grad_norm")
        weights = self.task_weights[step.rows]
        self._move(gramian.diagonal().sqrt().to(weights), step)
        return weights

    def _move(self, norms: Tensor, step: TaskLosses) -> None:
        first = self.first_values[step.rows]
        self.first_values[step.rows] = torch.where(first == 0, step.values, first)
        rates = step.values / self.first_values[step.rows]
        weights = self.task_weights[step.rows]
        mean = (weights * norms).mean()
        targets = mean * (rates / rates.mean()) ** self.alpha
        moved = (weights - self.rate * torch.sign(weights * norms - targets) * norms / mean).clamp_min(LEAST_WEIGHT)
        self.task_weights[step.rows] = moved * weights.sum() / moved.sum()
