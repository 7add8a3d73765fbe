"""What the options of Tables 3 and 4 change in the whole network, and that they change nothing else."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from panoptic.configuration import load_config, resolved
from panoptic.data.scenes import Scenes
from panoptic.fusion.arrays import padded_array
from panoptic.models.build import build_network
from panoptic.models.heads.base import DenseOutput, prediction_layers

pytestmark = pytest.mark.slow

SCENES = Scenes(split="train", length=1, size=(48, 64), difficulty="easy")
NUM_CATEGORIES = len(SCENES.categories)
# K of each head: P = 5 keypoints, E = 8 edges.
CHANNELS = {"semantic": NUM_CATEGORIES, "heatmap": 5, "short_range": 10, "middle_range": 16, "long_range": 10}
WIDER = "backbone=mobilenetv2_wider"


@cache
def network_of(*overrides):
    """The full-size network without memory for its weights."""
    config = resolved(load_config("train", overrides))
    with torch.device("meta"):
        return build_network(config, SCENES.categories, SCENES.image_statistics).eval()


def shapes(*overrides):
    return {name: tuple(tensor.shape) for name, tensor in network_of(*overrides).state_dict().items()}


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def deep(in_channels, filters, kernel_size):
    """Parameters before a head's 1x1: depthwise and pointwise, each with a norm."""
    return in_channels * kernel_size**2 + 2 * in_channels + in_channels * filters + 2 * filters


@pytest.mark.parametrize(
    ("options", "in_channels", "kernel_size"),
    [
        (["decoder=s2d"], 256, 7),
        (["decoder=s2d", "decoder.kernel_size=3"], 256, 3),
        (["decoder=s2d_light"], 128, 3),
        (["decoder=bilinear"], 256, 7),
        (["decoder=none"], 256, 7),
        (["decoder=s2d", "deep_head=false"], 256, None),
        (["decoder=bilinear", "deep_head=false"], 256, None),
        (["decoder=none", "deep_head=false"], 256, None),
        (["decoder=none", "decoder.aspp=false", "deep_head=false"], 320, None),
    ],
)
def test_every_head_has_the_parameters_of_its_options(options, in_channels, kernel_size):
    heads = network_of(WIDER, *options).heads
    assert list(heads) == list(CHANNELS)
    for name, head in heads.items():
        filters = 256 if name == "semantic" else 64
        first = 0 if kernel_size is None else deep(in_channels, filters, kernel_size)
        read = in_channels if kernel_size is None else filters
        assert num_parameters(head) == first + (read + 1) * CHANNELS[name], name


@pytest.mark.parametrize("decoder", ["bilinear", "s2d"])
def test_smaller_kernels_change_two_layers_of_the_decoder_and_one_of_each_head(decoder):
    large, small = shapes(WIDER, f"decoder={decoder}"), shapes(WIDER, f"decoder={decoder}", "decoder.kernel_size=3")
    assert list(large) == list(small)
    changed = [name for name in large if large[name] != small[name]]
    assert [".decoder.refine." in name for name in changed] == 2 * [True] + 5 * [False]
    for name in changed:
        channels, *rest = large[name]
        assert (rest, small[name]) == ([1, 7, 7], (channels, 1, 3, 3))


@pytest.mark.parametrize("decoder", ["bilinear", "s2d", "none"])
def test_heads_of_one_layer_leave_the_rest_of_the_network_alone(decoder):
    deep_heads, flat_heads = shapes(WIDER, f"decoder={decoder}"), shapes(WIDER, f"decoder={decoder}", "deep_head=false")
    rest = {name: shape for name, shape in deep_heads.items() if ".heads." not in name}
    assert {name: shape for name, shape in flat_heads.items() if ".heads." not in name} == rest
    own = {name: shape for name, shape in flat_heads.items() if ".heads." in name}
    assert sorted(own.values()) == sorted(
        shape for channels in CHANNELS.values() for shape in [(channels, 256, 1, 1), (channels,)]
    )


