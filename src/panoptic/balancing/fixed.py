"""The papers' way: a sum with the weights lambda, which `loss_weights` has applied already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from panoptic.balancing.base import BalancedLoss, LossBalancer, Reducer


class FixedBalancer(LossBalancer):
    """The plain sum of the losses."""

    def forward(self, losses: Mapping[str, Tensor], shared: Sequence[Tensor], reducer: Reducer) -> BalancedLoss:
        """Total and weights of 1."""
        total = torch.stack(list(losses.values())).sum()
        return BalancedLoss(total, {name: torch.ones_like(loss) for name, loss in losses.items()})
