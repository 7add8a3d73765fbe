"""The shortest convex combination of gradients."""

import numpy as np
import pytest
import scipy.optimize
import torch
from balancing_steps import build_balancer, weights_of

from panoptic.balancing.mgda import MGDAWeighting

VALUES = {"a": 3.0, "b": 0.5}


def random_gradients(num_tasks, size, seed):
    print("seed", seed)
    return np.random.default_rng(seed).normal(size=(num_tasks, size)) + 0.2


@pytest.mark.parametrize(
    ("gradients", "expected"),
    [
        # share of a: (b - a) . b / |a - b|^2 = (2 + 2) / 10
        ({"a": [2.0, 0.0, 0.0], "b": [-1.0, 1.0, 0.0]}, [0.4, 0.6]),
        # at right angles, of norms 2 and 1: in proportion to 1 / 4 and 1
        ({"a": [0.0, 2.0, 0.0], "b": [0.6, 0.0, 0.8]}, [0.2, 0.8]),
        # a . b = 3 is more than a . a = 1: a is the shortest
        ({"a": [1.0, 0.0, 0.0], "b": [3.0, 1.0, 0.0]}, [1.0, 0.0]),
        # opposite: |a| / |b| = 2 gives a zero at 1 / 3 and 2 / 3
        ({"a": [0.0, 2.0, 0.0], "b": [0.0, -1.0, 0.0]}, [1 / 3, 2 / 3]),
    ],
)
def test_weights_of_two_tasks(gradients, expected):
    assert weights_of(build_balancer("mgda"), VALUES, gradients) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_is_as_short_as_what_a_constrained_search_finds(seed):
    gradients = random_gradients(5, 7, seed)
    gramian = gradients @ gradients.T
    found = scipy.optimize.minimize(
        lambda shares: shares @ gramian @ shares,
        np.full(5, 0.2),
        jac=lambda shares: 2 * gramian @ shares,
        bounds=[(0, 1)] * 5,
        constraints={"type": "eq", "fun": lambda shares: shares.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14},
    )
    weights = MGDAWeighting()(torch.from_numpy(gramian)).numpy()
    assert weights.sum() == pytest.approx(1)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights @ gradients, found.x @ gradients, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_frank_wolfe_steps_of_torchjd_come_near(seed):
    gradients = random_gradients(3, 7, seed)
    gramian = torch.from_numpy(gradients @ gradients.T)
    theirs = pytest.importorskip("torchjd.aggregation").MGDAWeighting(epsilon=1e-6, max_iters=3000)(gramian)
    torch.testing.assert_close(MGDAWeighting()(gramian), theirs, atol=1e-2, rtol=0)


def test_more_tasks_than_dimensions_have_a_combination_of_zero():
    gradients = np.array([[1.0, 0.0], [-1.0, 1.0], [0.0, -2.0], [-0.5, -0.5]])
    weights = MGDAWeighting()(torch.from_numpy(gradients @ gradients.T)).numpy()
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights @ gradients, 0, atol=1e-9)


def test_one_task_has_weight_one():
    assert MGDAWeighting()(torch.tensor([[7.0]])).tolist() == pytest.approx([1.0])
