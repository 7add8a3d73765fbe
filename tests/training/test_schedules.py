"""Schedules at every step, against their closed forms."""

import pytest
import torch

from panoptic.configuration import config_folder, load_config, resolved
from panoptic.instantiation import build
from panoptic.training.schedules import poly, step_decay

SCHEDULERS = sorted(path.stem for path in (config_folder() / "scheduler").glob("*.yaml"))
RATE = 0.25


def rates(schedule_of, steps):
    """The learning rate of steps 0, 1, ... `steps` - 1."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=RATE)
    schedule = schedule_of(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("power", [0.9, 1.0, 2.0])
def test_poly_falls_to_zero_and_stays_there(power):
    expected = [RATE * (1 - step / 7) ** power for step in range(8)] + [0.0, 0.0]
    assert rates(lambda optimizer: poly(optimizer, 7, power=power), 10) == pytest.approx(expected)


def test_warm_up_rises_in_equal_steps_and_multiplies_the_policy():
    # Four steps of warm-up: 1/5, 2/5, 3/5, 4/5, then 1.
    rise = [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    expected = [RATE * factor * (1 - step / 10) ** 0.9 for step, factor in enumerate(rise)]
    assert rates(lambda optimizer: poly(optimizer, 10, warmup_steps=4), 10) == pytest.approx(expected)
    assert rates(
        lambda optimizer: step_decay(optimizer, 10, milestones=[0.65], factor=0.5, warmup_steps=4), 10
    ) == pytest.approx([RATE * factor * (0.5 if step >= 7 else 1) for step, factor in enumerate(rise)])


@pytest.mark.parametrize("warmup_steps", [0, 1, 9])
def test_the_first_step_learns_something_and_the_warm_up_ends_at_its_step(warmup_steps):
    found = rates(
        lambda optimizer: step_decay(optimizer, 10, milestones=[0.99], warmup_steps=warmup_steps), warmup_steps + 1
    )
    assert found[0] == pytest.approx(RATE / (warmup_steps + 1))
    assert found[warmup_steps] == pytest.approx(RATE)
    assert all(earlier < RATE for earlier in found[:warmup_steps])


def test_steps_drop_exactly_at_their_milestones():
    # 9 steps, milestones at 2/3 and 8/9 of them: steps 6 and 8.
    expected = [RATE] * 6 + [RATE * 0.1] * 2 + [RATE * 0.01] * 3
    assert rates(lambda optimizer: step_decay(optimizer, 9), 11) == pytest.approx(expected)


def test_milestones_between_two_steps_drop_at_the_later_one():
    expected = [RATE] * 3 + [RATE * 0.5] * 2  # half of 5 steps is 2.5
    assert rates(lambda optimizer: step_decay(optimizer, 5, milestones=[0.5], factor=0.5), 5) == pytest.approx(expected)


@pytest.mark.parametrize("choice", SCHEDULERS)
@pytest.mark.parametrize("total_steps", [1, 100])
def test_every_configured_schedule_starts_at_the_optimizers_rate_and_never_rises(choice, total_steps):
    schedule = build(resolved(load_config("train", [f"scheduler={choice}"]))["scheduler"])
    found = rates(lambda optimizer: schedule(optimizer, total_steps), total_steps)
    assert found[0] == RATE
    assert found == sorted(found, reverse=True)
    assert total_steps == 1 or found[-1] < 0.05 * RATE


@pytest.mark.parametrize("schedule", [poly, step_decay])
@pytest.mark.parametrize("warmup_steps", [-1, 5, 6])
def test_a_warm_up_as_long_as_the_training_is_refused(schedule, warmup_steps):
    with pytest.raises(ValueError, match=f"expected 0 <= warmup_steps < total steps 5, got {warmup_steps}"):
        rates(lambda optimizer: schedule(optimizer, 5, warmup_steps=warmup_steps), 1)


@pytest.mark.parametrize("milestone", [0.0, 1.0, 60000])
def test_milestones_that_are_no_fractions_are_refused(milestone):
    with pytest.raises(
        ValueError, match=rf"milestones are fractions of the training in \(0, 1\), got \[0.5, {milestone}"
    ):
        rates(lambda optimizer: step_decay(optimizer, 5, milestones=[0.5, milestone]), 1)
