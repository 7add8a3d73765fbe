"""Frozen batch norm, gamma and beta included, in real trainings of a few steps."""

import pytest
import torch
from batch_norms import norm_values, same
from pytorch_lightning.callbacks import EMAWeightAveraging
from tiny_training import data_and_module, plain_trainer

from panoptic.training.processes import ShareStatistics

pytestmark = pytest.mark.slow

CHOICES = ["decoder=deeplabv3_small", "heads=deeplabv3", "fusion=semantic", "optimizer=sgd"]


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_training_with_validations_leaves_it_alone(frozen, averaged):
    data, module = data_and_module(*CHOICES, f"batch_norm.frozen={frozen}", "optimizer.weight_decay=0.1")
    before = norm_values(module.network)
    kernel = module.network.heads["semantic"].layers.weight.detach().clone()
    callbacks = [EMAWeightAveraging(decay=0.5)] if averaged else []
    plain_trainer(*callbacks, ShareStatistics(), max_epochs=2, limit_val_batches=1).fit(module, datamodule=data)
    assert same(before, norm_values(module.network)) == frozen
    assert not torch.equal(kernel, module.network.heads["semantic"].layers.weight)
