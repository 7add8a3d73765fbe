"""The feature pyramid: its levels, and the convolution that OANet puts on them."""

import pytest
import torch
from oracles.pyramid_networks import feature_pyramid, rpn_features

from panoptic.configuration import load_config, resolved
from panoptic.instantiation import build
from panoptic.models.backbones.timm import TimmBackbone
from panoptic.models.decoders.fpn import FPNDecoder
from panoptic.structures import SizeRule

CHANNELS = {"c1": 2, "c2": 3, "c3": 4, "c4": 5, "c5": 6}
STRIDES = {"c1": 2, "c2": 4, "c3": 8, "c4": 16, "c5": 32}
PYRAMID = [f"p{number}" for number in range(2, 7)]
RPN_FEATURES = [f"r{number}" for number in range(2, 7)]


def levels_of(height, width, *, dtype=torch.float32, requires_grad=False):
    """Noise for two images, at every stride."""
    generator = torch.Generator().manual_seed(0)
    return {
        level: torch.randn(
            2, CHANNELS[level], -(-height // s), -(-width // s), generator=generator, dtype=dtype
        ).requires_grad_(requires_grad)
        for level, s in STRIDES.items()
    }


@pytest.mark.parametrize("rpn_features", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (32, 160)])
def test_levels_have_the_size_of_their_stride_and_one_width(size, rpn_features):
    decoder = FPNDecoder(CHANNELS, filters=8, rpn_features=rpn_features)
    assert decoder.size_rule == SizeRule(32)
    pyramid = decoder(levels_of(*size))
    assert list(pyramid) == list(decoder.channels) == PYRAMID + (RPN_FEATURES if rpn_features else [])
    for level, features in pyramid.items():
        stride = 2 ** int(level[1])
        assert decoder.channels[level] == 8
        assert features.shape == (2, 8, -(-size[0] // stride), -(-size[1] // stride)), level


def test_the_pyramid_equals_its_definition_one_pixel_at_a_time():
    decoder = FPNDecoder(CHANNELS, filters=4, rpn_features=True).double()
    levels = levels_of(32, 64, dtype=torch.float64)
    found = decoder(levels)
    weights = decoder.state_dict()
    for image in range(2):
        expected = feature_pyramid(weights, [levels[f"c{number}"][image] for number in (2, 3, 4, 5)])
        for level, features in zip(PYRAMID, expected, strict=True):
            torch.testing.assert_close(found[level][image], features)
        for level, features in zip(RPN_FEATURES, rpn_features(weights, expected), strict=True):
            torch.testing.assert_close(found[level][image], features)


def test_the_papers_pyramid_has_the_parameters_of_its_convolutions():
    with torch.device("meta"):
        plain = FPNDecoder({"c2": 256, "c3": 512, "c4": 1024, "c5": 2048})
        more = FPNDecoder({"c2": 256, "c3": 512, "c4": 1024, "c5": 2048}, rpn_features=True)
    own_3x3 = 256 * 256 * 9 + 256
    lateral = sum(channels * 256 + 256 for channels in (256, 512, 1024, 2048))
    assert sum(parameter.numel() for parameter in plain.parameters()) == lateral + 4 * own_3x3
    assert sum(parameter.numel() for parameter in more.parameters()) == lateral + 5 * own_3x3


def test_shared_levels_are_not_made_of_each_other_and_all_others_are_made_of_them():
    decoder = FPNDecoder(CHANNELS, filters=4, rpn_features=True)
    pyramid = decoder(levels_of(64, 96, requires_grad=True))

    def descends(level, ancestor):
        (gradient,) = torch.autograd.grad(pyramid[level].sum(), pyramid[ancestor], allow_unused=True, retain_graph=True)
        return gradient is not None and bool(gradient.any())

    for level in decoder.channels:
        ancestors = [shared for shared in decoder.shared_levels if shared != level and descends(level, shared)]
        assert len(ancestors) == (0 if level in decoder.shared_levels else 1), level


def test_a_backbone_of_another_output_stride_is_refused():
    backbone = TimmBackbone("test_resnet", output_stride=16)
    decoder = FPNDecoder(backbone.channels, filters=4)
    message = r"expected c5 of 2x3 cells beside c4 of 4x6, got 4x6; this decoder needs a backbone of output_stride 32"
    with pytest.raises(ValueError, match=message):
        decoder(backbone(torch.zeros(1, 3, 64, 96)))


def test_a_backbone_without_a_level_is_refused():
    with pytest.raises(
        ValueError, match=r"expected a backbone with levels c2 to c5, got \['c2', 'c5'\] without \['c3'"
    ):
        FPNDecoder({"c2": 3, "c5": 4})


@pytest.mark.parametrize(
    ("choice", "filters", "has_rpn_features"),
    [
        ("fpn", 256, False),
        ("fpn_rpn_features", 256, True),
        ("fpn_small", 64, False),
        ("fpn_rpn_features_small", 64, True),
    ],
)
def test_a_pyramid_is_chosen_by_name(choice, filters, has_rpn_features):
    node = resolved(load_config("train", [f"decoder={choice}"]))["decoder"]
    decoder = build(node)(CHANNELS)
    assert set(decoder.channels.values()) == {filters}
    assert ("r2" in decoder.channels) == has_rpn_features
