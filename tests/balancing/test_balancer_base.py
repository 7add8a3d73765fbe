"""What all balancers do before and after their strategy."""

import re

import pytest
import torch
from balancing_steps import build_balancer, in_one_process, losses_of
from contracts.composed import choices

CHOICES = choices("balancing")
GRADIENTS = {"a": [2.0, 0.0, 1.0, 0.0], "b": [-1.0, 1.0, 0.0, 0.5], "c": [0.0, -1.0, 1.0, 1.0]}


def step(values):
    return losses_of(values, {task: GRADIENTS[task] for task in values})


def with_value(value):
    """Three losses, that of b with this value and a gradient."""
    losses, shared = step({"a": 1.0, "b": 1.0, "c": 2.0})
    losses["b_l1"] = losses["b_l1"] * value
    return losses, shared


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("choice", CHOICES)
def test_a_loss_that_is_not_finite_names_its_task(choice, value):
    message = f"the loss of task b is not finite; losses of this process: a_l1=1, b_l1={value:.4g}, c_l1=2. Lower the"
    with pytest.raises(ValueError, match=re.escape(message)):
        build_balancer(choice, "abc")(*with_value(value), in_one_process)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_step_with_a_loss_that_is_not_finite_is_flagged_on_demand_and_leaves_the_state(choice):
    balancer = build_balancer(choice, "abc", on_nan="skip")
    before = {name: value.clone() for name, value in balancer.state_dict().items()}
    losses, shared = with_value(torch.nan)
    with pytest.warns(UserWarning, match=r"the loss of task b is not finite.*leaves this step out"):
        balanced = balancer(losses, shared, in_one_process)
    assert balanced.is_skipped
    assert balanced.gramian is None
    assert [float(weight) for weight in balanced.weights.values()] == [1.0, 1.0, 1.0]
    torch.testing.assert_close(dict(balancer.state_dict()), before, equal_nan=True)
    # whatever waits for gradients of all parameters gets them
    for parameter in balancer.parameters():
        assert torch.autograd.grad(balanced.total, parameter, retain_graph=True)[0] is not None
    balanced.total.backward()
    assert shared[0].grad is not None


@pytest.mark.parametrize("choice", CHOICES)
def test_a_good_step_is_not_flagged(choice):
    balanced = build_balancer(choice, "abc", on_nan="skip")(*step({"a": 1.0, "b": 3.0, "c": 2.0}), in_one_process)
    assert balanced.is_skipped is False


def test_the_tasks_of_all_faulty_losses_are_named():
    losses, shared = step({"a": torch.inf, "b": 1.0, "c": torch.nan})
    with pytest.raises(ValueError, match="the loss of task a, c is not finite"):
        build_balancer("fixed", "abc")(losses, shared, in_one_process)


def test_an_unknown_answer_to_nan_is_refused():
    with pytest.raises(ValueError, match=r"""expected balancing.on_nan "raise" or "skip", got 'stop'"""):
        build_balancer("fixed", on_nan="stop")


def test_a_loss_of_no_task_is_refused():
    losses, shared = step({"a": 1.0, "b": 1.0, "c": 1.0})
    message = "expected losses of the tasks {'a': ['a_l1'], 'b': ['b_l1']}, got ['c_l1'] too"
    with pytest.raises(ValueError, match=re.escape(message)):
        build_balancer("fixed")(losses, shared, in_one_process)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_missing_loss_is_one_of_zero(choice):
    missing, zero = build_balancer(choice, "abc"), build_balancer(choice, "abc")
    without = missing(*step({"a": 1.0, "c": 2.0}), in_one_process)
    losses, shared = step({"a": 1.0, "b": 1.0, "c": 2.0})
    losses["b_l1"] = 0 * losses["b_l1"]
    balanced = zero(losses, shared, in_one_process)
    torch.testing.assert_close(without.total, balanced.total)
    assert balanced.weights["b_l1"] == 1
    assert set(without.weights) == {"a_l1", "c_l1"}
    for name, weight in without.weights.items():
        torch.testing.assert_close(weight, balanced.weights[name])
    torch.testing.assert_close(dict(missing.state_dict()), dict(zero.state_dict()), equal_nan=True)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_step_without_any_loss_changes_nothing_and_the_next_is_as_ever(choice):
    balancer, other = build_balancer(choice, "abc"), build_balancer(choice, "abc")
    losses, shared = step({"a": 1.0, "b": 1.0, "c": 1.0})
    zeros = {name: 0 * loss for name, loss in losses.items()}
    balanced = balancer(zeros, shared, in_one_process)
    balanced.total.backward()
    assert balanced.total == 0
    assert not shared[0].grad.any()
    assert [float(weight) for weight in balanced.weights.values()] == [1.0, 1.0, 1.0]
    values = {"a": 3.0, "b": 2.0, "c": 0.5}
    torch.testing.assert_close(
        balancer(*step(values), in_one_process).total, other(*step(values), in_one_process).total
    )


