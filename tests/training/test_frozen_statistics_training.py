"""Frozen batch-norm statistics in real trainings of a few steps."""

import pytest
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from tiny_training import data_and_module, plain_trainer
from torch.nn.modules.batchnorm import _BatchNorm

from panoptic.training.processes import ShareStatistics

pytestmark = pytest.mark.slow


def statistics(module):
    return {name: value.clone() for name, value in module.state_dict().items() if "running_" in name}


def same(one, other):
    return list(one) == list(other) and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("averaged", [False, True])
def test_a_training_with_validations_leaves_them_alone(averaged):
    data, module = data_and_module("heads=semantic", "fusion=semantic", "backbone.frozen_statistics=true")
    (path,) = module.network.paths
    norms = [part for part in path.backbone.modules() if isinstance(part, _BatchNorm)]
    generator = torch.Generator().manual_seed(0)
    for part in norms:
        part.running_mean.normal_(generator=generator)
        part.running_var.uniform_(0.5, 2, generator=generator)
    frozen, trained = statistics(path.backbone), statistics(path.decoder)
    gamma = norms[0].weight.detach().clone()
    callbacks = [EMAWeightAveraging(decay=0.5)] if averaged else []
    plain_trainer(*callbacks, ShareStatistics(), max_epochs=2, limit_val_batches=1).fit(module, datamodule=data)
    assert same(frozen, statistics(path.backbone))
    assert not same(trained, statistics(path.decoder))
    assert not torch.equal(gamma, norms[0].weight)
    assert not any(part.training for part in norms)
