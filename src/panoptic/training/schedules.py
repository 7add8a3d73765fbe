"""Learning-rate schedules as factors of the optimizer's own rate, with warm-up; lengths in steps or in images.

A length in images keeps a schedule what it is as a function of the images seen, whatever the batch: the rate of a step
depends on the images before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def poly(
    optimizer: Optimizer,
    total_steps: int,
    *,
    power: float = 0.9,
    warmup_steps: int = 0,
    warmup_images: int | None = None,
    images_per_step: int = 1,
) -> LambdaLR:
    """(1 - step / total)^power, the "poly" policy (DeepLabv3, Sec. 4.1; DeeperLab, Sec. 4).

    Args:
        optimizer: its learning rate is the initial one, 0.01 in the paper.
        total_steps: steps at which the rate reaches 0.
        power: 0.9 in the paper.
        warmup_steps: W steps of a linear rise, 1 / (W + 1) at the first, multiplied with the policy.
        warmup_images: the same in images instead: 1 / (W + 1) at the first image, and 1 once W are seen.
        images_per_step: of all processes and accumulated batches together; only counts in images need it.
    """
    warmup = _Warmup(warmup_steps, warmup_images, images_per_step, total_steps)

    def factor(step: int) -> float:
        remaining = max(0.0, 1 - step / total_steps)
        return float(warmup(step) * remaining**power)

    return LambdaLR(optimizer, factor)


def step_decay(
    optimizer: Optimizer,
    total_steps: int,
    *,
    milestones: Sequence[float] | None = None,
    milestone_images: Sequence[int] | None = None,
    factor: float = 0.1,
    warmup_steps: int = 0,
    warmup_images: int | None = None,
    warmup_start: float | None = None,
    images_per_step: int = 1,
) -> LambdaLR:
    """Multiply by `factor` at each milestone.

    Args:
        optimizer: its learning rate is the initial one.
        total_steps: length of the training.
        milestones: fractions of `total_steps`, each in (0, 1); 2/3 and 8/9 unless `milestone_images` are given.
        milestone_images: images seen before the first step at the lower rate, instead.
        factor: by which the rate drops.
        warmup_steps: W steps of a linear rise, 1 / (W + 1) at the first.
        warmup_images: the same in images instead.
        warmup_start: factor of the first step, 0.1 in OANet (Sec. 4.2: 0.002 to 0.02); None is that of `warmup_steps`.
        images_per_step: of all processes and accumulated batches together; only counts in images need it.
    """
    warmup = _Warmup(warmup_steps, warmup_images, images_per_step, total_steps, warmup_start)
    drops = _milestone_steps(milestones, milestone_images, images_per_step, total_steps)

    def rate(step: int) -> float:
        return warmup(step) * factor ** sum(step >= drop for drop in drops)

    return LambdaLR(optimizer, rate)


def images_per_step(config: Mapping[str, Any]) -> int:
    """Images of one optimizer step, over all processes: `batch_size` is global.

    Args:
        config: resolved nodes `data` and `trainer`.

    Raises:
        ValueError: the data's configuration does not state its batch size.
    """
    if "batch_size" not in config["data"]:
        raise ValueError("expected data.batch_size, which lengths in images are counted with; give +data.batch_size=8")
    return int(config["data"]["batch_size"]) * int(config["trainer"]["accumulate_grad_batches"])


def end_of_training(config: Mapping[str, Any]) -> dict[str, int]:
    """The trainer's arguments that end it after `max_images`; none where that is null.

    Args:
        config: resolved nodes `max_images`, `data` and `trainer`.

    Returns:
        `max_steps`, the fewest whole steps with so many images, and `max_epochs` without a limit.

    Raises:
        ValueError: `max_images` is below 1, or `trainer.max_steps` is given too.
    """
    images = config["max_images"]
    if images is None:
        return {}
    if images < 1:
        raise ValueError(f"expected max_images of at least 1, got {images}")
    if config["trainer"]["max_steps"] != -1:
        raise ValueError(
            f"expected max_images or trainer.max_steps, got {images} and {config['trainer']['max_steps']}; "
            "give trainer.max_steps=-1 or max_images=null"
        )
    return {"max_steps": -(-images // images_per_step(config)), "max_epochs": -1}


class _Warmup:
    """A linear rise from `start` at the first step (image) to 1 after `steps` (`images`); start is 1 / (length + 1)."""

    def __init__(
        self, steps: int, images: int | None, images_per_step: int, total_steps: int, start: float | None = None
    ) -> None:
        if images is None and not 0 <= steps < total_steps:
            raise ValueError(f"expected 0 <= warmup_steps < total steps {total_steps}, got {steps}")
        if images is not None and steps:
            raise ValueError(
                f"expected warmup_steps or warmup_images, got {steps} and {images}; set scheduler.warmup_steps=0"
            )
        if images is not None and not 0 <= images < total_steps * images_per_step:
            raise ValueError(
                f"expected 0 <= warmup_images < {total_steps * images_per_step} images of the training, got {images}"
            )
        if start is not None and not 0 < start <= 1:
            raise ValueError(f"expected a warmup_start in (0, 1], got {start}")
        self.length, self.per_step = (steps, 1) if images is None else (images, images_per_step)
        self.start = 1 / (self.length + 1) if start is None else start

    def __call__(self, step: int) -> float:
        """The factor of a step, counted from 0."""
        seen = step * self.per_step
        return 1.0 if seen >= self.length else self.start + (1 - self.start) * seen / self.length


def _milestone_steps(
    fractions: Sequence[float] | None, images: Sequence[int] | None, images_per_step: int, total_steps: int
) -> list[float]:
    """Where the rate drops, in steps that need not be whole."""
    if images is None:
        fractions = (2 / 3, 8 / 9) if fractions is None else fractions
        if any(not 0 < fraction < 1 for fraction in fractions):
            raise ValueError(f"milestones are fractions of the training in (0, 1), got {list(fractions)}")
        return [fraction * total_steps for fraction in fractions]
    if fractions is not None:
        raise ValueError(
            f"expected milestones or milestone_images, got {list(fractions)} and {list(images)}; "
            "set scheduler.milestones=null"
        )
    total_images = total_steps * images_per_step
    if any(not 0 < count < total_images for count in images):
        raise ValueError(f"milestone_images lie within the {total_images} images of the training, got {list(images)}")
    return [count / images_per_step for count in images]
