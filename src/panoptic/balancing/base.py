"""What every loss balancer promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn


class Reducer(Protocol):
    """Sums over processes; the identity in a single one."""

    def __call__(self, value: Tensor) -> Tensor:
        """The sum of `value` over all processes, same shape."""


@dataclass(eq=False)
class BalancedLoss:
    """What a balancer returns.

    Args:
        total: scalar to backpropagate.
        weights: {loss name: factor the balancer gave it}, for logs.
        gramian: (T, T) inner products of task gradients on the shared features; None where none was computed.
    """

    total: Tensor
    weights: dict[str, Tensor]
    gramian: Tensor | None = None


class LossBalancer(nn.Module, ABC):
    """Task losses, already multiplied by `loss_weights`, to one scalar."""

    @abstractmethod
    def forward(self, losses: Mapping[str, Tensor], shared: Sequence[Tensor], reducer: Reducer) -> BalancedLoss:
        """Weigh and sum.

        Args:
            losses: {`<head>_<term>`: scalar}.
            shared: tensors that at least two heads read; empty when nothing is shared.
            reducer: for whatever must be equal on all processes.
        """
