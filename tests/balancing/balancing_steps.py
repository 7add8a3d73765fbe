"""Balancers of `conf/balancing`, and steps of which losses and gradients are known."""

import copy
from functools import cache

import torch
from omegaconf import OmegaConf

from panoptic.configuration import config_folder
from panoptic.instantiation import build


@cache
def config_of(choice):
    """Of the yaml file alone: composing the whole of `conf/` takes many times as long as a test."""
    node = OmegaConf.load(config_folder() / "balancing" / f"{choice}.yaml")
    return OmegaConf.to_container(OmegaConf.create({"seed": 0, "balancing": node}), resolve=True)["balancing"]


def build_balancer(choice, heads="ab", **options):
    """A balancer of one loss per letter, `a_l1` of head `a`, ..; options replace those of the yaml file."""
    heads = {head: [f"{head}_l1"] for head in heads}
    return build({**copy.deepcopy(config_of(choice)), **options}, losses_of_heads=heads)


def in_one_process(value):
    return value


def losses_of(values, gradients=None, dtype=torch.float32):
    """Losses of tasks a, b, .. with these values, and with these gradients on the one shared tensor.

    Args:
        values: {task: value}; of those with `None` for a gradient, the loss does not reach the shared tensor.
        gradients: {task: list of D numbers}; ones that have three unless given.
        dtype: of the losses.
    """
    gradients = {task: [1.0, 0.0, 0.0] for task in values} if gradients is None else gradients
    size = max(len(gradient) for gradient in gradients.values() if gradient is not None)
    shared = torch.ones(1, size, dtype=dtype, requires_grad=True)
    elsewhere = torch.ones((), dtype=dtype, requires_grad=True)
    losses = {}
    for task, value in values.items():
        gradient = gradients[task]
        line = elsewhere * 1.0 if gradient is None else (shared * torch.tensor([gradient], dtype=dtype)).sum()
        losses[f"{task}_l1"] = line - line.detach() + value
    return losses, [shared]


def weights_of(balancer, values, gradients=None):
    """[weight of a task], of one step."""
    losses, shared = losses_of(values, gradients)
    return [float(weight) for weight in balancer(losses, shared, in_one_process).weights.values()]


class UnknownSumError(Exception):
    """A process asks for a sum that is not known yet."""


def in_processes(balancers, steps):
    """What the balancers of N processes answer to a step: all run again whenever a sum that they ask for is known.

    Args:
        balancers: of the N processes; they stay as they are.
        steps: N functions that give losses and shared tensors.

    Returns:
        N pairs of a balancer after the step and its answer.
    """
    sums = []
    while True:
        parts, answers = [], []
        for balancer, step in zip(balancers, steps, strict=True):
            told = iter(sums)

            def reducer(value, told=told, parts=parts):
                known = next(told, None)
                if known is None:
                    parts.append(value)
                    raise UnknownSumError
                return known

            twin = copy.deepcopy(balancer)
            try:
                answers.append((twin, twin(*step(), reducer)))
            except UnknownSumError:
                continue
        if not parts:
            return answers
        assert len(parts) == len(balancers), "some processes ask for a sum and others do not"
        sums.append(torch.stack(parts).sum(0))
