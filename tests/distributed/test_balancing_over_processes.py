"""Every strategy finds the same weights and parameters in one process with a batch as in several with its parts."""

from functools import cache

import pytest
import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from panoptic.configuration import config_folder
from panoptic.instantiation import build
from panoptic.training.processes import mean_over_processes, sum_over_processes

STRATEGIES = sorted(path.stem for path in (config_folder() / "balancing").glob("*.yaml"))
HEADS = {"first": ["first_l2"], "second": ["second_l2", "second_l1"], "third": ["third_l2"], "late": ["late_l2"]}
STEPS, BATCH = 6, 6
STEPS_PER_EPOCH = 2

ROUNDING = 2e-7
"""All is fp64 but for what balancers keep in fp32, values of losses and weights: 6e-8 of each."""


class Toy(nn.Module):
    """Shared features, and losses that are means over images; one head reads images alone."""

    def __init__(self, strategy):
        super().__init__()
        self.body = nn.Linear(5, 7)
        self.heads = nn.ModuleDict({name: nn.Linear(5 if name == "late" else 7, 3) for name in HEADS})
        node = OmegaConf.load(config_folder() / "balancing" / f"{strategy}.yaml")
        config = OmegaConf.create({"seed": 0, "balancing": node})
        self.balancer = build(config.balancing, losses_of_heads=HEADS)

    def losses(self, images):
        shared = self.body(images).tanh()
        losses = {}
        for number, (name, terms) in enumerate(HEADS.items()):
            error = self.heads[name](images if name == "late" else shared) - 0.3 * number
            values = {"l2": error.square().mean(), "l1": error.abs().mean()}
            losses |= {term: values[term.rsplit("_")[-1]] for term in terms}
        return losses, [shared]

    def forward(self, images):
        losses, shared = self.losses(images)
        return self.balancer(losses, shared, sum_over_processes)


def train(strategy):
    """Weights of every step and parameters at the end; a process of several takes its part of each batch."""
    torch.manual_seed(0)
    toy = Toy(strategy)
    toy.body.double(), toy.heads.double()
    is_split = dist.is_initialized()
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if is_split else (0, 1)
    network = DistributedDataParallel(toy) if is_split else toy
    optimizer = torch.optim.SGD(toy.parameters(), lr=0.1, momentum=0.9)
    weights = []
    for step in range(STEPS):
        images = torch.randn(BATCH, 5, dtype=torch.float64)[rank::world_size]
        balanced = network(images)
        optimizer.zero_grad()
        balanced.total.backward()
        optimizer.step()
        toy.balancer.after_step(lambda images=images: mean_over_processes(toy.losses(images)[0]))
        if (step + 1) % STEPS_PER_EPOCH == 0:
            toy.balancer.end_epoch()
        weights.append({name: float(weight) for name, weight in balanced.weights.items()})
    return weights, {name: value.detach() for name, value in toy.named_parameters()}


@cache
def train_alone(strategy):
    return train(strategy)


def train_all():
    return {strategy: train(strategy) for strategy in STRATEGIES}


@pytest.fixture(scope="module", params=[2, 3])
def records(gloo, request):
    """{strategy: what `train` gives} of each process, all in one group."""
    return gloo.run(request.param, train_all)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_processes_balance_as_one_does(records, strategy):
    expected_weights, expected = train_alone(strategy)
    for weights, parameters in (record[strategy] for record in records):
        for step, (found, wanted) in enumerate(zip(weights, expected_weights, strict=True)):
            assert found == pytest.approx(wanted, abs=ROUNDING * max(wanted.values())), step
        for name, value in expected.items():
            torch.testing.assert_close(
                parameters[name], value, rtol=0, atol=ROUNDING, msg=lambda t, n=name: f"{n}: {t}"
            )


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - {"fixed"}))
def test_weights_are_not_all_one(strategy):
    weights, _ = train_alone(strategy)
    assert any(weight != 1 for weight in weights[-1].values())
