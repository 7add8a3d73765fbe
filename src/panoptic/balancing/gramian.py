"""Strategies that read the inner products of task gradients on shared features, and answer with one weight per task.

Comparing gradients on the features Z that heads share, and not on parameters, is an upper bound in the sense of MGDA-UB
(Sener & Koltun, Multi-Task Learning as Multi-Objective Optimization, 2018, Sec. 3.3). It costs one pass through the
heads, whatever their number, and one sum of a T x T matrix over processes. One ordinary backward pass follows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from panoptic.balancing.base import LossBalancer, Reducer, TaskLosses, TaskWeights
from panoptic.balancing.draws import seed_of

GRADIENT_SCALES = (2.0**16, 2.0**8, 1.0)
"""Losses are multiplied by the first one that does not overflow: gradients on features of half precision underflow."""

BLOCK = 1 << 20
"""Values of a gradient that are held in float64 at a time."""


class FeatureGradientBalancer(LossBalancer):
    """What reads gradients on shared features.

    The gradient on the features of the whole batch is made of those of all processes, each of which is N times as long
    as its part of the batch's mean: the Gramian of the batch is the sum of theirs over N^2.
    """

    needs_shared = True
    exact_when_accumulated = False

    def weigh(self, step: TaskLosses, shared: Sequence[Tensor], reducer: Reducer) -> TaskWeights:
        """Weights of the tasks whose loss reaches the shared features; 1 for others, such as OANet's ranking loss.

        Raises:
            ValueError: no features are shared, or all of them are frozen.
        """
        learned = [tensor for tensor in shared if tensor.requires_grad]
        if not learned:
            frozen = [tuple(tensor.shape) for tensor in shared]
            raise ValueError(
                f"{type(self).__name__} compares gradients on shared features, got "
                + (f"frozen ones of shape {frozen}; train some of what makes them" if shared else "none")
            )
        if not step.losses:
            return TaskWeights(step.values)
        gramian = reducer(local_gramian(step.losses, learned)) / step.num_processes**2
        if not bool(gramian.isfinite().all()):
            rows = step.rows[~gramian.diagonal().isfinite()].tolist()
            return TaskWeights(torch.ones_like(step.values), faults=[list(self.tasks)[row] for row in rows])
        reaches = gramian.diagonal() > 0
        weights = torch.ones_like(step.values)
        if bool(reaches.any()):
            active = TaskLosses(
                step.rows[reaches],
                [loss for loss, reached in zip(step.losses, reaches.tolist(), strict=True) if reached],
                step.values[reaches],
                step.num_processes,
            )
            weights[reaches] = self.weights_of(gramian[reaches][:, reaches], active).to(weights)
        return TaskWeights(weights, gramian=torch.where(reaches[:, None] & reaches, gramian, torch.nan))

    @abstractmethod
    def weights_of(self, gramian: Tensor, step: TaskLosses) -> Tensor:
        """(A,) weights of A >= 1 tasks from their gradients' inner products (A, A) float64, which are positive."""


class GramianBalancer(FeatureGradientBalancer):
    """A strategy that is a function of the Gramian alone, such as those of torchjd.

    The Gramian is divided by the mean of its diagonal before (chosen): gradients on features are small, by the number
    of pixels, and some strategies take what is small for zero. Weights do not depend on the scale otherwise, but for
    the norm that `NashMTLWeighting` cuts at, which so is in units of the tasks' root mean square norm.

    Args:
        losses_of_heads: as for every balancer.
        weighting: (T, T) inner products to (T,) weights. What it draws is the same in every process and after a resume.
        seed: of what it draws.
        options: as for every balancer.
    """

    steps: Tensor

    def __init__(
        self,
        losses_of_heads: Mapping[str, Sequence[str]],
        *,
        weighting: Callable[[Tensor], Tensor],
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(losses_of_heads, **options)
        self.weighting = weighting
        self.seed = seed
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def identity(self) -> dict[str, Any]:
        """With the weighting's name."""
        return {**super().identity, "strategy": f"{type(self).__name__}({type(self.weighting).__name__})"}

    def weights_of(self, gramian: Tensor, step: TaskLosses) -> Tensor:
        """The weighting's answer, found on the CPU: it is a long chain of operations on few numbers."""
        gramian = gramian.cpu()
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would set the generators of accelerators too, and leave them so
            torch.default_generator.manual_seed(seed_of(self.seed, int(self.steps)))
            return self.weighting(gramian / gramian.diagonal().mean())

    def after_step(self, losses_again: Callable[[], dict[str, Tensor]]) -> None:
        """The next step has draws of its own."""
        self.steps += 1


def local_gramian(losses: Sequence[Tensor], shared: Sequence[Tensor]) -> Tensor:
    """Inner products of the losses' gradients on the shared features, of this process.

    Args:
        losses: T scalars; their graph is kept.
        shared: tensors of any shapes, of the graph.

    Returns:
        (T, T) float64.
    """
    rows = [task_gradient(loss, shared) for loss in losses]
    gramian = torch.zeros(len(losses), len(losses), dtype=torch.float64, device=shared[0].device)
    for level in zip(*rows, strict=True):
        for start in range(0, level[0].numel(), BLOCK):
            block = torch.stack([gradient[start : start + BLOCK] for gradient in level]).double()
            gramian += block @ block.T
    return gramian


def task_gradient(loss: Tensor, shared: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of a loss on each of the shared tensors, flat, at least float32; zero where it does not reach one.

    Its values overflow in half precision only if they do without scaling, too: those come back as they are.
    """
    if not loss.requires_grad:
        return [torch.zeros_like(tensor, dtype=_at_least_float32(tensor)).flatten() for tensor in shared]
    for scale in GRADIENT_SCALES:
        gradients = torch.autograd.grad(scale * loss, shared, retain_graph=True, materialize_grads=True)
        flat = [gradient.to(_at_least_float32(gradient)).flatten() / scale for gradient in gradients]
        if all(bool(gradient.isfinite().all()) for gradient in flat):
            break
    return flat


def _at_least_float32(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
