"""UPGrad: the mean of projections onto the cone of what conflicts with no task."""

import numpy as np
import pytest
import scipy.optimize
import torch
from balancing_steps import build_balancer, weights_of

from panoptic.balancing.upgrad import UPGradWeighting

VALUES = {"a": 3.0, "b": 0.5}


def random_gradients(seed, num_tasks=4, size=7):
    print("seed", seed)
    return np.random.default_rng(seed).normal(size=(num_tasks, size)) - 0.3 * np.arange(num_tasks)[:, None]


def projection(gradient, gradients):
    """The nearest d with d . g >= 0 for every task's g: the definition, not its dual."""
    return scipy.optimize.minimize(
        lambda direction: ((direction - gradient) ** 2).sum(),
        np.zeros_like(gradient),
        jac=lambda direction: 2 * (direction - gradient),
        constraints={"type": "ineq", "fun": lambda direction: gradients @ direction, "jac": lambda _: gradients},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    ).x


def test_two_tasks_in_conflict():
    # half of a - (a.b / b.b) b = a + b, and half of b - (a.b / a.a) a = b + a / 2
    weights = weights_of(build_balancer("upgrad"), VALUES, {"a": [2.0, 0.0, 0.0], "b": [-1.0, 1.0, 0.0]})
    assert weights == pytest.approx([0.75, 1.0], rel=1e-3)


def test_without_conflict_it_is_the_mean():
    weights = weights_of(build_balancer("upgrad"), VALUES, {"a": [0.0, 2.0, 0.0], "b": [0.6, 0.1, 0.8]})
    assert weights == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_mean_of_the_projections_that_a_constrained_search_finds(seed):
    gradients = random_gradients(seed)
    expected = np.mean([projection(gradient, gradients) for gradient in gradients], axis=0)
    assert np.abs(expected - gradients.mean(0)).max() > 0.01  # there is a conflict
    weights = UPGradWeighting(regularisation=0)(torch.from_numpy(gradients @ gradients.T)).numpy()
    np.testing.assert_allclose(weights @ gradients, expected, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_result_conflicts_with_no_task(seed):
    gradients = random_gradients(seed, num_tasks=6, size=5)
    gramian = gradients @ gradients.T
    weights = UPGradWeighting()(torch.from_numpy(gramian)).numpy()
    assert weights.min() >= 1 / 6
    # of the regularised Gramian it holds exactly
    assert (gramian @ weights).min() > -1e-4 * np.trace(gramian) * weights.max() - 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_weights_of_torchjd(seed):
    pytest.importorskip("qpsolvers")
    pytest.importorskip("quadprog")
    aggregation = pytest.importorskip("torchjd.aggregation")
    gradients = torch.from_numpy(random_gradients(seed))
    gramian = gradients @ gradients.T
    torch.testing.assert_close(UPGradWeighting()(gramian), aggregation.UPGradWeighting()(gramian), rtol=1e-4, atol=1e-6)


def test_a_negative_regularisation_is_refused():
    with pytest.raises(ValueError, match=r"expected a regularisation of at least 0, got -0.5"):
        UPGradWeighting(regularisation=-0.5)
