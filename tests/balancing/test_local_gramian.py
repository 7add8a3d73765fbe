"""Inner products of gradients on several shared tensors, and which tasks take part."""

import re

import pytest
import torch
from balancing_steps import build_balancer, in_one_process, losses_of

from panoptic.balancing.gramian import local_gramian, task_gradient

GRADIENT_STRATEGIES = ["aligned_mtl", "cagrad", "grad_norm", "imtl_g", "mgda", "nash_mtl", "pcgrad", "upgrad"]


def pyramid_losses():
    """Three losses on two levels of different shapes made of one image; c reaches the second level only."""
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(3, 5, generator=generator, requires_grad=True)
    fine = torch.einsum("bdhw,df->bfhw", torch.randn(2, 3, 4, 7, generator=generator), weights).tanh()
    coarse = torch.einsum("bdhw,df->bfhw", torch.randn(2, 3, 2, 3, generator=generator), weights).sigmoid()
    losses = [fine.square().mean() + coarse.mean(), fine.exp().mean() - 3 * coarse.amax(), coarse.log().mean()]
    return losses, [fine, coarse], weights


def test_equals_inner_products_of_flat_gradients():
    losses, shared, _ = pyramid_losses()
    rows = []
    for loss in losses:
        parts = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        parts = [torch.zeros_like(level) if part is None else part for part, level in zip(parts, shared, strict=True)]
        rows.append(torch.cat([part.flatten() for part in parts]).double())
    expected = torch.stack([torch.stack([(one * other).sum() for other in rows]) for one in rows])
    gramian = local_gramian(losses, shared)
    assert gramian.dtype == torch.float64
    torch.testing.assert_close(gramian, expected, rtol=1e-5, atol=1e-10)


def test_the_graph_can_be_backpropagated_afterwards():
    (losses, shared, weights), (again, _, others) = pyramid_losses(), pyramid_losses()
    local_gramian(losses, shared)
    assert weights.grad is None
    sum(losses).backward()
    sum(again).backward()
    torch.testing.assert_close(weights.grad, others.grad, rtol=0, atol=0)


def test_levels_that_a_loss_does_not_reach_have_a_gradient_of_zero():
    losses, shared, _ = pyramid_losses()
    fine, coarse = task_gradient(losses[2], shared)
    assert fine.shape == (2 * 5 * 4 * 7,)
    assert coarse.shape == (2 * 5 * 2 * 3,)
    assert not fine.any()
    assert coarse.all()


def test_a_loss_without_a_graph_has_a_gradient_of_zero():
    _, shared, _ = pyramid_losses()
    assert not any(part.any() for part in task_gradient(torch.tensor(3.0), shared))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_tiny_gradients_on_features_of_half_precision_do_not_vanish(dtype):
    # below 6e-8, half of the smallest number of float16 is rounded to 0
    shared = torch.ones(2, 3, dtype=dtype, requires_grad=True)
    factors = torch.tensor([[1.0, -2.0, 4.0], [0.5, 0.25, -8.0]]) * 1e-9
    (found,) = task_gradient((shared.float() * factors).sum(), [shared])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, factors.flatten(), rtol=0.05 if dtype == torch.float16 else 0.01, atol=0)


@pytest.mark.parametrize("size", [0.9, 1.1, 200.0, 300.0, 60000.0])
def test_gradients_that_overflow_when_scaled_are_found_at_a_lower_scale(size):
    # 65504 is the largest number of float16, the scales are 2^16 (which overflows from 1 on), 2^8 (from 256 on) and 1
    shared = torch.ones(1, 3, dtype=torch.float16, requires_grad=True)
    factors = torch.tensor([[1.0, -0.5, 0.25]]) * size
    (found,) = task_gradient((shared.float() * factors).sum(), [shared])
    torch.testing.assert_close(found, factors.flatten(), rtol=1e-3, atol=0)


def test_small_gradients_beside_large_ones_are_as_exact_as_the_lower_scale_allows():
    # 2^16 overflows; unscaled, 1.03e-6 would be rounded to a multiple of 6e-8: to 1.01e-6
    shared = torch.ones(1, 3, dtype=torch.float16, requires_grad=True)
    (found,) = task_gradient((shared.float() * torch.tensor([[200.0, -1.0, 1.03e-6]])).sum(), [shared])
    torch.testing.assert_close(found, torch.tensor([200.0, -1.0, 1.03e-6]), rtol=1e-3, atol=0)


def test_gradients_that_overflow_without_scaling_come_back_as_they_are():
    shared = torch.ones(1, 3, dtype=torch.float16, requires_grad=True)
    (found,) = task_gradient((shared.float() * torch.tensor([[1e6, 1.0, 0.0]])).sum(), [shared])
    assert found.tolist() == [torch.inf, 1.0, 0.0]


