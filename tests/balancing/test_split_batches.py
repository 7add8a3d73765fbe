"""Sums over processes: the parts of a batch have the weights, and together the gradient, of the whole batch."""

import pytest
import torch
from balancing_steps import build_balancer, in_one_process, in_processes
from contracts.composed import choices

pytestmark = pytest.mark.slow

CHOICES = choices("balancing")
HEADS = "abcd"
NUM_IMAGES, NUM_STEPS = 6, 3
HAS_B = [True, True, False, True, False, False]
"""Images that have a target of task b: with three processes, the last has none."""


def images(number):
    """(6, 2, 5) features of a step's images."""
    return torch.randn(NUM_IMAGES, 2, 5, generator=torch.Generator().manual_seed(number))


def losses_of_images(parameters, inputs, has_b):
    """Means over images, and the features that all tasks but d read; without a target of b there is no loss b."""
    shared, apart = parameters
    features = torch.einsum("bfd,dk->bfk", inputs, shared)  # (B, 2, 3)
    losses = {
        "a_l1": (features - 1).square().mean(),
        "c_l1": (0.2 * features[:, :, 1]).exp().sum(1).mean(),
        "d_l1": (inputs.mean((1, 2)) + apart).square().mean(),
    }
    if any(has_b):
        losses["b_l1"] = ((3 * features[:, 1].abs() + 0.1).sum(1) * torch.tensor(has_b)).mean()
    return losses, [features]


def fresh_parameters():
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(5, 3, generator=generator).requires_grad_(), torch.tensor(0.4, requires_grad=True)]


def descend(parameters, gradients, rate=0.05):
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= rate * gradient


def finish_step(balancer, parameters, number):
    """The step is done; the epoch, too."""
    with torch.no_grad():
        whole, _ = losses_of_images(parameters, images(number), HAS_B)
    balancer.after_step(lambda: whole)
    balancer.end_epoch()


def train_whole(choice):
    balancer, parameters, found = build_balancer(choice, HEADS), fresh_parameters(), []
    for number in range(NUM_STEPS):
        balanced = balancer(*losses_of_images(parameters, images(number), HAS_B), in_one_process)
        found.append(balanced)
        learned = [*parameters, *balancer.parameters()]
        descend(learned, torch.autograd.grad(balanced.total, learned))
        finish_step(balancer, parameters, number)
    return found, parameters, balancer


def train_parts(choice, num_processes):
    """Every process has its images and its own balancer; gradients are averaged, as they are by DDP."""
    balancers, parameters, found = [build_balancer(choice, HEADS)] * num_processes, fresh_parameters(), []
    size = NUM_IMAGES // num_processes
    for number in range(NUM_STEPS):
        parts = [slice(size * rank, size * (rank + 1)) for rank in range(num_processes)]
        steps = [
            lambda part=part, number=number: losses_of_images(parameters, images(number)[part], HAS_B[part])
            for part in parts
        ]
        balancers, answers = zip(*in_processes(balancers, steps), strict=True)
        found.append(answers)
        learned = [list(balancer.parameters()) for balancer in balancers]
        gradients = [
            torch.autograd.grad(answer.total, [*parameters, *own]) for answer, own in zip(answers, learned, strict=True)
        ]
        means = [torch.stack(of_one).mean(0) for of_one in zip(*gradients, strict=True)]
        descend(parameters, means[: len(parameters)])
        for balancer, own in zip(balancers, learned, strict=True):
            descend(own, means[len(parameters) :])
            finish_step(balancer, parameters, number)
    return found, parameters, balancers


@pytest.mark.parametrize("num_processes", [2, 3])
@pytest.mark.parametrize("choice", CHOICES)
def test_parts_of_a_batch_train_as_the_whole(choice, num_processes):
    whole, parameters, balancer = train_whole(choice)
    parts, parameters_of_parts, balancers = train_parts(choice, num_processes)
    for expected, answers in zip(whole, parts, strict=True):
        for answer in answers:
            for name, weight in answer.weights.items():
                torch.testing.assert_close(weight, expected.weights[name], rtol=1e-4, atol=1e-5)
            if expected.gramian is not None:
                torch.testing.assert_close(answer.gramian, expected.gramian, rtol=1e-4, atol=1e-6, equal_nan=True)
    for parameter, other in zip(parameters, parameters_of_parts, strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-4, atol=1e-5)
    for other in balancers:
        state, expected = dict(other.state_dict()), dict(balancer.state_dict())
        torch.testing.assert_close(state, expected, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("choice", CHOICES)
def test_all_processes_have_the_same_weights_to_the_last_bit(choice):
    parts, _, _ = train_parts(choice, 3)
    for first, *others in parts:
        for other in others:
            shared_names = first.weights.keys() & other.weights.keys()
            assert {name: float(first.weights[name]) for name in shared_names} == {
                name: float(other.weights[name]) for name in shared_names
            }


@pytest.mark.parametrize("choice", CHOICES)
def test_a_loss_that_is_not_finite_in_one_process_is_named_in_all(choice):
    balancers = [build_balancer(choice, HEADS, on_nan="skip") for _ in range(3)]
    parameters = fresh_parameters()

    def step(rank):
        losses, shared = losses_of_images(parameters, images(0)[2 * rank : 2 * rank + 2], [True, True])
        return {**losses, "c_l1": losses["c_l1"] * (torch.nan if rank == 1 else 1)}, shared

    with pytest.warns(UserWarning, match="the loss of task c is not finite"):
        answers = in_processes(balancers, [lambda rank=rank: step(rank) for rank in range(3)])
    assert [answer.is_skipped for _, answer in answers] == [True, True, True]


@pytest.mark.parametrize("choice", ["grad_norm", "pcgrad"])
def test_an_infinite_gradient_in_one_process_is_named_in_all(choice):
    balancers = [build_balancer(choice, on_nan="skip") for _ in range(2)]

    def step(rank):
        shared = torch.tensor([[0.0 if rank else 4.0, 1.0, 2.0]], requires_grad=True)
        return {"a_l1": shared.sum(), "b_l1": shared[0, 0].sqrt() + 1}, [shared]

    with pytest.warns(UserWarning, match="the gradient of task b on the shared features is not finite"):
        answers = in_processes(balancers, [lambda rank=rank: step(rank) for rank in range(2)])
    assert [answer.is_skipped for _, answer in answers] == [True, True]


def test_the_gramian_of_two_parts_by_hand():
    # L is the mean over two images of z g: on those of the whole batch, its gradient is (g_1, g_2) / 2.
    # a: 3 and 1, b: 1 and -2, so G = [[9 + 1, 3 - 2], [3 - 2, 1 + 4]] / 4
    def step(factor_a, factor_b):
        shared = torch.ones(1, 1, requires_grad=True)
        return {"a_l1": factor_a * shared.sum(), "b_l1": factor_b * shared.sum() + 4}, [shared]

    answers = in_processes([build_balancer("upgrad")] * 2, [lambda: step(3, 1), lambda: step(1, -2)])
    for _, answer in answers:
        torch.testing.assert_close(answer.gramian, torch.tensor([[2.5, 0.25], [0.25, 1.25]], dtype=torch.float64))
