"""Another output stride for a network with weights: the same tensors, the same cells where strides and rates trade."""

import pytest
import torch
from batch_norms import as_trained
from torch import nn

from panoptic.configuration import load_config, resolved
from panoptic.data.scenes import Scenes
from panoptic.models.backbones.cascade import CascadedResNet
from panoptic.models.backbones.strides import find_changes
from panoptic.models.backbones.timm import TimmBackbone
from panoptic.models.build import build_network
from panoptic.models.decoders.aspp import ASPPDecoder
from panoptic.models.decoders.deeplabv3 import DeepLabV3Decoder
from panoptic.models.joined import JoinedNetworks
from panoptic.models.layers import SeparableConv
from panoptic.models.output_stride import output_stride_of, set_output_stride
from panoptic.structures import SizeRule

pytestmark = pytest.mark.slow

SCENES = Scenes(split="train", length=1, size=(48, 64), difficulty="easy")
DEEPLABV3 = ["backbone=resnet_small_multi_grid", "decoder=deeplabv3_small", "heads=deeplabv3", "fusion=semantic"]
DEEPERLAB = ["backbone.name=test_resnet", "decoder=bilinear_small", "heads=deeperlab_small"]
SPACE_TO_DEPTH = ["backbone.name=test_resnet", "decoder=s2d_small", "heads=deeperlab_small"]
PYRAMID = [
    "backbone.name=test_resnet",
    "backbone.output_stride=32",
    "decoder=fpn_small",
    "heads=mask_rcnn_small",
    "fusion=instances",
]


def network_of(*choices):
    torch.manual_seed(0)
    config = resolved(load_config("train", choices))
    return build_network(config, SCENES.categories, SCENES.image_statistics).eval()


