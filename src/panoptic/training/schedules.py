"""Learning-rate schedules as factors of the optimizer's own rate, with warm-up."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def poly(optimizer: Optimizer, total_steps: int, *, power: float = 0.9, warmup_steps: int = 0) -> LambdaLR:
    """(1 - step / total)^power, the "poly" policy (DeepLabv3, Sec. 4.1; DeeperLab, Sec. 4).

    Args:
        optimizer: its learning rate is the initial one, 0.01 in the paper.
        total_steps: steps at which the rate reaches 0.
        power: 0.9 in the paper.
        warmup_steps: W steps of a linear rise, 1 / (W + 1) at the first, multiplied with the policy.
    """
    _check(total_steps, warmup_steps)

    def factor(step: int) -> float:
        remaining = max(0.0, 1 - step / total_steps)
        return float(_warmup(step, warmup_steps) * remaining**power)

    return LambdaLR(optimizer, factor)


def step_decay(
    optimizer: Optimizer,
    total_steps: int,
    *,
    milestones: Sequence[float] = (2 / 3, 8 / 9),
    factor: float = 0.1,
    warmup_steps: int = 0,
) -> LambdaLR:
    """Multiply by `factor` at each milestone.

    Args:
        optimizer: its learning rate is the initial one.
        total_steps: length of the training.
        milestones: fractions of `total_steps`, each in (0, 1).
        factor: by which the rate drops.
        warmup_steps: W steps of a linear rise, 1 / (W + 1) at the first.
    """
    _check(total_steps, warmup_steps)
    if any(not 0 < milestone < 1 for milestone in milestones):
        raise ValueError(f"milestones are fractions of the training in (0, 1), got {list(milestones)}")

    def rate(step: int) -> float:
        drops = sum(step >= milestone * total_steps for milestone in milestones)
        return _warmup(step, warmup_steps) * factor**drops

    return LambdaLR(optimizer, rate)


def _warmup(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / (warmup_steps + 1))


def _check(total_steps: int, warmup_steps: int) -> None:
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(f"expected 0 <= warmup_steps < total steps {total_steps}, got {warmup_steps}")
