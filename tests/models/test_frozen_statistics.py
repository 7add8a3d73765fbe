"""Batch norm whose statistics stay as they came, and whose gamma and beta are trained."""

import pytest
import torch
from batch_norms import norms, same
from torch import nn

from panoptic.configuration import load_config, resolved
from panoptic.models.backbones.timm import TimmBackbone

pytestmark = pytest.mark.slow

IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def trained_backbone(*, frozen_statistics):
    """A backbone with statistics of noise, as a training would leave them."""
    torch.manual_seed(0)
    backbone = TimmBackbone("test_resnet", output_stride=32, frozen_statistics=frozen_statistics)
    generator = torch.Generator().manual_seed(1)
    for part in norms(backbone):
        part.running_mean.normal_(generator=generator)
        part.running_var.uniform_(0.5, 2, generator=generator)
        part.num_batches_tracked.fill_(7)
        nn.init.uniform_(part.weight, 0.5, 1.5)  # timm begins some with zeros, which hide what lies before
    return backbone


def statistics(module):
    return {name: value.clone() for name, value in module.state_dict().items() if name.endswith(STATISTICS)}


@pytest.mark.parametrize("frozen", [True, False])
def test_a_forward_pass_in_training_leaves_frozen_statistics_alone(frozen):
    backbone = trained_backbone(frozen_statistics=frozen)
    before = statistics(backbone)
    assert len(before) >= 3 * len(norms(backbone)) > 0
    for mode in (True, False, True):
        backbone.train(mode)
        assert not any(part.training for part in norms(backbone)) or not frozen
        backbone(IMAGES)
    assert same(before, statistics(backbone)) == frozen


def test_frozen_statistics_normalise_in_training_as_in_evaluation():
    backbone = trained_backbone(frozen_statistics=True)
    in_training = backbone.train()(IMAGES)
    alone = backbone(IMAGES[:1])
    in_evaluation = backbone.eval()(IMAGES)
    for level, features in in_training.items():
        assert torch.equal(features, in_evaluation[level])
        torch.testing.assert_close(alone[level], features[:1], rtol=1e-4, atol=1e-5)


def test_gamma_and_beta_are_trained():
    backbone = trained_backbone(frozen_statistics=True).train()
    backbone(IMAGES)["c5"].square().mean().backward()
    for part in norms(backbone):
        for parameter in (part.weight, part.bias):
            assert parameter.requires_grad
            assert parameter.grad.isfinite().all()
            assert parameter.grad.any()


def test_statistics_of_a_checkpoint_are_loaded_and_then_stay():
    source = trained_backbone(frozen_statistics=False)
    backbone = TimmBackbone("test_resnet", output_stride=32, frozen_statistics=True)
    backbone.load_state_dict(source.state_dict())
    assert same(statistics(backbone), statistics(source))
    backbone.train()(IMAGES)
    assert same(statistics(backbone), statistics(source))
    for level, features in backbone.eval()(IMAGES).items():
        assert torch.equal(features, source.eval()(IMAGES)[level])


def test_norms_of_several_processes_stay_frozen():
    backbone = nn.SyncBatchNorm.convert_sync_batchnorm(trained_backbone(frozen_statistics=True))
    assert {type(part) for part in norms(backbone)} == {nn.SyncBatchNorm}
    assert not any(part.training for part in norms(backbone))
    assert not any(part.training for part in norms(backbone.train()))


def test_a_backbone_without_batch_norm_has_nothing_to_freeze():
    with pytest.raises(
        ValueError, match="test_convnext has no batch norm to freeze the statistics of; leave frozen_st"
    ):
        TimmBackbone("test_convnext", output_stride=32, frozen_statistics=True)


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_a_frozen_backbone_is_chosen_by_name(name):
    config = resolved(load_config("train", [f"backbone={name}_frozen"]))["backbone"]
    assert (config["name"], config["output_stride"], config["frozen_statistics"]) == (name, 32, True)
    assert not resolved(load_config("train", []))["backbone"]["frozen_statistics"]
