"""Batch norms of a network: what they hold, and what a training would leave in them."""

import torch
from torch.nn.modules.batchnorm import _BatchNorm


def norms(module):
    return [part for part in module.modules() if isinstance(part, _BatchNorm)]


@torch.no_grad()
def as_trained(module):
    """The module, with statistics, gamma and beta of noise in its batch norms."""
    for part in norms(module):
        part.running_mean.normal_(std=0.1)
        part.running_var.uniform_(0.5, 2)
        part.weight.uniform_(0.5, 1.5)
        part.bias.normal_(std=0.1)
    return module


def norm_values(module):
    """{name: tensor} of everything that batch norms hold: statistics, gamma and beta."""
    return {
        f"{place}.{name}": tensor.clone()
        for place, part in module.named_modules()
        if isinstance(part, _BatchNorm)
        for name, tensor in part.state_dict().items()
    }


def same(one, other):
    """Whether the tensors of two such dicts are equal to the bit; they have the same names."""
    assert list(one) == list(other)
    return all(torch.equal(value, other[name]) for name, value in one.items())
