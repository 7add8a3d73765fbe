"""GradNorm against autograd of its own loss, Eq. 2."""

import math

import pytest
import torch
from balancing_steps import build_balancer, in_one_process, losses_of, weights_of

ALPHA, RATE = 0.5, 0.1
STEPS = [
    ({"a": 4.0, "b": 1.0, "c": 0.5}, {"a": [3.0, 4.0, 0.0], "b": [0.0, 0.5, 0.0], "c": [1.0, 2.0, 2.0]}),
    ({"a": 2.0, "b": 1.5, "c": 0.4}, {"a": [2.0, 0.0, 0.0], "b": [0.0, 3.0, 4.0], "c": [0.0, 0.1, 0.0]}),
    ({"a": 1.0, "b": 0.2, "c": 0.4}, {"a": [0.0, 1.0, 0.0], "b": [0.3, 0.0, 0.4], "c": [0.0, 0.0, 2.0]}),
]


def equation_2(weights, values, first, gradients):
    """The weights after one step down the slope of sum |w n - target|, with norms over the mean of w n."""
    values, first, weights = torch.tensor(values), torch.tensor(first), weights.clone().requires_grad_()
    norms = torch.tensor(gradients).norm(dim=1)
    weighted = weights * norms / (weights * norms).mean().detach()
    inverse_rates = (values / first) / (values / first).mean()
    targets = (weighted.mean() * inverse_rates**ALPHA).detach()
    (slope,) = torch.autograd.grad((weighted - targets).abs().sum(), weights)
    moved = (weights - RATE * slope).detach()
    return len(moved) * moved / moved.sum()


def test_three_steps_are_those_of_equation_2():
    balancer, expected = build_balancer("grad_norm", "abc", alpha=ALPHA, rate=RATE), torch.ones(3)
    for values, gradients in STEPS:
        # the weights of a step are those before it moves them
        assert weights_of(balancer, values, gradients) == pytest.approx(expected.tolist(), rel=1e-5)
        first = list(STEPS[0][0].values())
        expected = equation_2(expected, list(values.values()), first, list(gradients.values()))
        torch.testing.assert_close(balancer.task_weights, expected)


def test_the_first_move_of_two_tasks():
    # norms 3 and 1, mean 2, equal rates: 1 - 0.1 * 3 / 2 and 1 + 0.1 * 1 / 2, of mean 0.95
    balancer = build_balancer("grad_norm", rate=0.1)
    weights_of(balancer, {"a": 1.0, "b": 1.0}, {"a": [3.0, 0.0], "b": [0.0, 1.0]})
    assert balancer.task_weights.tolist() == pytest.approx([0.85 / 0.95, 1.05 / 0.95])


def test_the_scale_of_gradients_does_not_matter():
    found = []
    for scale in (1.0, 1e-6):
        balancer = build_balancer("grad_norm")
        for _ in range(3):
            weights_of(balancer, {"a": 1.0, "b": 1.0}, {"a": [3.0 * scale, 0.0], "b": [0.0, scale]})
        found.append(balancer.task_weights.tolist())
    assert found[0] == pytest.approx(found[1])


def test_weighted_norms_become_equal_when_tasks_train_at_one_rate():
    balancer = build_balancer("grad_norm", rate=0.01)
    for _ in range(200):
        found = weights_of(balancer, {"a": 1.0, "b": 1.0}, {"a": [0.0, 3.0, 0.0], "b": [1.0, 0.0, 0.0]})
    # w_a 3 = w_b with a mean of 1: 1 / 2 and 3 / 2
    assert found == pytest.approx([0.5, 1.5], abs=0.03)


@pytest.mark.parametrize("gradient", [None, [0.0, 0.0, 0.0]])
def test_a_task_that_does_not_reach_the_features_moves_no_other(gradient):
    balancer, two = build_balancer("grad_norm", "abc"), build_balancer("grad_norm", "ac")
    for values, gradients in STEPS * 10:
        three = weights_of(balancer, values, {**gradients, "b": gradient})
        pair = weights_of(two, {task: values[task] for task in "ac"}, {task: gradients[task] for task in "ac"})
        assert three == pytest.approx([pair[0], 1.0, pair[1]], rel=1e-5)
    assert balancer.task_weights[1] == 1


def test_a_task_begins_at_the_first_loss_that_it_has():
    balancer = build_balancer("grad_norm")
    weights_of(balancer, {"a": 4.0, "b": 0.0})
    weights_of(balancer, {"a": 2.0, "b": 8.0})
    assert balancer.first_values.tolist() == [4.0, 8.0]


def test_weights_stay_positive():
    balancer = build_balancer("grad_norm", rate=5.0)
    for values, gradients in [({"a": 1.0, "b": 1.0}, {"a": [9.0, 0.0], "b": [0.0, 1.0]})] * 20:
        assert all(0 < weight < 2 and math.isfinite(weight) for weight in weights_of(balancer, values, gradients))


def test_a_negative_loss_is_named():
    losses, shared = losses_of({"a": 1.0, "b": -0.5})
    with pytest.raises(ValueError, match=r"grad_norm needs positive losses, got a negative one of task b$"):
        build_balancer("grad_norm")(losses, shared, in_one_process)


def test_a_rate_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match=r"expected a positive balancing.rate, got -1$"):
        build_balancer("grad_norm", rate=-1)