@pytest.mark.parametrize(("kernel_size", "more"), [(3, 0), (5, 16), (7, 40)])
def test_table_3_changes_the_kernels_of_the_backbone(kernel_size, more):
    row = ["backbone=mobilenetv2", "decoder=none", "deep_head=false"]
    stock, wider = network_of(*row), network_of(*row, f"backbone.kernel_size={kernel_size}")
    kernels = sum(tensor.shape[0] * tensor.shape[1] for tensor in stock.parameters() if tensor.shape[2:] == (3, 3))
    branches = 3 * 320  # the atrous convolutions of ASPP stay 3x3
    assert num_parameters(wider) - num_parameters(stock) == more * (kernels - branches)
    without = network_of(*row, f"backbone.kernel_size={kernel_size}", "decoder.aspp=false")
    assert num_parameters(without.paths[0].backbone) == num_parameters(wider.paths[0].backbone)
    assert num_parameters(without.paths[0].decoder) == 0


@pytest.mark.parametrize("backbone", ["xception71", "mobilenetv2_wider"])
@pytest.mark.parametrize(("decoder", "stride"), [("none", 16), ("bilinear", 4), ("s2d", 4), ("s2d_light", 4)])
def test_full_size_outputs_cover_every_pixel(backbone, decoder, stride):
    network = network_of(f"backbone={backbone}", f"decoder={decoder}")
    images = torch.zeros(1, 3, 721, 1441, dtype=torch.uint8, device="meta")
    outputs, _ = network(images, [(721, 1441)])
    for name, channels in CHANNELS.items():
        assert outputs[name].values.shape == (1, channels, 720 // stride + 1, 1440 // stride + 1)
    assert outputs["long_range"].upsampled().shape == (1, 5, 2, 721, 1441)


@pytest.mark.parametrize(("deep_head", "kernel_size", "reach"), [(True, 7, 3), (True, 3, 1), (False, 7, 0)])
def test_a_head_sees_as_far_as_its_first_kernel(deep_head, kernel_size, reach):
    layers = prediction_layers(3, 4, 2, kernel_size=kernel_size, deep_head=deep_head, norm=nn.BatchNorm2d).eval()
    for parameter in layers.parameters():
        nn.init.constant_(parameter, 0.5)
    features = torch.ones(1, 3, 13, 15, requires_grad=True)
    (gradient,) = torch.autograd.grad(layers(features)[0, :, 6, 7].sum(), features)
    seen = gradient[0].abs().sum(0).nonzero().tolist()
    assert seen == [[y, x] for y in range(6 - reach, 7 + reach) for x in range(7 - reach, 8 + reach)]


def test_one_head_alone_may_have_other_layers():
    changed = ["heads.semantic.deep_head=false", "heads.heatmap.kernel_size=3"]
    config = resolved(load_config("train", ["decoder=s2d", *changed]))
    layers = {name: (head["deep_head"], head["kernel_size"]) for name, head in config["heads"].items()}
    assert layers == {
        "semantic": (False, 7),
        "heatmap": (True, 3),
        "short_range": (True, 7),
        "middle_range": (True, 7),
        "long_range": (True, 7),
    }


def test_small_heads_take_the_same_options():
    small = ["heads=deeperlab_small", "decoder=s2d_small", "backbone.name=test_resnet"]
    kernels = {resolved(load_config("train", small))["heads"][name]["kernel_size"] for name in CHANNELS}
    assert kernels == {5}
    flat = network_of(*small, "deep_head=false")
    assert {type(head.layers) for head in flat.heads.values()} == {nn.Conv2d}
    alone = network_of("backbone.name=test_resnet", "heads=semantic", "deep_head=false")
    assert isinstance(alone.heads["semantic"].layers, nn.Conv2d)


def test_the_fusion_reads_upsampled_outputs_where_they_are_whatever_the_networks_memory_order():
    values = torch.randn(1, 6, 5, 7).to(memory_format=torch.channels_last)
    for pairs in (False, True):
        image = DenseOutput(values, (17, 25), pairs=pairs).image(0, (15, 22))
        assert np.shares_memory(padded_array(image), image.numpy())
