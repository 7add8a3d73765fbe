"""The geometric mean against autograd of itself."""

import pytest
import torch
from balancing_steps import build_balancer, in_one_process, losses_of, weights_of


def three_losses(parameter):
    features = parameter * torch.tensor([[1.0, -2.0, 0.5, 3.0]])
    return {"a_l1": features.square().sum(), "b_l1": features.abs().mean(), "c_l1": features.exp().sum()}, features


def test_value_and_gradient_are_those_of_the_mean():
    ours, theirs = (torch.tensor([[0.3, 0.8, -1.0, 0.4]], requires_grad=True) for _ in range(2))
    losses, features = three_losses(ours)
    balanced = build_balancer("geometric_mean", "abc")(losses, [features], in_one_process)
    balanced.total.backward()
    mean = torch.stack(list(three_losses(theirs)[0].values())).prod() ** (1 / 3)
    mean.backward()
    torch.testing.assert_close(balanced.total, mean)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_weights_of_two_tasks():
    # the mean of 8 and 2 is 4: 4 / (2 * 8) and 4 / (2 * 2)
    assert weights_of(build_balancer("geometric_mean"), {"a": 8.0, "b": 2.0}) == pytest.approx([0.25, 1.0])


def test_a_task_of_zero_does_not_make_the_mean_zero():
    assert weights_of(build_balancer("geometric_mean", "abc"), {"a": 8.0, "b": 2.0, "c": 0.0}) == pytest.approx(
        [0.25, 1.0, 1.0]
    )


def test_tiny_losses_do_not_underflow():
    # sqrt(1e-30 * 1e-20) = 1e-25
    assert weights_of(build_balancer("geometric_mean"), {"a": 1e-30, "b": 1e-20}) == pytest.approx([5e4, 5e-6])


def test_a_negative_loss_is_named():
    losses, shared = losses_of({"a": 1.0, "b": -0.5})
    with pytest.raises(ValueError, match=r"a geometric mean needs positive losses, got a negative one of task b$"):
        build_balancer("geometric_mean")(losses, shared, in_one_process)
