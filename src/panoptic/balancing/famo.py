"""FAMO (Liu et al., Fast Adaptive Multitask Optimization, 2023)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from panoptic.balancing.base import LossBalancer, Reducer, TaskLosses, TaskWeights

LEAST_LOSS = 1e-8
"""Of which a logarithm is taken, as in the paper's code."""


class FAMOBalancer(LossBalancer):
    """Weights by how little a task's log loss fell in the last step (Algorithm 1).

    z = softmax(xi); w_t = c z_t / L_t with c = 1 / sum_s z_s / L_s. After the optimizer's step, with the losses L' of
    the same batch: xi -= rate (J (log L - log L') + decay xi), where J is the Jacobian of the softmax. The losses'
    lower bound, which the paper subtracts, is 0. Tasks that a step lacks take no part in it (chosen). Not exact when
    gradients are accumulated: it is not linear in the losses.

    Args:
        losses_of_heads: as for every balancer.
        rate: of xi; 0.025 in the paper's code.
        decay: gamma; 0.001 in the paper.
        options: as for every balancer.

    Raises:
        ValueError: a rate that is not positive; a negative loss, in `forward`.
    """

    exact_when_accumulated = False
    logits: Tensor

    def __init__(
        self, losses_of_heads: Mapping[str, Sequence[str]], *, rate: float = 0.025, decay: float = 1e-3, **options: Any
    ) -> None:
        super().__init__(losses_of_heads, **options)
        if not rate > 0:
            raise ValueError(f"expected a positive balancing.rate, got {rate}")
        self.rate, self.decay = rate, decay
        self.register_buffer("logits", torch.zeros(len(self.tasks)))
        self._before: tuple[Tensor, Tensor] | None = None

    def weigh(self, step: TaskLosses, shared: Sequence[Tensor], reducer: Reducer) -> TaskWeights:
        """Weights c z_t / L_t; the losses are remembered until the step is done."""
        self.check_positive(step, "famo")
        self._before = (step.rows, step.values)
        quotients = torch.softmax(self.logits[step.rows], dim=0) / step.values.clamp_min(LEAST_LOSS)
        return TaskWeights(quotients / quotients.sum())

    def after_step(self, losses_again: Callable[[], dict[str, Tensor]]) -> None:
        """Move xi by what the step did to the losses, unless one of them is not finite any more."""
        if self._before is None or not len(self._before[0]):
            return
        rows, before = self._before
        self._before = None
        losses, names = losses_again(), list(self.tasks.values())
        after = torch.stack([torch.stack([losses[name] for name in names[row]]).sum() for row in rows.tolist()])
        if not bool(after.isfinite().all()):
            return
        fall = before.clamp_min(LEAST_LOSS).log() - after.to(before).clamp_min(LEAST_LOSS).log()
        shares = torch.softmax(self.logits[rows], dim=0)
        self.logits[rows] -= self.rate * (shares * (fall - (shares * fall).sum()) + self.decay * self.logits[rows])
