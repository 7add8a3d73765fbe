"""Output strides, two networks and detections under inference strategies; what is refused."""

import math
from dataclasses import replace

import pytest
import torch
from inference.random_networks import PYRAMID, SIZES, expected_probabilities, images_of, pad_to_rule, random_network

from panoptic.inference.test_time import PLAIN
from panoptic.inference.test_time import TestTime as Strategy
from panoptic.models.heads.base import DenseOutput
from panoptic.models.joined import JoinedNetworks
from panoptic.models.output_stride import output_stride_of

pytestmark = pytest.mark.slow


@torch.no_grad()
@pytest.mark.parametrize(("stride", "cells"), [(8, (3, 3)), (32, (2, 2))])  # of 17 x 17 and 33 x 33 pixels
def test_another_output_stride_is_that_of_a_network_built_with_it(semantic, stride, cells):
    other = random_network("heads=semantic", "fusion=semantic", f"backbone.output_stride={stride}")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in semantic.state_dict().items())
    images = images_of(semantic)
    expected, _ = other(images_of(other), SIZES)
    outputs, features = Strategy(output_stride=stride)(semantic, images, SIZES)
    assert torch.equal(outputs["semantic"].values, expected["semantic"].values)
    assert features["semantic"].levels["c5"].shape[-2:] == cells
    averaged, _ = Strategy(output_stride=stride, scales=(0.5, 1.0))(semantic, images, SIZES)
    for index, mean in enumerate(expected_probabilities(other, images, SIZES, (0.5, 1.0), False)):
        found = averaged["semantic"].image(index, SIZES[index])
        torch.testing.assert_close(found.exp(), mean.float(), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_network_has_its_own_output_stride_and_mode_again(semantic):
    images = images_of(semantic)
    before, _ = semantic(images, SIZES)
    semantic.train()
    Strategy(output_stride=8).check(semantic)
    assert semantic.training
    semantic.eval()
    Strategy(output_stride=8, flip=True)(semantic, images, SIZES)
    assert output_stride_of(semantic) == 16
    assert torch.equal(semantic(images, SIZES)[0]["semantic"].values, before["semantic"].values)


@torch.no_grad()
def test_a_network_that_has_diverged_is_an_error_and_has_its_output_stride_again():
    network = random_network("heads=semantic", "fusion=semantic")
    torch.nn.init.constant_(network.heads["semantic"].layers[-1].bias, math.nan)
    with pytest.raises(ValueError, match="expected finite outputs of every head, got nan or infinity"):
        Strategy(output_stride=8, flip=True)(network, images_of(network), SIZES)
    assert output_stride_of(network) == 16


@torch.no_grad()
def test_of_two_networks_the_one_with_the_head_is_looked_at_closely(semantic):
    second = random_network("~heads.semantic", "loss_weights={}", seed=2)
    joined = JoinedNetworks(semantic, second).eval()
    images = images_of(joined)
    strategy = Strategy(output_stride=8, scales=(0.5, 1.0), flip=True)
    outputs, _ = strategy(joined, images, SIZES)
    plain, _ = joined(images, SIZES)
    alone, _ = strategy(semantic, pad_to_rule(semantic, images), SIZES)
    assert list(outputs) == list(plain)
    for index, size in enumerate(SIZES):
        assert torch.equal(outputs["semantic"].image(index, size), alone["semantic"].image(index, size))
        assert torch.equal(outputs["heatmap"].image(index, size), plain["heatmap"].image(index, size))
    assert output_stride_of(semantic) == output_stride_of(second) == 16


@pytest.fixture(scope="module")
def with_detections():
    """A semantic head and a Mask R-CNN on a feature pyramid."""
    return random_network("heads=fusion_scheme_small", *PYRAMID, "fusion=detection_score")


@torch.no_grad()
def test_scales_serve_the_semantic_head_beside_detections(with_detections):
    images = images_of(with_detections)
    outputs, _ = Strategy(scales=(0.5, 1.0), flip=True)(with_detections, images, SIZES)
    plain, _ = with_detections(images, SIZES)
    for index, expected in enumerate(expected_probabilities(with_detections, images, SIZES, (0.5, 1.0), True)):
        found = outputs["semantic"].image(index, SIZES[index])
        torch.testing.assert_close(found.exp(), expected.float(), atol=3e-4, rtol=0)
        boxes = outputs["instances"].image(index, SIZES[index]).boxes
        assert torch.equal(boxes, plain["instances"].image(index, SIZES[index]).boxes)


def test_the_output_stride_of_a_network_with_detections_is_refused(with_detections):
    with pytest.raises(ValueError, match="output_stride=8 is not for this network: a feature pyramid, and the heads"):
        Strategy(output_stride=8).check(with_detections)
    assert output_stride_of(with_detections) == 32
    Strategy(scales=(0.5, 1.0), flip=True).check(with_detections)
    PLAIN.check(with_detections)


def test_beside_detections_of_another_run_the_semantic_one_can_have_another_output_stride(semantic, with_detections):
    joined = JoinedNetworks(semantic, random_network("heads=mask_rcnn_small", *PYRAMID, "fusion=instances"))
    Strategy(output_stride=8).check(joined)
    assert [output_stride_of(each) for each in (joined.first, joined.second)] == [16, 32]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": []}, r"expected scales as positive numbers, such as \[0.75,1.0,1.25\], got \[\]"),
        ({"scales": [1.0, 0]}, r"expected scales as positive numbers.*got \[1.0, 0\]"),
        ({"scales": [-0.5]}, r"expected scales as positive numbers.*got \[-0.5\]"),
        ({"scales": [math.nan]}, r"expected scales as positive numbers.*got \[nan\]"),
        ({"scales": [math.inf]}, r"expected scales as positive numbers.*got \[inf\]"),
        ({"scales": ["half"]}, r"expected scales as positive numbers.*got \['half'\]"),
        ({"scales": [True]}, r"expected scales as positive numbers.*got \[True\]"),
        ({"scales": "0.5"}, r"expected scales as positive numbers.*got '0.5'"),
        ({"scales": 0.5}, r"expected scales as positive numbers.*got 0.5"),
        ({"scales": None}, r"expected scales as positive numbers.*got None"),
        ({"scales": [0.5, 1.0, 0.5]}, r"expected each of scales once, got \[0.5, 1.0, 0.5\]"),
        ({"flip": 1}, r"expected true or false for flip, got 1"),
        ({"output_stride": 8.0}, r"expected output_stride as a power of 2 in pixels, or null, got 8.0"),
        ({"output_stride": 0}, r"expected output_stride as a power of 2.*got 0"),
        ({"output_stride": -8}, r"expected output_stride as a power of 2.*got -8"),
        ({"output_stride": 12}, r"expected output_stride as a power of 2.*got 12"),
        ({"output_stride": True}, r"expected output_stride as a power of 2.*got True"),
    ],
)
def test_options_that_make_no_sense_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Strategy.of(options)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (Strategy(flip=True, head="depth"), r"are of the head 'depth', but the network has \['heatmap', 'long_range',"),
        (Strategy(flip=True, head="heatmap"), r"head of class logits to average, got 'heatmap', a HeatmapHead"),
        (Strategy(flip=True, head="long_range"), r"head of class logits to average, got 'long_range', a LongRangeHead"),
        (Strategy(output_stride=1024), r"output_stride=1024 is not for this network: "),
        (Strategy(output_stride=2), r"output_stride=2 is not for this network: "),
    ],
)
def test_what_a_network_cannot_do_is_refused_before_it_runs(deeperlab, strategy, message):
    with pytest.raises(ValueError, match=message):
        strategy.check(deeperlab)
    assert output_stride_of(deeperlab) == 16


