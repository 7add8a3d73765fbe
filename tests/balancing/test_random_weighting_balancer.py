"""Random weights that every process draws alike."""

import math

import pytest
import torch
from balancing_steps import build_balancer, weights_of

ONES = {"a": 1.0, "b": 1.0, "c": 1.0}


def draws(seed=0, num_steps=1, values=None):
    balancer = build_balancer("random_weighting", "abc", seed=seed)
    found = []
    for _ in range(num_steps):
        found.append(weights_of(balancer, values or ONES))
        balancer.after_step(dict)
    return found


def test_the_same_seed_and_step_give_the_same_weights_whatever_else_is_drawn():
    first = draws(num_steps=2)
    torch.rand(7)
    assert draws(num_steps=2) == first


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    draws()
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_of_one_step_have_the_same_weights():
    balancer = build_balancer("random_weighting", "abc")
    assert weights_of(balancer, ONES) == weights_of(balancer, ONES)


def test_another_step_and_another_seed_have_others():
    (first, second), (other,) = draws(num_steps=2), draws(seed=1)
    assert first != second
    assert first != other


def test_weights_are_three_times_a_softmax_of_normal_draws():
    found = torch.tensor(draws(num_steps=300))
    torch.testing.assert_close(found.sum(1), torch.full((300,), 3.0))
    # log w_a - log w_b is the difference of two normal draws: mean 0, variance 2
    for other in (1, 2):
        difference = found[:, 0].log() - found[:, other].log()
        assert abs(difference.mean()) < 4 * math.sqrt(2 / 300)
        assert difference.var() == pytest.approx(2, abs=4 * 2 * math.sqrt(2 / 300))


def test_without_a_task_the_others_keep_their_proportions():
    (every,), (two,) = draws(), draws(values={"a": 1.0, "c": 1.0})
    assert sum(two) == pytest.approx(2)
    assert two[0] / two[1] == pytest.approx(every[0] / every[2])
