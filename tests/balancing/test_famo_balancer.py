"""FAMO against Algorithm 1, with the Jacobian of the softmax by autograd."""

import pytest
import torch
from balancing_steps import build_balancer, in_one_process, losses_of, weights_of

RATE, DECAY = 0.5, 0.01


def again(values):
    return lambda: {f"{task}_l1": torch.tensor(value) for task, value in values.items()}


def algorithm_1(logits, before, after):
    """One pass of the paper's loop: (weights, the next logits)."""
    before, after = torch.tensor(list(before.values())), torch.tensor(list(after.values()))
    shares = torch.softmax(logits, dim=0)
    scale = 1 / (shares / before).sum()
    jacobian = torch.autograd.functional.jacobian(lambda xi: torch.softmax(xi, dim=0), logits)
    slope = jacobian.T @ (before.log() - after.log())
    return scale * shares / before, logits - RATE * (slope + DECAY * logits)


def test_three_steps_are_those_of_algorithm_1():
    balancer, logits = build_balancer("famo", "abc", rate=RATE, decay=DECAY), torch.zeros(3)
    for before, after in [
        ({"a": 4.0, "b": 1.0, "c": 0.5}, {"a": 2.0, "b": 1.0, "c": 0.6}),
        ({"a": 2.5, "b": 0.9, "c": 0.3}, {"a": 2.4, "b": 0.3, "c": 0.3}),
        ({"a": 2.0, "b": 0.7, "c": 0.2}, {"a": 2.2, "b": 0.1, "c": 0.1}),
    ]:
        weights, logits = algorithm_1(logits, before, after)
        assert weights_of(balancer, before) == pytest.approx(weights.tolist(), rel=1e-5)
        balancer.after_step(again(after))
        torch.testing.assert_close(balancer.logits, logits)


def test_the_gradient_is_that_of_the_weighted_log_losses():
    balancer = build_balancer("famo")
    balancer.logits.copy_(torch.tensor([0.7, -0.3]))
    gradients = {"a": [1.0, 0.0, 2.0], "b": [0.0, -1.0, 1.0]}
    losses, shared = losses_of({"a": 4.0, "b": 0.5}, gradients)
    balancer(losses, shared, in_one_process).total.backward()
    losses, others = losses_of({"a": 4.0, "b": 0.5}, gradients)
    values = torch.stack(list(losses.values()))
    shares = torch.softmax(balancer.logits, dim=0)
    ((shares * values.log()).sum() / (shares / values.detach()).sum()).backward()
    torch.testing.assert_close(shared[0].grad, others[0].grad)


def test_the_task_that_fell_less_gets_more_weight():
    balancer = build_balancer("famo")
    weights_of(balancer, {"a": 1.0, "b": 1.0})
    balancer.after_step(again({"a": 0.5, "b": 0.9}))
    first, second = weights_of(balancer, {"a": 1.0, "b": 1.0})
    assert first < 1 / 2 < second


def test_a_task_that_the_step_lacked_does_not_move():
    balancer, two = build_balancer("famo", "abc", rate=RATE), build_balancer("famo", "ac", rate=RATE)
    weights_of(balancer, {"a": 4.0, "b": 0.0, "c": 1.0})
    weights_of(two, {"a": 4.0, "c": 1.0})
    balancer.after_step(again({"a": 1.0, "b": 7.0, "c": 2.0}))
    two.after_step(again({"a": 1.0, "c": 2.0}))
    assert two.logits.any()
    torch.testing.assert_close(balancer.logits, torch.stack([two.logits[0], torch.zeros(()), two.logits[1]]))


@pytest.mark.parametrize("steps", [[], [{"a": 0.0, "b": 0.0}]])
def test_nothing_moves_without_losses(steps):
    balancer = build_balancer("famo")
    for values in steps:
        weights_of(balancer, values)
    balancer.after_step(again({"a": 1.0, "b": 1.0}))
    assert balancer.logits.tolist() == [0.0, 0.0]


def test_one_forward_moves_the_weights_once():
    balancer = build_balancer("famo")
    weights_of(balancer, {"a": 1.0, "b": 1.0})
    balancer.after_step(again({"a": 0.5, "b": 1.0}))
    once = balancer.logits.clone()
    balancer.after_step(again({"a": 0.1, "b": 1.0}))
    assert torch.equal(balancer.logits, once)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_after_the_step_does_not_spoil_the_weights(value):
    balancer = build_balancer("famo")
    weights_of(balancer, {"a": 1.0, "b": 1.0})
    balancer.after_step(again({"a": value, "b": 1.0}))
    assert balancer.logits.tolist() == [0.0, 0.0]


def test_the_least_loss_that_there_is_has_a_finite_weight():
    # as one of 1e-8: quotients 5e7 and 0.5, of sum 5e7
    assert weights_of(build_balancer("famo"), {"a": 1e-45, "b": 1.0}) == pytest.approx([1.0, 1e-8], rel=1e-5)


def test_a_loss_that_vanishes_in_a_step_counts_as_the_least():
    balancer = build_balancer("famo", rate=RATE)
    weights_of(balancer, {"a": 1.0, "b": 1.0})
    balancer.after_step(again({"a": 0.0, "b": 1.0}))
    _, expected = algorithm_1(torch.zeros(2), {"a": 1.0, "b": 1.0}, {"a": 1e-8, "b": 1.0})
    torch.testing.assert_close(balancer.logits, expected)


def test_a_negative_loss_is_named():
    losses, shared = losses_of({"a": -1.0, "b": 0.5})
    with pytest.raises(ValueError, match=r"famo needs positive losses, got a negative one of task a$"):
        build_balancer("famo")(losses, shared, in_one_process)


def test_a_rate_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match=r"expected a positive balancing.rate, got 0$"):
        build_balancer("famo", rate=0)
