"""What every balancer of `conf/balancing` promises."""

import copy

import pytest
import torch
from composed import choices, compose

from panoptic.instantiation import build

pytestmark = pytest.mark.slow

NAMES = ["semantic_cross_entropy", "heatmap_cross_entropy", "long_range_l1"]


CHOICES = choices("balancing")


HEADS = {"semantic": NAMES[:1], "heatmap": NAMES[1:2], "long_range": NAMES[2:]}


def build_balancer(choice, *overrides):
    return build(compose(f"balancing={choice}", *overrides)["balancing"], losses_of_heads=HEADS)


@pytest.fixture(params=CHOICES)
def balancer(request):
    return build_balancer(request.param)


def in_one_process(value):
    return value


def task_losses():
    """Three tasks of different size on one shared feature map; every number is a power of two, so sums are exact."""
    shared = torch.tensor([[1.0, -2.0, 0.5, 4.0]], requires_grad=True)
    directions = [[0.5, 0.0, 1.0, 2.0], [0.0, 8.0, -1.0, 4.0], [-0.25, 0.0, 0.0, 0.125]]
    losses = {name: (shared * torch.tensor([d])).sum().square() for name, d in zip(NAMES, directions, strict=True)}
    return losses, [shared]


def test_the_total_is_a_finite_scalar_that_reaches_the_features(balancer):
    losses, shared = task_losses()
    balanced = balancer(losses, shared, in_one_process)
    assert balanced.total.shape == ()
    assert balanced.total.isfinite()
    (gradient,) = torch.autograd.grad(balanced.total, shared)
    assert gradient.isfinite().all()
    assert gradient.any()


def test_weights_are_scalars_named_as_the_losses(balancer):
    losses, shared = task_losses()
    weights = balancer(losses, shared, in_one_process).weights
    assert list(weights) == NAMES
    assert all(weight.shape == () and weight.isfinite() for weight in weights.values())


def test_losses_of_zero_are_welcome(balancer):
    losses, shared = task_losses()
    zeros = {name: 0 * loss for name, loss in losses.items()}
    balanced = balancer(zeros, shared, in_one_process)
    assert balanced.total.isfinite()
    assert torch.autograd.grad(balanced.total, shared)[0].isfinite().all()
    assert all(weight.isfinite() for weight in balanced.weights.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_single_loss_keeps_its_direction(balancer, name):
    losses, shared = task_losses()
    (alone,) = torch.autograd.grad(losses[name], shared, retain_graph=True)
    balanced = balancer({name: losses[name]}, shared, in_one_process)
    assert list(balanced.weights) == [name]
    (gradient,) = torch.autograd.grad(balanced.total, shared)
    assert torch.cosine_similarity(gradient, alone) == pytest.approx(1)


def test_the_order_of_losses_does_not_matter(balancer):
    losses, shared = task_losses()
    other = copy.deepcopy(balancer)
    forwards = balancer(losses, shared, in_one_process)
    backwards = other(dict(reversed(losses.items())), shared, in_one_process)
    torch.testing.assert_close(forwards.total, backwards.total)
    assert set(forwards.weights) == set(backwards.weights)
    for name, weight in forwards.weights.items():
        torch.testing.assert_close(weight, backwards.weights[name])


@pytest.mark.parametrize("choice", CHOICES)
def test_its_state_survives_a_checkpoint(choice):
    balancer, other = build_balancer(choice), build_balancer(choice)
    losses, shared = task_losses()
    balancer(losses, shared, in_one_process)
    losses, shared = task_losses()
    other.load_state_dict(balancer.state_dict())
    torch.testing.assert_close(
        other(losses, shared, in_one_process).total, balancer(losses, shared, in_one_process).total
    )


def test_the_fixed_balancer_is_the_sum():
    balancer = build_balancer("fixed")
    losses, shared = task_losses()
    # shared . direction: 9, -0.5, 0.25
    assert [loss.item() for loss in losses.values()] == [81.0, 0.25, 0.0625]
    balanced = balancer(losses, shared, in_one_process)
    assert balanced.total.item() == 81.3125
    assert {name: float(weight) for name, weight in balanced.weights.items()} == dict.fromkeys(NAMES, 1.0)
    assert balanced.gramian is None
