"""Batch norm of a whole network: its momentum, and keeping it as it is (DeepLabv3, Sec. 4.1)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(module: nn.Module) -> Iterator[_BatchNorm]:
    """Every batch norm within a module."""
    return (part for part in module.modules() if isinstance(part, _BatchNorm))


def use_running_statistics(module: nn.Module) -> None:
    """Normalise with running statistics and leave them as they are, until the next `train()`."""
    for part in batch_norms(module):
        part.training = False  # its own alone: timm's have dropout and activation within


def freeze_parameters(module: nn.Module) -> None:
    """Take gamma and beta of every batch norm out of the training.

    Raises:
        ValueError: there is no batch norm.
    """
    if next(batch_norms(module), None) is None:
        raise ValueError("the network has no batch norm to freeze; leave batch_norm.frozen false")
    for part in batch_norms(module):
        for parameter in part.parameters(recurse=False):
            parameter.requires_grad_(False)


def set_momentum(module: nn.Module, momentum: float) -> None:
    """Let running statistics move by `momentum` of the way to those of a batch; TensorFlow's decay is 1 - momentum.

    Raises:
        ValueError: a momentum outside (0, 1], or there is no batch norm.
    """
    if not 0 < momentum <= 1:
        raise ValueError(f"expected batch_norm.momentum in (0, 1], got {momentum}; a decay of 0.9997 is 0.0003")
    if next(batch_norms(module), None) is None:
        raise ValueError("the network has no batch norm to set the momentum of; leave batch_norm.momentum null")
    for part in batch_norms(module):
        part.momentum = momentum
