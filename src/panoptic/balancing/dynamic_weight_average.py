"""Dynamic weight average (Liu et al., End-to-End Multi-Task Learning with Attention, 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from panoptic.balancing.base import LossBalancer, Reducer, TaskLosses, TaskWeights


class DynamicWeightAverageBalancer(LossBalancer):
    """Weights by how slowly a task's loss fell from the epoch before last to the last one (Sec. 3.2, Eq. 7).

    lambda_t = T exp(r_t / temperature) / sum_s exp(r_s / temperature), r_t = L_t(e - 1) / L_t(e - 2); 1 in the first
    two epochs. A loss of an epoch is its mean over the steps in which the task has one, and over processes. r_t is 1
    for a task that was absent from one of the two epochs (chosen).

    Args:
        losses_of_heads: as for every balancer.
        temperature: 2 in the paper; large ones give equal weights.
        options: as for every balancer.

    Raises:
        ValueError: the temperature is not positive.
    """

    sums: Tensor
    counts: Tensor
    last: Tensor
    before_last: Tensor

    def __init__(
        self, losses_of_heads: Mapping[str, Sequence[str]], *, temperature: float = 2.0, **options: Any
    ) -> None:
        super().__init__(losses_of_heads, **options)
        if not temperature > 0:
            raise ValueError(f"expected a positive balancing.temperature, got {temperature}")
        self.temperature = temperature
        for name in ("sums", "counts", "last", "before_last"):  # 0 is the mean loss of a task that was absent
            self.register_buffer(name, torch.zeros(len(self.tasks)))

    def weigh(self, step: TaskLosses, shared: Sequence[Tensor], reducer: Reducer) -> TaskWeights:
        """Eq. 7 with T the tasks of this step, which have these weights among them."""
        self.sums[step.rows] += step.values
        self.counts[step.rows] += 1
        is_known = (self.last != 0) & (self.before_last != 0)
        rates = torch.where(is_known, self.last / self.before_last, 1.0)[step.rows]
        return TaskWeights(len(rates) * torch.softmax(rates / self.temperature, dim=0))

    def end_epoch(self) -> None:
        """The epoch's means become those of the last one."""
        self.before_last.copy_(self.last)
        self.last.copy_(self.sums / self.counts.clamp_min(1))
        self.sums.zero_()
        self.counts.zero_()
