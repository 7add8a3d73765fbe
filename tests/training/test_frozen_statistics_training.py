"""Frozen batch-norm statistics in real trainings of a few steps."""

import pytest
import torch
from batch_norms import norms, same
from pytorch_lightning.callbacks import EMAWeightAveraging
from tiny_training import data_and_module, plain_trainer

from panoptic.training.processes import ShareStatistics

pytestmark = pytest.mark.slow


def statistics(module):
    return {name: value.clone() for name, value in module.state_dict().items() if "running_" in name}


@pytest.mark.parametrize("averaged", [False, True])
def test_a_training_with_validations_leaves_them_alone(averaged):
    data, module = data_and_module("heads=semantic", "fusion=semantic", "backbone.frozen_statistics=true")
    (path,) = module.network.paths
    backbone = norms(path.backbone)
    generator = torch.Generator().manual_seed(0)
    for part in backbone:
        part.running_mean.normal_(generator=generator)
        part.running_var.uniform_(0.5, 2, generator=generator)
    frozen, trained = statistics(path.backbone), statistics(path.decoder)
    gamma = backbone[0].weight.detach().clone()
    callbacks = [EMAWeightAveraging(decay=0.5)] if averaged else []
    plain_trainer(*callbacks, ShareStatistics(), max_epochs=2, limit_val_batches=1).fit(module, datamodule=data)
    assert same(frozen, statistics(path.backbone))
    assert not same(trained, statistics(path.decoder))
    assert not torch.equal(gamma, backbone[0].weight)
    assert not any(part.training for part in backbone)
