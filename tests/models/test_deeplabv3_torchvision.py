"""Our ResNet-50 and ASPP with the weights of torchvision's `deeplabv3_resnet50`, at output stride 8."""

import copy

import pytest
import torch
from batch_norms import norms
from torchvision.models.segmentation import deeplabv3_resnet50

from panoptic.models.backbones.cascade import CascadedResNet
from panoptic.models.backbones.timm import TimmBackbone
from panoptic.models.decoders.deeplabv3 import DeepLabV3Decoder

pytestmark = pytest.mark.slow

SIZE = (65, 97)


def mapped(state):
    """Names of torchvision's ASPP in ours; what comes after its projection is left out."""
    places = {"convs.0": "pointwise", "project": "project"}
    places |= {f"convs.{number + 1}": f"atrous.{number}" for number in range(3)}
    renamed = {}
    for name, tensor in state.items():
        for theirs, ours in places.items():
            if name.startswith(f"classifier.0.{theirs}."):
                renamed[name.replace(f"classifier.0.{theirs}.", f"{ours}.")] = tensor
        if name.startswith("classifier.0.convs.4."):  # a mean is its part 0
            number, rest = name.removeprefix("classifier.0.convs.4.").split(".", 1)
            renamed[f"pooling.1.{int(number) - 1}.{rest}"] = tensor
    return renamed


@pytest.fixture(scope="module")
def theirs():
    """Random weights, with statistics of noise, or values would vanish on the way through fifty layers."""
    torch.manual_seed(0)
    network = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=5).train()
    for part in norms(network):
        part.momentum = 1.0
    with torch.no_grad():
        network(torch.randn(2, 3, *SIZE))
    return network.eval()


@pytest.fixture(scope="module")
def decoder(theirs):
    """Ours with their weights, every one of them."""
    decoder = DeepLabV3Decoder({"c5": 2048})
    decoder.load_state_dict(mapped(theirs.state_dict()))
    decoder.set_output_stride(8)
    return decoder.eval()


def with_weights_of(theirs, backbone):
    state = theirs.backbone.state_dict()
    assert set(backbone.body.state_dict()) == set(state)
    backbone.body.load_state_dict(state)
    return backbone.eval()


def check_equal(theirs, backbone, decoder):
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    expected = theirs.backbone(images)["out"]
    levels = backbone(images)
    assert expected.shape == (2, 2048, 9, 13)
    assert expected.std() > 0.1
    torch.testing.assert_close(levels["c5"], expected)
    projected = theirs.classifier[0](expected)
    assert projected.shape == (2, 256, 9, 13)
    assert projected.std() > 0.1
    torch.testing.assert_close(decoder(levels)["decoder"], projected)


@torch.no_grad()
def test_features_up_to_the_projection_are_torchvisions(theirs, decoder):
    check_equal(theirs, with_weights_of(theirs, TimmBackbone("resnet50", output_stride=8)), decoder)


@torch.no_grad()
def test_the_cascade_is_torchvisions_network_with_the_papers_strides_and_rates(theirs, decoder):
    """Torchvision, as timm, strides in the first 3x3 of a block, and gives it the rate of the block before."""
    backbone = with_weights_of(theirs, CascadedResNet("resnet50", output_stride=8))
    images = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(2))
    assert not torch.allclose(backbone(images)["c5"], theirs.backbone(images)["out"], atol=1e-2)
    papers = copy.deepcopy(theirs)
    for number, rate in ((2, 1), (3, 2), (4, 4)):
        first = papers.backbone[f"layer{number}"][0]
        first.conv1.stride, first.conv2.stride = first.conv2.stride, (1, 1)
        first.conv2.dilation = first.conv2.padding = (rate, rate)
    check_equal(papers, backbone, decoder)
