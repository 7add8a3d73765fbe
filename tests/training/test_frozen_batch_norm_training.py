"""Frozen batch norm, gamma and beta included, in real trainings of a few steps."""

import pytest
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from tiny_training import data_and_module, plain_trainer
from torch.nn.modules.batchnorm import _BatchNorm

from panoptic.training.processes import ShareStatistics

pytestmark = pytest.mark.slow

CHOICES = ["decoder=deeplabv3_small", "heads=deeplabv3", "fusion=semantic", "optimizer=sgd"]


def values_of(network):
    """{name: tensor} of everything that batch norms hold."""
    return {
        f"{place}.{name}": tensor.clone()
        for place, part in network.named_modules()
        if isinstance(part, _BatchNorm)
        for name, tensor in part.state_dict().items()
    }


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_training_with_validations_leaves_it_alone(frozen, averaged):
    data, module = data_and_module(*CHOICES, f"batch_norm.frozen={frozen}", "optimizer.weight_decay=0.1")
    before = values_of(module.network)
    kernel = module.network.heads["semantic"].layers.weight.detach().clone()
    callbacks = [EMAWeightAveraging(decay=0.5)] if averaged else []
    plain_trainer(*callbacks, ShareStatistics(), max_epochs=2, limit_val_batches=1).fit(module, datamodule=data)
    after = values_of(module.network)
    assert list(after) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items()) == frozen
    assert not torch.equal(kernel, module.network.heads["semantic"].layers.weight)
