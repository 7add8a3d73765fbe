"""Learned uncertainty: L exp(-s) + s / 2 with s = log sigma^2."""

import pytest
import torch
from balancing_steps import build_balancer, in_one_process, losses_of, weights_of


def test_training_begins_with_weights_of_one():
    assert weights_of(build_balancer("uncertainty"), {"a": 5.0, "b": 0.25}) == [1.0, 1.0]


def test_the_variance_rests_where_it_is_twice_the_loss():
    # d/ds (L exp(-s) + s / 2) = -L exp(-s) + 1 / 2 = 0  <=>  exp(s) = 2 L; then the total is 1 / 2 + log(2 L) / 2
    balancer = build_balancer("uncertainty")
    rest = torch.tensor([2 * 4.0, 2 * 0.25]).log()
    balancer.log_variances.data = rest.clone()
    losses, shared = losses_of({"a": 4.0, "b": 0.25})
    balanced = balancer(losses, shared, in_one_process)
    balanced.total.backward()
    torch.testing.assert_close(balanced.total.detach(), (1 + rest).sum() / 2)
    torch.testing.assert_close(balancer.log_variances.grad, torch.zeros(2))
    assert [float(weight) for weight in balanced.weights.values()] == pytest.approx([1 / 8, 2.0])


def test_the_gradient_of_log_variances_is_that_of_finite_differences():
    balancer = build_balancer("uncertainty").double()

    def total_at(log_variances):
        balancer.log_variances.data = torch.tensor(log_variances, dtype=torch.float64)
        return balancer(*losses_of({"a": 3.0, "b": 0.5}, dtype=torch.float64), in_one_process).total

    total_at([0.3, -0.7]).backward()
    slope_a = (total_at([0.3 + 1e-5, -0.7]) - total_at([0.3 - 1e-5, -0.7])).item() / 2e-5
    slope_b = (total_at([0.3, -0.7 + 1e-5]) - total_at([0.3, -0.7 - 1e-5])).item() / 2e-5
    assert balancer.log_variances.grad.tolist() == pytest.approx([slope_a, slope_b], rel=1e-6)


def test_the_features_get_the_gradients_times_the_weights():
    balancer = build_balancer("uncertainty")
    balancer.log_variances.data = torch.tensor([4.0, 0.5]).log()
    losses, shared = losses_of({"a": 3.0, "b": 1.0}, {"a": [1.0, 0.0, 2.0], "b": [0.0, -1.0, 1.0]})
    balancer(losses, shared, in_one_process).total.backward()
    # exp(-s) = 1 / 4 and 2: (1, 0, 2) / 4 + 2 (0, -1, 1)
    torch.testing.assert_close(shared[0].grad, torch.tensor([[0.25, -2.0, 2.5]]))


def test_the_variance_of_an_absent_task_does_not_move_though_it_gets_a_gradient():
    balancer = build_balancer("uncertainty")
    losses, shared = losses_of({"b": 3.0})
    balancer(losses, shared, in_one_process).total.backward()
    assert balancer.log_variances.grad.tolist() == [0.0, -2.5]  # 1 / 2 - 3


def test_a_step_without_any_loss_gives_a_gradient_of_zero():
    balancer = build_balancer("uncertainty")
    losses, shared = losses_of({"a": 0.0, "b": 0.0})
    balancer(losses, shared, in_one_process).total.backward()
    assert balancer.log_variances.grad.tolist() == [0.0, 0.0]
