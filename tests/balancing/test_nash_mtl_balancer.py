"""The Nash bargaining solution: G alpha = 1 / alpha."""

import numpy as np
import pytest
import torch
from balancing_steps import build_balancer, weights_of

from panoptic.balancing.nash_mtl import NashMTLWeighting

VALUES = {"a": 3.0, "b": 0.5}


def random_gramian(num_tasks, size, seed):
    print("seed", seed)
    generator = np.random.default_rng(seed)
    gradients = generator.normal(size=(num_tasks, size)) * 10.0 ** generator.uniform(-2, 2, size=(num_tasks, 1))
    return gradients @ gradients.T


@pytest.mark.parametrize("num_tasks", [1, 2, 5, 8])
def test_weights_solve_the_equation_of_claim_3_1(num_tasks):
    gramian = random_gramian(num_tasks, 11, seed=num_tasks)
    weights = NashMTLWeighting(max_norm=0, regularisation=0)(torch.from_numpy(gramian)).numpy()
    normalised = gramian / np.linalg.norm(gramian)
    assert weights.min() > 0
    np.testing.assert_allclose(weights * (normalised @ weights), 1, rtol=1e-6)


def test_gradients_at_right_angles_have_weights_in_proportion_to_one_over_the_norm():
    # norms 2 and 1: alpha^2 (n^2 + 1e-4 |G|) = 1 with |G| = sqrt(16 + 1)
    first, second = weights_of(build_balancer("nash_mtl"), VALUES, {"a": [0.0, 2.0, 0.0], "b": [0.6, 0.0, 0.8]})
    added = 1e-4 * 17**0.5
    assert second / first == pytest.approx(((4 + added) / (1 + added)) ** 0.5, rel=1e-6)


def test_two_tasks_in_conflict():
    # G = [[1, -g], [-g, 1]]: alpha_1 = alpha_2 with alpha^2 (1 - g) = 1, and G is divided by sqrt(2 + 2 g^2) before
    gramian = torch.tensor([[1.0, -0.5], [-0.5, 1.0]], dtype=torch.float64)
    expected = (2.5**0.5 / 0.5) ** 0.5
    found = NashMTLWeighting(max_norm=0, regularisation=0)(gramian)
    assert found.tolist() == pytest.approx([expected] * 2, rel=1e-6)


def test_the_combined_gradient_is_cut_at_the_norm_and_below_it_is_not():
    gramian = torch.from_numpy(random_gramian(3, 7, seed=4))
    free = NashMTLWeighting(max_norm=0)(gramian)
    norm = float(free @ gramian @ free) ** 0.5
    for factor, expected in [(0.5, 0.5), (0.99, 0.99), (1.01, 1.0)]:
        found = NashMTLWeighting(max_norm=factor * norm)(gramian)
        torch.testing.assert_close(found, expected * free)


def test_the_balancer_cuts_in_units_of_the_root_mean_square_norm():
    gradients = {"a": [0.0, 0.02, 0.0], "b": [0.06, 0.0, 0.08]}
    weights = weights_of(build_balancer("nash_mtl"), VALUES, gradients)
    combined = torch.tensor(weights) @ torch.tensor([gradients["a"], gradients["b"]])
    # mean square of 0.02 and 0.1: 0.0052
    assert combined.norm().item() == pytest.approx(0.0052**0.5, rel=1e-4)


def test_gradients_that_cancel_have_finite_positive_weights():
    gramian = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    weights = NashMTLWeighting()(gramian)
    assert weights.isfinite().all()
    assert weights.min() > 0


@pytest.mark.parametrize("seed", range(3))
def test_equals_what_torchjd_finds_by_convex_problems(seed):
    pytest.importorskip("ecos")
    aggregation = pytest.importorskip("torchjd.aggregation")
    gradients = torch.randn(3, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    theirs = aggregation.NashMTL(n_tasks=3, max_norm=0.5, optim_niter=100)(gradients)
    weights = NashMTLWeighting(max_norm=0.5)(gradients @ gradients.T)
    torch.testing.assert_close(weights @ gradients, theirs, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("argument", ["max_norm", "regularisation"])
def test_a_negative_argument_is_refused(argument):
    with pytest.raises(ValueError, match=rf"expected arguments of at least 0, got .*{argument}=-1"):
        NashMTLWeighting(**{argument: -1})