@pytest.mark.parametrize("choice", CHOICES)
def test_losses_of_one_task_have_one_weight_and_are_balanced_as_their_sum(choice):
    # c counts as a second loss of task a
    tasks = {"first": ["a_*", "c_*"], "second": "b_*"}
    losses, shared = step({"a": 1.0, "b": 3.0, "c": 2.0})
    balanced = build_balancer(choice, "abc", tasks=tasks)(losses, shared, in_one_process)
    assert list(balanced.weights) == ["a_l1", "b_l1", "c_l1"]
    assert balanced.weights["a_l1"] == balanced.weights["c_l1"]
    both = [one + other for one, other in zip(GRADIENTS["a"], GRADIENTS["c"], strict=True)]
    losses, shared = losses_of({"a": 3.0, "b": 3.0}, {"a": both, "b": GRADIENTS["b"]})
    expected = build_balancer(choice)(losses, shared, in_one_process)
    torch.testing.assert_close(balanced.total, expected.total)
    torch.testing.assert_close(balanced.weights["a_l1"], expected.weights["a_l1"])
    torch.testing.assert_close(balanced.weights["b_l1"], expected.weights["b_l1"])


@pytest.mark.parametrize("choice", CHOICES)
def test_a_task_may_lack_some_of_its_losses(choice):
    tasks = {"first": ["a_*", "c_*"], "second": "b_*"}
    balanced = build_balancer(choice, "abc", tasks=tasks)(*step({"b": 3.0, "c": 2.0}), in_one_process)
    gradients = {"a": GRADIENTS["c"], "b": GRADIENTS["b"]}
    expected = build_balancer(choice)(*losses_of({"a": 2.0, "b": 3.0}, gradients), in_one_process)
    assert list(balanced.weights) == ["b_l1", "c_l1"]
    torch.testing.assert_close(balanced.weights["c_l1"], expected.weights["a_l1"])
    torch.testing.assert_close(balanced.weights["b_l1"], expected.weights["b_l1"])


@pytest.mark.parametrize("choice", CHOICES)
def test_losses_of_half_precision_have_the_weights_of_single_precision(choice):
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        losses, shared = losses_of({"a": 1.0, "b": 2.0, "c": 0.5}, GRADIENTS, dtype=dtype)
        balanced = build_balancer(choice, "abc")(losses, shared, in_one_process)
        balanced.total.backward()
        assert shared[0].grad.isfinite().all()
        found.append(torch.stack([weight.float() for weight in balanced.weights.values()]))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("choice", CHOICES)
def test_is_the_same_within_autocast(choice):
    outside = build_balancer(choice, "abc")(*step({"a": 1.0, "b": 3.0, "c": 2.0}), in_one_process)
    with torch.autocast("cpu", torch.bfloat16):
        inside = build_balancer(choice, "abc")(*step({"a": 1.0, "b": 3.0, "c": 2.0}), in_one_process)
    assert inside.weights == outside.weights
    assert inside.total == outside.total
    assert inside.total.dtype == torch.float32
