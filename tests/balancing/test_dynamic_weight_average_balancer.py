"""Dynamic weight average over epochs that were worked out by hand."""

import math

import pytest
from balancing_steps import build_balancer, weights_of


def epoch(balancer, *steps):
    weights = [weights_of(balancer, step) for step in steps]
    balancer.end_epoch()
    return weights


def test_weights_of_three_epochs():
    balancer = build_balancer("dynamic_weight_average")
    assert epoch(balancer, {"a": 4.0, "b": 1.0}, {"a": 2.0, "b": 3.0}) == [[1.0, 1.0]] * 2  # means 3 and 2
    assert epoch(balancer, {"a": 1.0, "b": 3.0}, {"a": 2.0, "b": 1.0}) == [[1.0, 1.0]] * 2  # means 1.5 and 2
    # r = 1.5 / 3 and 2 / 2; at temperature 2, w_a = 2 e^0.25 / (e^0.25 + e^0.5) = 2 / (1 + e^0.25)
    expected = [2 / (1 + math.exp(0.25)), 2 / (1 + math.exp(-0.25))]
    for weights in epoch(balancer, {"a": 9.0, "b": 4.0}, {"a": 3.0, "b": 4.0}):
        assert weights == pytest.approx(expected)
    # means of that epoch 6 and 4: r = 6 / 1.5 and 4 / 2, a difference of 2, over the temperature 1
    assert weights_of(balancer, {"a": 1.0, "b": 1.0}) == pytest.approx([2 / (1 + math.exp(-1)), 2 / (1 + math.e)])


def test_a_mean_is_over_the_steps_in_which_the_task_is_there():
    balancer = build_balancer("dynamic_weight_average", temperature=1.0)
    epoch(balancer, {"a": 2.0, "b": 4.0}, {"a": 2.0})
    epoch(balancer, {"a": 2.0, "b": 2.0}, {"a": 2.0, "b": 0.0})
    # r = 1 and 2 / 4
    assert weights_of(balancer, {"a": 1.0, "b": 1.0}) == pytest.approx(
        [2 / (1 + math.exp(-0.5)), 2 / (1 + math.exp(0.5))]
    )


@pytest.mark.parametrize("absent", [0, 1])
def test_the_rate_of_a_task_that_an_epoch_lacked_is_one(absent):
    balancer = build_balancer("dynamic_weight_average", temperature=1.0)
    for number, values in enumerate([{"a": 2.0, "b": 5.0}, {"a": 1.0, "b": 5.0}]):
        epoch(balancer, {"a": values["a"]} if number == absent else values)
    # r = 1 / 2 and 1
    assert weights_of(balancer, {"a": 1.0, "b": 1.0}) == pytest.approx(
        [2 / (1 + math.exp(0.5)), 2 / (1 + math.exp(-0.5))]
    )


def test_tasks_of_a_step_share_their_weights_among_them():
    balancer = build_balancer("dynamic_weight_average", "abc", temperature=1.0)
    epoch(balancer, {"a": 1.0, "b": 1.0, "c": 1.0})
    epoch(balancer, {"a": 3.0, "b": 1.0, "c": 2.0})
    # of b and c, r = 1 and 2
    assert weights_of(balancer, {"b": 1.0, "c": 1.0}) == pytest.approx([2 / (1 + math.e), 2 / (1 + math.exp(-1))])


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match=f"expected a positive balancing.temperature, got {temperature}"):
        build_balancer("dynamic_weight_average", temperature=temperature)
