"""What every loss balancer promises."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from panoptic.balancing.tasks import Patterns, group_losses


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
        gramian: (T, T) inner products of task gradients on the shared features, tasks in the order of
            `LossBalancer.tasks`, NaN for those without such gradients; None where none was computed.
        is_skipped: a loss is not finite, and the optimizer must not take this step.
    """

    total: Tensor
    weights: dict[str, Tensor]
    gramian: Tensor | None = None
    is_skipped: bool = False


@dataclass(eq=False)
class TaskLosses:
    """The A tasks of a step that say something: whose loss is not zero on all processes.

    Args:
        rows: (A,) int64, places of the tasks in `LossBalancer.tasks`.
        losses: A scalars, the sum of a task's losses in this process, attached to the graph.
        values: (A,) float32, their means over processes, detached.
        num_processes: that take part.
    """

    rows: Tensor
    losses: list[Tensor]
    values: Tensor
    num_processes: int


@dataclass(eq=False)
class TaskWeights:
    """What a strategy answers.

    Args:
        weights: (A,) float32, factors of the tasks, attached to the graph where they are learned by it.
        regulariser: scalar added to the total.
        gramian: (A, A), as in `BalancedLoss`.
        faults: tasks of which a gradient is not finite.
    """

    weights: Tensor
    regulariser: Tensor | None = None
    gramian: Tensor | None = None
    faults: list[str] = field(default_factory=list)


