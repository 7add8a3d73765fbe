"""What a balancer knows is in its state: N steps, a resume, and N steps are 2 N steps."""

import pytest
import torch
from balancing_steps import build_balancer, in_one_process, losses_of
from contracts.composed import choices

HEADS = "abc"


def train(balancer, first, last):
    """Steps of two to an epoch, with losses and gradients that depend on their number, and on it alone."""
    found = []
    learned = list(balancer.parameters())
    for number in range(first, last):
        generator = torch.Generator().manual_seed(number)
        values = dict(zip(HEADS, (torch.rand(3, generator=generator) + 0.1).tolist(), strict=True))
        gradients = dict(zip(HEADS, torch.randn(3, 4, generator=generator).tolist(), strict=True))
        if number % 3 == 1:
            del values["b"]
        losses, shared = losses_of(values, {task: gradients[task] for task in values})
        balanced = balancer(losses, shared, in_one_process)
        found.append([float(balanced.total.detach()), *(float(weight) for weight in balanced.weights.values())])
        for parameter in learned:
            (slope,) = torch.autograd.grad(balanced.total, parameter)
            parameter.data -= 0.1 * slope
        balancer.after_step(lambda losses=losses: {name: 0.8 * loss.detach().square() for name, loss in losses.items()})
        if number % 2:
            balancer.end_epoch()
    return found


@pytest.mark.parametrize("num_steps", [4, 5])
@pytest.mark.parametrize("choice", choices("balancing"))
def test_a_resume_changes_nothing(choice, num_steps, tmp_path):
    straight = build_balancer(choice, HEADS)
    expected = train(straight, 0, 2 * num_steps)
    before, after = build_balancer(choice, HEADS), build_balancer(choice, HEADS)
    found = train(before, 0, num_steps)
    torch.save(before.state_dict(), tmp_path / "state.pt")
    after.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    found += train(after, num_steps, 2 * num_steps)
    assert found == expected
    torch.testing.assert_close(dict(after.state_dict()), dict(straight.state_dict()), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("choice", choices("balancing"))
def test_the_identity_names_strategy_and_tasks(choice):
    identity = build_balancer(choice, HEADS).identity
    assert identity["tasks"] == {"a": ["a_l1"], "b": ["b_l1"], "c": ["c_l1"]}
    assert identity == build_balancer(choice, reversed(HEADS)).identity
    assert identity != build_balancer(choice, "ab").identity


def test_strategies_have_identities_of_their_own():
    identities = [build_balancer(choice).identity["strategy"] for choice in choices("balancing")]
    assert len(set(identities)) == len(identities)
