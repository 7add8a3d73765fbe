"""Schedules at every step, against their closed forms."""

import pytest
import torch

from panoptic.configuration import config_folder, load_config, resolved
from panoptic.instantiation import build
from panoptic.training.schedules import end_of_training, poly, step_decay

pytestmark = pytest.mark.slow

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


def test_a_warm_up_rises_evenly_from_its_start():
    found = rates(lambda optimizer: step_decay(optimizer, 10, milestones=[0.95], warmup_steps=4, warmup_start=0.1), 6)
    assert found == pytest.approx([RATE * factor for factor in (0.1, 0.325, 0.55, 0.775, 1, 1)])


@pytest.mark.parametrize("start", [0, -0.1, 1.1])
def test_a_start_of_the_warm_up_outside_of_0_and_1_is_refused(start):
    with pytest.raises(ValueError, match=rf"expected a warmup_start in \(0, 1\], got {start}"):
        rates(lambda optimizer: step_decay(optimizer, 10, warmup_steps=4, warmup_start=start), 1)


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


SCHEDULES_IN_IMAGES = {
    "poly": lambda optimizer, steps, batch: poly(optimizer, steps, warmup_images=96, images_per_step=batch),
    "step_decay": lambda optimizer, steps, batch: step_decay(
        optimizer, steps, milestone_images=[144, 400], warmup_images=96, images_per_step=batch
    ),
}


def rates_by_images_seen(name, batch, images=480):
    steps = images // batch
    found = rates(lambda optimizer: SCHEDULES_IN_IMAGES[name](optimizer, steps, batch), steps)
    return {step * batch: rate for step, rate in enumerate(found)}


@pytest.mark.parametrize("name", sorted(SCHEDULES_IN_IMAGES))
@pytest.mark.parametrize("batch", [2, 3, 8, 24])
def test_counted_in_images_a_schedule_is_the_same_function_of_images_for_every_batch(name, batch):
    one_by_one = rates_by_images_seen(name, 1)
    assert rates_by_images_seen(name, batch) == pytest.approx({seen: one_by_one[seen] for seen in range(0, 480, batch)})


def test_a_warm_up_in_steps_is_another_function_of_images_for_another_batch():
    halves = rates(lambda optimizer: poly(optimizer, 20, warmup_steps=4), 20)
    wholes = rates(lambda optimizer: poly(optimizer, 10, warmup_steps=4), 10)
    assert halves[::2] != pytest.approx(wholes)


@pytest.mark.parametrize("schedule", [poly, step_decay])
def test_images_one_by_one_are_steps(schedule):
    in_images = rates(lambda optimizer: schedule(optimizer, 20, warmup_images=7, images_per_step=1), 20)
    assert in_images == rates(lambda optimizer: schedule(optimizer, 20, warmup_steps=7), 20)


def test_the_rate_drops_at_the_first_step_that_has_seen_the_milestones_images():
    # Steps see 0, 8, 16, 24, 32 images before them; 17 are reached before the fourth.
    found = rates(lambda optimizer: step_decay(optimizer, 5, milestone_images=[17], images_per_step=8), 5)
    assert found == pytest.approx([RATE] * 3 + [RATE * 0.1] * 2)


@pytest.mark.parametrize("schedule", [poly, step_decay])
def test_a_warm_up_in_both_steps_and_images_is_refused(schedule):
    message = "expected warmup_steps or warmup_images, got 2 and 8; set scheduler.warmup_steps=0"
    with pytest.raises(ValueError, match=message):
        rates(lambda optimizer: schedule(optimizer, 5, warmup_steps=2, warmup_images=8, images_per_step=8), 1)


@pytest.mark.parametrize("images", [-1, 40])
def test_a_warm_up_of_more_images_than_the_training_has_is_refused(images):
    with pytest.raises(ValueError, match=f"expected 0 <= warmup_images < 40 images of the training, got {images}"):
        rates(lambda optimizer: poly(optimizer, 5, warmup_images=images, images_per_step=8), 1)
    rates(lambda optimizer: poly(optimizer, 5, warmup_images=39, images_per_step=8), 1)


def test_milestones_of_both_kinds_are_refused():
    with pytest.raises(ValueError, match=r"expected milestones or milestone_images, got \[0.5\] and \[8\]; set"):
        rates(lambda optimizer: step_decay(optimizer, 5, milestones=[0.5], milestone_images=[8]), 1)


@pytest.mark.parametrize("count", [0, 40])
def test_milestones_outside_the_trainings_images_are_refused(count):
    with pytest.raises(ValueError, match=rf"milestone_images lie within the 40 images .*, got \[{count}\]"):
        rates(lambda optimizer: step_decay(optimizer, 5, milestone_images=[count], images_per_step=8), 1)


@pytest.mark.parametrize(("images", "steps"), [(1, 1), (24, 1), (25, 2), (240, 10)])
def test_a_length_in_images_is_the_fewest_whole_steps(images, steps):
    config = resolved(
        load_config("train", [f"max_images={images}", "data.batch_size=8", "trainer.accumulate_grad_batches=3"])
    )
    assert end_of_training(config) == {"max_steps": steps, "max_epochs": -1}


def test_without_a_length_in_images_the_trainers_own_stays():
    assert end_of_training(resolved(load_config("train", ["trainer.max_steps=5"]))) == {}


def test_a_length_in_images_and_in_steps_is_refused():
    config = resolved(load_config("train", ["max_images=80"]))
    config["trainer"]["max_steps"] = 5
    with pytest.raises(ValueError, match=r"expected max_images or trainer.max_steps, got 80 and 5; give"):
        end_of_training(config)


def test_a_length_of_no_image_is_refused():
    with pytest.raises(ValueError, match="expected max_images of at least 1, got 0"):
        end_of_training(resolved(load_config("train", ["max_images=0"])))


def test_images_cannot_be_counted_without_a_batch_size():
    config = resolved(load_config("train", ["max_images=80", "~data.batch_size"]))
    with pytest.raises(ValueError, match=r"expected data.batch_size, .* give \+data.batch_size=8"):
        end_of_training(config)
