"""The strategies that torchjd solves, through the whole balancer: two tasks whose weights were worked out by hand."""

import math

import pytest
import scipy.optimize
import torch
from balancing_steps import build_balancer, in_one_process, losses_of, weights_of

VALUES = {"a": 3.0, "b": 0.5}
CONFLICT = {"a": [2.0, 0.0, 0.0], "b": [-1.0, 1.0, 0.0]}  # G = [[4, -2], [-2, 2]]
AT_RIGHT_ANGLES = {"a": [0.0, 2.0, 0.0], "b": [0.6, 0.0, 0.8]}  # of norms 2 and 1
THREE = {"a": [2.0, 0.0, 0.0, 1.0], "b": [-1.0, 1.0, 0.0, 0.0], "c": [-1.0, -2.0, 0.5, 0.0]}


def shortened(gradients, scale):
    return {task: [scale * number for number in gradient] for task, gradient in gradients.items()}


def test_pcgrad_takes_from_each_gradient_what_conflicts():
    # a - (a.b / b.b) b = a + b, and b - (a.b / a.a) a = b + a / 2
    assert weights_of(build_balancer("pcgrad"), VALUES, CONFLICT) == pytest.approx([1.5, 2.0])


def test_pcgrad_leaves_gradients_without_conflict():
    assert weights_of(build_balancer("pcgrad"), VALUES, AT_RIGHT_ANGLES) == [1.0, 1.0]


def test_imtl_g_has_equal_projections_on_unit_gradients():
    # w ~ G^-1 (|a|, |b|), with G^-1 = [[2, 2], [2, 4]] / 4 and norms 2, sqrt 2, then a sum of 1
    root = math.sqrt(2)
    expected = [(4 + 2 * root) / (8 + 6 * root), (4 + 4 * root) / (8 + 6 * root)]
    assert weights_of(build_balancer("imtl_g"), VALUES, CONFLICT) == pytest.approx(expected)


def test_cagrad_of_equal_gradients_at_right_angles():
    # both combinations are the mean: 1 / 2 + c / 2
    gradients = {"a": [0.0, 1.0, 0.0], "b": [0.6, 0.0, 0.8]}
    assert weights_of(build_balancer("cagrad"), VALUES, gradients) == pytest.approx([0.7, 0.7], rel=1e-4)


def test_cagrad_turns_to_the_task_that_gains_least():
    # g_0 = (a + b) / 2 of norm sqrt(1 / 2); b . g_0 = 0 < a . g_0 = 1, and b is the shorter one: it alone is added,
    # by c |g_0| / |b| = 0.4 sqrt(1 / 2) / sqrt 2
    assert weights_of(build_balancer("cagrad"), VALUES, CONFLICT) == pytest.approx([0.5, 0.7], rel=1e-4)


def test_cagrad_adds_the_combination_that_a_search_finds():
    # w in [0, 1] minimises g_w . g_0 + c |g_0| |g_w|, g_w = w a + (1 - w) b; the result is g_0 + c |g_0| g_w / |g_w|
    gradients = {"a": [1.0, 0.0, 0.0], "b": [-0.5, 0.8, 0.3]}
    first, second = torch.tensor(gradients["a"]), torch.tensor(gradients["b"])
    mean = (first + second) / 2

    def combined(share):
        return share * first + (1 - share) * second

    def cost(share):
        return float(combined(share) @ mean + 0.4 * mean.norm() * combined(share).norm())

    share = scipy.optimize.minimize_scalar(cost, bounds=(0, 1), method="bounded", options={"xatol": 1e-9}).x
    assert 0.1 < share < 0.9
    turn = float(0.4 * mean.norm() / combined(share).norm())
    expected = [0.5 + turn * share, 0.5 + turn * (1 - share)]
    assert weights_of(build_balancer("cagrad"), VALUES, gradients) == pytest.approx(expected, rel=1e-3)


def test_aligned_mtl_gives_gradients_at_right_angles_the_length_of_the_shortest():
    # the mean of a / 2 and b
    assert weights_of(build_balancer("aligned_mtl"), VALUES, AT_RIGHT_ANGLES) == pytest.approx([0.25, 0.5])


def test_aligned_mtl_shortens_the_long_principal_component():
    # G = [[2, 1], [1, 2]]: (1 / 2, 1 / 2) is of the eigenvalue 3, and the smallest is 1: sqrt(1 / 3) (1 / 2, 1 / 2)
    gradients = {"a": [1.0, 1.0, 0.0], "b": [0.0, 1.0, 1.0]}
    expected = 0.5 / math.sqrt(3)
    assert weights_of(build_balancer("aligned_mtl"), VALUES, gradients) == pytest.approx([expected] * 2, rel=1e-5)


@pytest.mark.parametrize("choice", ["aligned_mtl", "cagrad", "mgda", "nash_mtl", "pcgrad", "upgrad"])
def test_the_scale_of_all_gradients_does_not_matter(choice):
    here, there = (
        weights_of(build_balancer(choice, "abc"), {**VALUES, "c": 1.0}, shortened(THREE, scale))
        for scale in (1.0, 2.0**-20)
    )
    assert all(weight > 0 for weight in here)
    assert there == pytest.approx(here, rel=1e-4)


def test_imtl_g_does_not_depend_on_the_scale_of_gradients():
    here, there = (weights_of(build_balancer("imtl_g"), VALUES, shortened(CONFLICT, scale)) for scale in (1, 2.0**-20))
    assert there == pytest.approx(here, rel=1e-4)


@pytest.mark.parametrize("choice", ["aligned_mtl", "cagrad", "imtl_g", "nash_mtl", "pcgrad", "upgrad"])
def test_equal_gradients_have_equal_weights(choice):
    gradients = {"a": [0.0, 1.0, 0.0], "b": [0.0, 0.0, 1.0], "c": [1.0, 0.0, 0.0]}
    first, *others = weights_of(build_balancer(choice, "abc"), {"a": 1.0, "b": 2.0, "c": 4.0}, gradients)
    assert first > 0
    assert others == pytest.approx([first] * 2, rel=1e-4)


def pcgrad_draws(num_steps, seed=0):
    balancer = build_balancer("pcgrad", "abc", seed=seed)
    found = []
    for _ in range(num_steps):
        found.append(weights_of(balancer, {**VALUES, "c": 1.0}, THREE))
        balancer.after_step(dict)
    return found


def test_orders_are_drawn_alike_for_a_seed_and_step_and_differ_among_steps():
    found = pcgrad_draws(12)
    torch.rand(3)
    assert pcgrad_draws(12) == found
    assert len({tuple(weights) for weights in found}) > 1
    assert pcgrad_draws(12, seed=1) != found


def test_drawing_leaves_other_generators_alone(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = torch.get_rng_state()
    pcgrad_draws(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert not seeded


def test_the_identity_names_the_weighting():
    names = [build_balancer(choice).identity["strategy"] for choice in ("pcgrad", "upgrad")]
    assert names == ["GramianBalancer(PCGradWeighting)", "GramianBalancer(UPGradWeighting)"]


def test_the_gramian_is_what_it_was_before_scaling():
    losses, shared = losses_of(VALUES, CONFLICT)
    gramian = build_balancer("upgrad")(losses, shared, in_one_process).gramian
    torch.testing.assert_close(gramian, torch.tensor([[4.0, -2.0], [-2.0, 2.0]], dtype=torch.float64))
