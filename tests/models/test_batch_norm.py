"""Momentum of all batch norms, and keeping them as they are: statistics, gamma and beta."""

import copy

import pytest
import torch
from batch_norms import as_trained, norm_values, norms, same
from torch import nn

from panoptic.configuration import load_config, resolved
from panoptic.data.scenes import Scenes
from panoptic.models.build import build_network
from panoptic.models.initialization import initialize_from
from panoptic.models.network import PanopticNetwork

pytestmark = pytest.mark.slow

SCENES = Scenes(split="train", length=1, size=(48, 64), difficulty="easy")
SMALL = ["backbone=resnet_small_multi_grid", "decoder=deeplabv3_small", "heads=deeplabv3", "fusion=semantic"]
FROZEN = "batch_norm.frozen=true"
SIZES = [(49, 65)] * 2
IMAGES = torch.randint(0, 256, (2, 3, 49, 65), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def compose(*choices):
    return resolved(load_config("train", [*SMALL, *choices]))


def network_of(*choices, seed=0) -> PanopticNetwork:
    torch.manual_seed(seed)
    return build_network(compose(*choices), SCENES.categories, SCENES.image_statistics)


def train_a_step(network):
    """With weight decay and momentum, which would move parameters that have no gradient of their own."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        outputs, _ = network(IMAGES, SIZES)
        outputs["semantic"].values.square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_means_statistics_gamma_and_beta_whatever_mode_is_asked_for(frozen):
    network = as_trained(network_of(f"batch_norm.frozen={frozen}"))
    before = norm_values(network)
    kernels = [part.weight.detach().clone() for part in network.modules() if isinstance(part, nn.Conv2d)]
    for mode in (True, False, True):
        network.train(mode)
        assert any(part.training for part in norms(network)) == (mode and not frozen)
        assert network.training == network.heads["semantic"].training == mode
    train_a_step(network)
    assert same(before, norm_values(network)) == frozen
    after = [part.weight for part in network.modules() if isinstance(part, nn.Conv2d)]
    assert not any(torch.equal(one, other) for one, other in zip(kernels, after, strict=True))


def test_frozen_parameters_ask_for_no_gradient_and_all_others_do():
    network = network_of(FROZEN)
    frozen = {id(parameter) for part in norms(network) for parameter in part.parameters()}
    assert frozen
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == (id(parameter) not in frozen), name
    train_a_step(network)
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == (id(parameter) in frozen), name


def test_frozen_batch_norm_normalises_in_training_as_in_evaluation_also_a_batch_of_one():
    network = as_trained(network_of(FROZEN)).train()
    both, _ = network(IMAGES, SIZES)
    alone, _ = network(IMAGES[:1], SIZES[:1])
    evaluated, _ = network.eval()(IMAGES, SIZES)
    assert torch.equal(both["semantic"].values, evaluated["semantic"].values)
    torch.testing.assert_close(alone["semantic"].values, both["semantic"].values[:1], rtol=1e-4, atol=1e-5)


def test_weights_of_another_run_come_in_and_then_stay(tmp_path):
    first = as_trained(network_of(seed=1))
    torch.save({f"network.{name}": tensor for name, tensor in first.state_dict().items()}, tmp_path / "first.ckpt")
    second = network_of(FROZEN, "backbone.output_stride=8", seed=2)
    report = initialize_from(second, tmp_path / "first.ckpt")
    assert "0 of another shape left as they were []; 0 not in the file []; 0 of the file unused []" in report
    assert same(norm_values(first), norm_values(second))
    train_a_step(second.train())
    assert same(norm_values(first), norm_values(second))
    again = network_of(FROZEN, seed=3)  # as evaluate, predict and resume build it
    again.load_state_dict(second.state_dict())
    train_a_step(again.train())
    assert same(norm_values(first), norm_values(again))


def test_a_copy_is_frozen_too():
    network = copy.deepcopy(as_trained(network_of(FROZEN)))
    before = norm_values(network)
    train_a_step(network.train())
    assert same(before, norm_values(network))


@pytest.mark.parametrize(("momentum", "expected"), [("3.0e-4", 3e-4), ("1.0", 1.0), ("null", 0.1)])
def test_the_momentum_of_every_batch_norm_is_that_of_the_configuration(momentum, expected):
    network = network_of(f"batch_norm.momentum={momentum}")
    assert len(norms(network)) > 20
    assert {part.momentum for part in norms(network)} == {expected}


def test_a_decay_of_0_9997_moves_statistics_by_3_of_10000():
    network = network_of("batch_norm.momentum=3.0e-4").train()
    norm, before = norms(network)[0], []
    norm.register_forward_hook(lambda part, inputs, output: before.append(inputs[0].mean((0, 2, 3))))
    norm.running_mean.fill_(5.0)
    network(IMAGES, SIZES)
    torch.testing.assert_close(norm.running_mean, 0.9997 * 5 + 0.0003 * before[0])


def test_frozen_statistics_of_a_backbone_still_leave_gamma_and_beta_to_be_trained():
    choices = ["backbone=timm", "backbone.name=test_resnet", "backbone.frozen_statistics=true"]
    network = network_of(*choices, "batch_norm.momentum=0.5").train()
    backbone = norms(network.paths[0].backbone)
    assert not any(part.training for part in backbone)
    assert all(part.weight.requires_grad for part in backbone)
    assert all(part.training for part in norms(network.paths[0].decoder))
    frozen = network_of(*choices, FROZEN).train()
    assert not any(part.training or part.weight.requires_grad for part in norms(frozen))


def test_a_run_from_before_there_was_a_choice_is_what_it_was():
    config = compose()
    del config["batch_norm"]
    network = build_network(config, SCENES.categories, SCENES.image_statistics)
    assert {part.momentum for part in norms(network)} == {0.1}
    assert all(part.training and part.weight.requires_grad for part in norms(network))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (["batch_norm.momentum=0"], r"expected batch_norm.momentum in \(0, 1\], got 0; a decay of 0.9997 is 0.0003"),
        (["batch_norm.momentum=1.01"], r"expected batch_norm.momentum in \(0, 1\], got 1.01"),
        (["batch_norm.momentum=-0.1"], r"expected batch_norm.momentum in \(0, 1\], got -0.1"),
        ([FROZEN], "the network has no batch norm to freeze; leave batch_norm.frozen false"),
        (["batch_norm.momentum=0.1"], "the network has no batch norm to set the momentum of; leave batch_norm.mom"),
    ],
)
def test_what_cannot_be_set_says_why(choices, message):
    without = ["backbone=timm", "backbone.name=test_convnext", "decoder=none", "decoder.aspp=false"]
    with pytest.raises(ValueError, match=message):
        network_of(*without, *choices)
