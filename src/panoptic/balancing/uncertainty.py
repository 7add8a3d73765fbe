"""Learned uncertainty (Kendall et al., Multi-Task Learning Using Uncertainty to Weigh Losses, 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from panoptic.balancing.base import LossBalancer, Reducer, TaskLosses, TaskWeights


class UncertaintyBalancer(LossBalancer):
    """L_t / sigma_t^2 + log sigma_t, with sigma_t learned beside the network (Sec. 3.2, Eq. 10).

    The form for classification is taken for every task (chosen: that for regression has half its weight, a constant
    that lambda can give); s_t = log sigma_t^2 is what is learned, from 0, so that training begins with weights of 1.

    Args:
        losses_of_heads: as for every balancer.
        options: as for every balancer.
    """

    def __init__(self, losses_of_heads: Mapping[str, Sequence[str]], **options: Any) -> None:
        super().__init__(losses_of_heads, **options)
        self.log_variances = nn.Parameter(torch.zeros(len(self.tasks)))

    def weigh(self, step: TaskLosses, shared: Sequence[Tensor], reducer: Reducer) -> TaskWeights:
        """exp(-s_t), and the sum of s_t / 2."""
        log_variances = self.log_variances[step.rows]
        return TaskWeights(torch.exp(-log_variances), log_variances.sum() / 2)