def test_detections_are_no_class_logits(with_detections):
    with pytest.raises(ValueError, match=r"head of class logits to average, got 'instances', a MaskRCNNHead"):
        Strategy(flip=True, head="instances").check(with_detections)


@torch.no_grad()
def test_a_head_of_the_users_own_whose_outputs_are_offsets_is_refused(semantic):
    forward = semantic.heads["semantic"].forward
    network = random_network("heads=semantic", "fusion=semantic")
    network.heads["semantic"].forward = lambda features, outputs: replace(forward(features, outputs), pairs=True)
    with pytest.raises(ValueError, match=r"expected class logits of the head 'semantic', got DenseOutput of pairs"):
        Strategy(flip=True)(network, images_of(network), SIZES)
    network.heads["semantic"].forward = lambda features, outputs: [DenseOutput(torch.zeros(1), (1, 1))]
    with pytest.raises(ValueError, match=r"expected class logits of the head 'semantic', got list; leave scales"):
        Strategy(flip=True)(network, images_of(network), SIZES)


def test_strategies_say_what_they_are():
    assert str(PLAIN) == ""
    assert str(Strategy(scales=(1.0,), output_stride=8)) == "output stride 8"
    assert str(Strategy(8, (0.5, 1.0, 1.75), True)) == "output stride 8, scales 0.5 1 1.75, flip"
    assert Strategy.of({"size": "original", "perfect": []}) == PLAIN  # of a run from before there was a choice
    assert Strategy.of({"output_stride": 8, "scales": [0.5], "flip": True}) == Strategy(8, [0.5], True)