def noise(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def with_statistics(module):
    """In eval mode, with batch norm as a training would leave it: noise, and nothing scaled by zero."""
    return as_trained(module).eval()


def geometry_of(module):
    return [(p.stride, p.padding, p.dilation) for p in module.modules() if isinstance(p, nn.Conv2d)]


FAMILIES = ["test_resnet", "resnet18", "test_efficientnet", "mobilenetv3_small_050", "regnetx_002"]


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_changed_backbone_is_the_one_built_at_that_stride(name):
    torch.manual_seed(0)
    changed, built = TimmBackbone(name, output_stride=32), TimmBackbone(name, output_stride=8)
    tensors = {key: tensor.data_ptr() for key, tensor in with_statistics(changed).state_dict().items()}
    random_state = torch.get_rng_state()
    changed.set_output_stride(16)
    changed.set_output_stride(8)
    assert torch.equal(random_state, torch.get_rng_state())
    assert {key: tensor.data_ptr() for key, tensor in changed.state_dict().items()} == tensors
    built.load_state_dict(changed.state_dict())
    images = noise(1, 3, 33, 49)
    expected = built.eval()(images)
    assert (changed.strides, changed.output_stride) == (built.strides, 8)
    for level, features in changed(images).items():
        assert features.any()
        assert torch.equal(features, expected[level]), level


def test_larger_kernels_keep_their_centres():
    with torch.device("meta"):
        changed = TimmBackbone("mobilenetv2_100", kernel_size=5)
        built = TimmBackbone("mobilenetv2_100", kernel_size=5, output_stride=8)
    assert geometry_of(changed) != geometry_of(built)
    changed.set_output_stride(8)
    assert geometry_of(changed) == geometry_of(built)


def test_modes_and_frozen_statistics_stay():
    backbone = TimmBackbone("test_resnet", frozen_statistics=True).train()
    modes = {name: part.training for name, part in backbone.named_modules()}
    backbone.set_output_stride(8)
    assert {name: part.training for name, part in backbone.named_modules()} == modes
    backbone.eval().set_output_stride(32)
    assert not any(part.training for part in backbone.modules())


@pytest.mark.parametrize("name", ["resnet18", "xception41", "mobilenetv2_100", "regnetx_002"])
@torch.no_grad()
def test_finer_features_hold_the_coarser_ones_to_the_border(name):
    """At 16k + 1 pixels the window of a strided cell and of a dilated one are the same, and so are the zeros around.

    Not so where a shortcut is pooled (ResNet-D): means of 2x2 cells have no atrous form.
    """
    torch.manual_seed(0)
    backbone = with_statistics(TimmBackbone(name)).double()
    images = noise(1, 3, 49, 65, dtype=torch.float64)
    coarse = backbone(images)
    backbone.set_output_stride(8)
    fine = backbone(images)
    assert coarse["c5"].shape[-2:] == (4, 5)
    assert fine["c5"].shape[-2:] == (7, 9)
    for level, step in (("c2", 1), ("c3", 1), ("c4", 2), ("c5", 2)):
        torch.testing.assert_close(fine[level][..., ::step, ::step], coarse[level])


CASCADES = {"test_resnet": (1, 1, 2, 2), "resnet26": (1, 2, 1, 2), "resnet18": (1, 2, 2, 2)}


@pytest.mark.parametrize("name", CASCADES)
@pytest.mark.parametrize("stride", [4, 8])
@torch.no_grad()
def test_finer_features_of_a_cascade_hold_the_coarser_ones_to_the_border(name, stride):
    """Those with means in their shortcuts too, such as test_resnet."""
    torch.manual_seed(0)
    backbone = CascadedResNet(name, layers=CASCADES[name], num_blocks=6, multi_grid=(1, 2), output_stride=32)
    with_statistics(backbone).double()
    images = noise(1, 3, 65, 97, dtype=torch.float64)
    coarse = {}
    for larger in (32, 16):
        backbone.set_output_stride(larger)
        coarse[larger] = backbone(images)
    backbone.set_output_stride(stride)
    fine = backbone(images)
    for larger, levels in coarse.items():
        assert levels["c5"].shape[-2:] == (64 // larger + 1, 96 // larger + 1)
        assert levels["c5"].std() > 0.1
        for level, expected in levels.items():
            step = (fine[level].shape[-1] - 1) // (expected.shape[-1] - 1)
            torch.testing.assert_close(fine[level][..., ::step, ::step], expected)


@pytest.mark.parametrize("make", [ASPPDecoder, DeepLabV3Decoder])
@torch.no_grad()
def test_pyramids_of_finer_features_hold_those_of_coarser_ones(make):
    """Means of images do not: they are of four times the cells."""
    torch.manual_seed(0)
    decoder = make({"c5": 6}, filters=4, rates=(2, 3))
    with_statistics(decoder).double()
    fine = noise(2, 6, 9, 13, dtype=torch.float64)
    coarse = fine[..., ::2, ::2]
    norm = (decoder.aspp.pooling if make is ASPPDecoder else decoder.pooling)[1][1]

    def compare():
        decoder.set_output_stride(16)
        expected = decoder({"c5": coarse})["decoder"]
        decoder.set_output_stride(8)
        return (decoder({"c5": fine})["decoder"][..., ::2, ::2] - expected).abs().max().item()

    assert compare() > 1e-3
    nn.init.zeros_(norm.weight)
    nn.init.zeros_(norm.bias)
    assert compare() < 1e-12


@pytest.mark.parametrize("choices", [DEEPLABV3, DEEPERLAB, [*DEEPLABV3, "decoder=none_small", "decoder.aspp=false"]])
@torch.no_grad()
def test_there_and_back_a_network_is_what_it_was(choices):
    network = with_statistics(network_of(*choices))
    sizes = [(49, 65), (40, 60)]
    images = torch.randint(0, 256, (2, 3, 49, 65), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    tensors = {name: tensor.data_ptr() for name, tensor in network.state_dict().items()}
    before, features = network(images, sizes)
    assert output_stride_of(network) == 16
    assert features["semantic"].levels["c5"].shape[-2:] == (4, 5)
    set_output_stride(network, 8)
    assert output_stride_of(network) == 8
    at_8, features = network(images, sizes)
    assert features["semantic"].levels["c5"].shape[-2:] == (7, 9)
    assert not torch.equal(at_8["semantic"].upsampled(), before["semantic"].upsampled())
    assert {name: tensor.data_ptr() for name, tensor in network.state_dict().items()} == tensors
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    set_output_stride(network, 16)
    after, _ = network(images, sizes)
    for name, output in after.items():
        assert torch.equal(output.values, before[name].values), name


@pytest.mark.parametrize("stride", [8, 32])
@torch.no_grad()
def test_a_changed_network_is_the_one_built_at_that_stride(stride):
    changed = with_statistics(network_of(*DEEPLABV3))
    set_output_stride(changed, stride)
    built = network_of(*DEEPLABV3, f"backbone.output_stride={stride}")
    built.load_state_dict(changed.state_dict())
    assert changed.size_rule == built.size_rule == SizeRule(max(16, stride), 1)
    size = changed.size_rule.pad(49, 90)
    images = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected, _ = built(images, [(49, 90)])
    found, _ = changed(images, [(49, 90)])
    assert torch.equal(found["semantic"].values, expected["semantic"].values)


def test_rates_of_deeperlab_follow_too():
    network = network_of(*DEEPERLAB)
    set_output_stride(network, 8)
    branches = network.paths[0].decoder.aspp.atrous
    assert [branch[0][0].dilation[0] for branch in branches] == [4, 8, 12]
    assert all(isinstance(branch, SeparableConv) for branch in branches)


@pytest.mark.parametrize(
    ("choices", "stride", "message"),
    [
        (PYRAMID, 16, "a feature pyramid, and the heads that read it, need a backbone of output_stride 32, got 16"),
        (SPACE_TO_DEPTH, 8, "space to depth needs a backbone of output_stride 16, got 8; choose decoder=bilinear"),
        (DEEPLABV3, 64, r"rates \[2, 4, 6\] at output stride 16 are \[0.5, 1, 1.5\] at 64; give rates .* of 4"),
        (
            [*DEEPLABV3, "decoder.rates=[4,8]"],
            64,
            r"expected an output_stride of \[4, 8, 16, 32\] for 4 blocks, got 64",
        ),
        ([*DEEPERLAB, "decoder.aspp=false"], 4, "test_resnet has no output_stride 4"),
    ],
)
def test_what_cannot_change_is_refused_and_nothing_is_changed(choices, stride, message):
    network = network_of(*choices)
    before = geometry_of(network), network.size_rule, output_stride_of(network)
    with pytest.raises(ValueError, match=message):
        set_output_stride(network, stride)
    assert (geometry_of(network), network.size_rule, output_stride_of(network)) == before


def test_a_network_that_does_not_fit_its_stride_is_not_built():
    with pytest.raises(ValueError, match="space to depth needs a backbone of output_stride 16, got 8"):
        network_of(*SPACE_TO_DEPTH, "backbone.output_stride=8")


def test_of_two_networks_both_change_or_none():
    semantic, detection = network_of(*DEEPLABV3), network_of(*PYRAMID)
    joined = JoinedNetworks(semantic, detection)
    before = geometry_of(joined)
    with pytest.raises(ValueError, match="need a backbone of output_stride 32, got 8"):
        set_output_stride(joined, 8)
    assert geometry_of(joined) == before
    with pytest.raises(ValueError, match=r"expected backbones of one output stride, got \[16, 32\]"):
        output_stride_of(joined)


def test_a_backbone_that_cannot_change_is_named():
    network = network_of(*DEEPLABV3)
    network.paths[0].backbone = nn.Identity()
    with pytest.raises(ValueError, match="Identity has one output stride; give it output_stride and set_output_stride"):
        set_output_stride(network, 8)


class Model(nn.Module):
    """With more layers the finer it is."""

    def __init__(self, output_stride):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Conv2d(3, 3, 3) for _ in range(32 // output_stride)))


def test_a_model_of_other_layers_at_another_stride_is_refused():
    with pytest.raises(
        ValueError, match=r"same weights at output strides 32 and 16, got others, such as layers.1.bias"
    ):
        find_changes(Model, 32, 16)


def test_a_model_whose_convolutions_pad_in_another_way_is_refused():
    with torch.device("meta"):
        backbone = TimmBackbone("tf_mobilenetv3_small_minimal_100", output_stride=32)
    before = geometry_of(backbone)
    with pytest.raises(ValueError, match="same layers at output strides 32 and 16, got a Conv2d for a Conv2dSame at"):
        backbone.set_output_stride(16)
    assert (geometry_of(backbone), backbone.output_stride) == (before, 32)