class LossBalancer(nn.Module, ABC):
    """Task losses, already multiplied by `loss_weights`, to one scalar.

    All strategies act on means over processes, so that every process finds the same weights, and the mean of its
    gradients over processes is that of one process with the whole batch. A task whose loss is exactly zero in the
    whole batch, as that of an absent kind of target, says nothing: it keeps weight 1 and takes no part.

    Args:
        losses_of_heads: {head: names of its losses}.
        tasks: "head", "loss" or {task: patterns of losses}, see `group_losses`.
        on_nan: "raise" stops at a loss that is not finite; "skip" leaves the optimizer's step out, in all processes.
        per_micro_batch: accept, when gradients are accumulated over batches, that a strategy whose weights are not
            linear in the losses finds them for each batch on its own.

    Raises:
        ValueError: tasks that do not take each loss once, or an unknown `on_nan`.
    """

    needs_shared = False
    """The strategy compares gradients on features that heads share."""
    exact_when_accumulated = True
    """Batches that are accumulated have the gradient of one batch of all their images."""

    def __init__(
        self,
        losses_of_heads: Mapping[str, Sequence[str]],
        *,
        tasks: str | Patterns = "head",
        on_nan: str = "raise",
        per_micro_batch: bool = False,
    ) -> None:
        super().__init__()
        if on_nan not in ("raise", "skip"):
            raise ValueError(f'expected balancing.on_nan "raise" or "skip", got {on_nan!r}')
        self.tasks = group_losses(tasks, losses_of_heads)
        self.on_nan = on_nan
        self.per_micro_batch = per_micro_batch

    def forward(self, losses: Mapping[str, Tensor], shared: Sequence[Tensor], reducer: Reducer) -> BalancedLoss:
        """Weigh and sum.

        Args:
            losses: {`<head>_<term>`: scalar}; those of a task that a batch lacks may be missing.
            shared: tensors that at least two heads read, none of them made of another; empty when nothing is shared.
            reducer: for whatever must be equal on all processes.

        Raises:
            ValueError: a loss of no task, or one that is not finite (with `on_nan="raise"`).
        """
        unknown = sorted(set(losses) - {name for names in self.tasks.values() for name in names})
        if unknown:
            raise ValueError(f"expected losses of the tasks {self.tasks}, got {unknown} too")
        weights = {name: torch.ones_like(loss) for name, loss in losses.items()}
        with torch.autocast(next(iter(losses.values())).device.type, enabled=False):
            step, faults = self._gather(losses, reducer)
            if faults:
                return self._without_step(f"the loss of task {', '.join(faults)} is not finite", losses, weights)
            answer = self.weigh(step, shared, reducer)
            if answer.faults:
                what = f"the gradient of task {', '.join(answer.faults)} on the shared features is not finite"
                return self._without_step(what, losses, weights)
            for row, weight in zip(step.rows.tolist(), answer.weights, strict=True):
                weights |= {name: weight for name in list(self.tasks.values())[row] if name in losses}
            total = _weighted_sum(losses, weights)
            if answer.regulariser is not None:
                total = total + answer.regulariser
        logged = {name: weight.detach() for name, weight in weights.items()}
        return BalancedLoss(total, logged, self._of_all_tasks(answer.gramian, step.rows))

    @abstractmethod
    def weigh(self, step: TaskLosses, shared: Sequence[Tensor], reducer: Reducer) -> TaskWeights:
        """The strategy: factors of the tasks of this step, which may be none."""

    @property
    def identity(self) -> dict[str, Any]:
        """What the state of this balancer belongs to."""
        return {"strategy": type(self).__name__, "tasks": self.tasks}

    def after_step(self, losses_again: Callable[[], dict[str, Tensor]]) -> None:
        """Called when the optimizer has taken a step.

        Args:
            losses_again: evaluates the losses of the same batch with the new parameters: weighted, and means over
                processes.
        """

    def end_epoch(self) -> None:
        """Called at the end of every epoch of training."""

    def check_positive(self, step: TaskLosses, strategy: str) -> None:
        """Refuse losses that a strategy cannot take a logarithm or quotient of.

        Raises:
            ValueError: a negative loss; its task is named.
        """
        is_negative = step.values < 0
        if bool(is_negative.any()):
            names = [list(self.tasks)[row] for row in step.rows[is_negative].tolist()]
            raise ValueError(f"{strategy} needs positive losses, got a negative one of task {', '.join(names)}")

    def _gather(self, losses: Mapping[str, Tensor], reducer: Reducer) -> tuple[TaskLosses, list[str]]:
        """What all processes know of this step, and the tasks with losses that are not finite somewhere."""
        zero = next(iter(losses.values())).new_zeros(())
        terms = [[losses[name] for name in names if name in losses] or [zero] for names in self.tasks.values()]
        sums = [torch.stack(task).sum() for task in terms]
        values = torch.stack([task.detach().float() for task in sums])
        told = reducer(torch.cat([values, (~values.isfinite()).float(), values.new_ones(1)]))
        num_processes = int(told[-1])
        values, faults = told[: len(sums)] / num_processes, told[len(sums) : -1]
        rows = values.nonzero().flatten()
        active = TaskLosses(rows, [sums[row] for row in rows.tolist()], values[rows], num_processes)
        return active, [task for task, fault in zip(self.tasks, faults.tolist(), strict=True) if fault]

    def _without_step(self, what: str, losses: Mapping[str, Tensor], weights: dict[str, Tensor]) -> BalancedLoss:
        """Stop, or the plain sum, of which no step may be taken."""
        here = ", ".join(f"{name}={float(loss.detach()):.4g}" for name, loss in losses.items())
        message = f"{what}; losses of this process: {here}"
        if self.on_nan == "raise":
            raise ValueError(
                f"{message}. Lower the learning rate or the weight of this loss, clip gradients, or leave such steps "
                "out with balancing.on_nan=skip"
            )
        warnings.warn(f"{message}. The optimizer leaves this step out (balancing.on_nan=skip)", stacklevel=3)
        unused = sum(0 * parameter.sum() for parameter in self.parameters())  # DDP waits for a gradient of each
        return BalancedLoss(_weighted_sum(losses, weights) + unused, weights, is_skipped=True)

    def _of_all_tasks(self, gramian: Tensor | None, rows: Tensor) -> Tensor | None:
        """(A, A) of the tasks of a step to (T, T)."""
        if gramian is None:
            return None
        full = gramian.new_full((len(self.tasks), len(self.tasks)), torch.nan)
        full[rows[:, None], rows] = gramian
        return full


def _weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