@pytest.mark.parametrize("choice", GRADIENT_STRATEGIES)
def test_a_task_that_does_not_reach_the_features_keeps_weight_one_and_takes_no_part(choice):
    gradients = {"a": [2.0, 0.0, 0.0], "b": None, "c": [-1.0, 1.0, 0.0]}
    losses, shared = losses_of({"a": 2.0, "b": 9.0, "c": 1.0}, gradients)
    balanced = build_balancer(choice, "abc")(losses, shared, in_one_process)
    losses, shared = losses_of({"a": 2.0, "c": 1.0}, {"a": gradients["a"], "c": gradients["c"]})
    without = build_balancer(choice, "ac")(losses, shared, in_one_process)
    assert {name: float(weight) for name, weight in balanced.weights.items()} == {
        **{name: float(weight) for name, weight in without.weights.items()},
        "b_l1": 1.0,
    }
    nan = torch.nan
    expected = torch.tensor([[4.0, nan, -2.0], [nan, nan, nan], [-2.0, nan, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(balanced.gramian, expected, equal_nan=True)


@pytest.mark.parametrize("choice", GRADIENT_STRATEGIES)
def test_a_task_without_loss_takes_no_part(choice):
    losses, shared = losses_of({"a": 2.0, "b": 0.0, "c": 1.0}, {task: [1.0, 2.0] for task in "abc"})
    balanced = build_balancer(choice, "abc")(losses, shared, in_one_process)
    assert balanced.weights["b_l1"] == 1
    assert balanced.gramian.isnan().any(0).tolist() == [True, True, True]
    assert balanced.gramian[[0, 0, 2], [0, 2, 2]].tolist() == [5.0, 5.0, 5.0]


@pytest.mark.parametrize("choice", GRADIENT_STRATEGIES)
def test_no_shared_features_are_refused(choice):
    losses, _ = losses_of({"a": 2.0, "b": 1.0})
    with pytest.raises(ValueError, match="Balancer compares gradients on shared features, got none"):
        build_balancer(choice)(losses, [], in_one_process)


@pytest.mark.parametrize("choice", GRADIENT_STRATEGIES)
def test_frozen_features_are_refused(choice):
    losses, _ = losses_of({"a": 2.0, "b": 1.0})
    message = "compares gradients on shared features, got frozen ones of shape [(2, 5, 7)]; train some of what makes"
    with pytest.raises(ValueError, match=re.escape(message)):
        build_balancer(choice)(losses, [torch.ones(2, 5, 7)], in_one_process)


def test_frozen_features_among_others_are_left_out():
    losses, shared = losses_of({"a": 2.0, "b": 1.0}, {"a": [2.0, 1.0], "b": [0.0, 3.0]})
    gramian = build_balancer("upgrad")(losses, [torch.ones(2, 5, 7), *shared], in_one_process).gramian
    assert gramian.tolist() == [[5.0, 3.0], [3.0, 9.0]]


@pytest.mark.parametrize("choice", GRADIENT_STRATEGIES)
def test_when_no_task_reaches_the_features_all_weights_are_one(choice):
    losses, _ = losses_of({"a": 2.0, "b": 1.0})
    other = torch.ones(1, 3, requires_grad=True)
    balanced = build_balancer(choice)(losses, [other], in_one_process)
    assert [float(weight) for weight in balanced.weights.values()] == [1.0, 1.0]
    assert balanced.gramian.isnan().all()


def overflowing():
    """Finite losses of which b has an infinite gradient: of a root at zero."""
    shared = torch.tensor([[0.0, 1.0, 2.0]], requires_grad=True)
    return {"a_l1": shared.sum(), "b_l1": shared[0, 0].sqrt() + 1}, [shared]


@pytest.mark.parametrize("choice", GRADIENT_STRATEGIES)
def test_an_infinite_gradient_names_its_task(choice):
    message = "the gradient of task b on the shared features is not finite; losses of this process: a_l1=3, b_l1=1."
    with pytest.raises(ValueError, match=re.escape(message)):
        build_balancer(choice)(*overflowing(), in_one_process)


@pytest.mark.parametrize("choice", GRADIENT_STRATEGIES)
def test_an_infinite_gradient_is_skipped_on_demand(choice):
    balancer = build_balancer(choice, on_nan="skip")
    with pytest.warns(UserWarning, match="the gradient of task b on the shared features is not finite"):
        balanced = balancer(*overflowing(), in_one_process)
    assert balanced.is_skipped
