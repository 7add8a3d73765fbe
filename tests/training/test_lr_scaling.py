"""Rules of learning-rate scaling, against what each of them keeps equal."""

import pytest
import torch

from panoptic.configuration import config_folder, load_config, resolved
from panoptic.instantiation import build
from panoptic.training.lr_scaling import linear, none, sqrt, with_scaled_rate

RULES = sorted(path.stem for path in (config_folder() / "lr_scaling").glob("*.yaml"))


def sgd_path(gradients, rate, batch):
    """Where a parameter ends that SGD moves by the mean gradient of each batch."""
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=rate)
    for part in gradients.split(batch):
        parameter.grad = part.mean()
        optimizer.step()
    return parameter.item()


def test_linear_scaling_moves_as_far_per_image():
    # Goyal et al., Sec. 2.1: k small steps equal one large one where gradients do not change meanwhile.
    gradients = torch.randn(48, generator=torch.Generator().manual_seed(0))
    expected = sgd_path(gradients, 0.1, 4)
    for batch in (8, 24, 48):
        assert sgd_path(gradients, 0.1 * linear(batch, reference_batch_size=4), batch) == pytest.approx(expected)


def test_square_root_scaling_keeps_the_variance_of_a_step():
    # A step's variance is rate^2 / batch for gradients of variance 1.
    for batch in (1, 4, 9, 32):
        rate = 0.1 * sqrt(batch, reference_batch_size=4)
        assert rate**2 / batch == pytest.approx(0.1**2 / 4)


def test_without_scaling_the_batch_does_not_matter():
    assert none(1) == none(640) == 1.0


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_leaves_the_rate_at_its_reference_and_is_a_choice(rule):
    config = resolved(load_config("train", [f"lr_scaling={rule}"]))
    factor = build(config["lr_scaling"])
    assert factor(config["data"]["batch_size"]) == 1.0
    expected = {"none": 1.0, "linear": 4.0, "sqrt": 2.0}[rule]
    assert factor(4 * config["data"]["batch_size"]) == expected


@pytest.mark.parametrize("rule", [linear, sqrt])
def test_a_reference_without_images_is_refused(rule):
    with pytest.raises(ValueError, match=r"expected lr_scaling.reference_batch_size of at least 1, got 0"):
        rule(8, reference_batch_size=0)


def test_only_the_rate_of_the_optimizer_changes():
    node = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
    assert with_scaled_rate(node, 3.0) == {**node, "lr": pytest.approx(0.3)}
    assert with_scaled_rate(node, 1.0) == node


def test_an_optimizer_without_a_rate_cannot_be_scaled():
    with pytest.raises(ValueError, match=r"expected optimizer.lr, .* got \['_target_'\]; give \+optimizer.lr"):
        with_scaled_rate({"_target_": "torch.optim.Adadelta"}, 2.0)
    assert with_scaled_rate({"_target_": "torch.optim.Adadelta"}, 1.0) == {"_target_": "torch.optim.Adadelta"}
