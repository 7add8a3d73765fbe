"""The layers of the semantic heads on feature pyramids: against the papers' text, by hand counts and by reach."""

from functools import partial

import pytest
import torch
from oracles.pyramid_networks import asp_rp_head, half_pixel_upsample, stuff_branch, two_conv_head
from torch import nn

from panoptic.models.heads.semantic_branches import (
    AspRpBranch,
    AtrousSpatialPyramid,
    StuffBranch,
    TwoConvBranch,
    refine_coarse_to_fine,
)
from panoptic.models.layers import resize_bilinear

BRANCHES = [TwoConvBranch, AspRpBranch, StuffBranch]
PYRAMID = {f"p{number}": 256 for number in range(2, 7)}
NUM_CLASSES = 19


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def convolution(in_channels, filters, kernel_size):
    """Parameters of a convolution without bias and of its norm."""
    return in_channels * filters * kernel_size**2 + 2 * filters


TWO_CONVOLUTIONS = convolution(256, 128, 3) + convolution(128, 128, 3)
ASP = convolution(256, 128, 1) + 3 * convolution(256, 128, 3) + convolution(4 * 128, 128, 1)
BY_HAND = {
    TwoConvBranch: 4 * TWO_CONVOLUTIONS + 512 * NUM_CLASSES + NUM_CLASSES,
    AspRpBranch: 2 * TWO_CONVOLUTIONS + 2 * ASP + 512 * NUM_CLASSES + NUM_CLASSES,
    StuffBranch: 4 * TWO_CONVOLUTIONS + convolution(512, 128, 3) + 128 * NUM_CLASSES + NUM_CLASSES,
}


def noise_levels(letter="p", *, channels=4, size=(32, 64), dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return {
        f"{letter}{number}": torch.randn(
            2, channels, size[0] // 2**number, size[1] // 2**number, generator=generator, dtype=dtype
        )
        for number in range(2, 6)
    }


@pytest.mark.parametrize("branch", BRANCHES)
def test_the_papers_heads_have_the_parameters_of_their_convolutions(branch):
    with torch.device("meta"):
        layers = branch(PYRAMID, NUM_CLASSES)
    assert num_parameters(layers) == BY_HAND[branch]
    assert {part.num_groups for part in layers.modules() if isinstance(part, nn.GroupNorm)} == {32}
    convolutions = [part for part in layers.modules() if isinstance(part, nn.Conv2d)]
    norms = [part for part in layers.modules() if isinstance(part, nn.GroupNorm)]
    assert len(norms) == len(convolutions) - 1  # all but the one that makes the classes


@pytest.mark.parametrize("branch", BRANCHES)
def test_logits_have_stride_4(branch):
    with torch.device("meta"):
        layers = branch(PYRAMID, NUM_CLASSES)
        levels = {f"p{number}": torch.zeros(2, 256, 128 // 2**number, 192 // 2**number) for number in range(2, 7)}
        assert layers(levels).shape == (2, NUM_CLASSES, 32, 48)


@pytest.mark.parametrize(
    ("branch", "oracle"),
    [
        (TwoConvBranch, two_conv_head),
        (StuffBranch, stuff_branch),
        (partial(AspRpBranch, rates=(1, 2, 3)), partial(asp_rp_head, rates=(1, 2, 3))),
    ],
)
def test_a_head_equals_the_papers_text_one_pixel_at_a_time(branch, oracle):
    torch.manual_seed(0)
    layers = branch(dict.fromkeys(noise_levels(), 4), 3, filters=6, norm=partial(nn.GroupNorm, 2)).double()
    for parameter in layers.parameters():
        nn.init.normal_(parameter, std=0.5)
    levels = noise_levels(dtype=torch.float64)
    with torch.no_grad():
        found = layers(levels)
        for image in range(2):
            expected = oracle(layers.state_dict(), [level[image] for level in levels.values()], 2)
            torch.testing.assert_close(found[image], expected)


@pytest.mark.parametrize("size", [(8, 12), (5, 7)])
def test_upsampling_keeps_the_borders_of_cells_on_borders_of_pixels(size):
    coarse = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = resize_bilinear(coarse, size, align_corners=False)
    for image in range(2):
        torch.testing.assert_close(found[image], half_pixel_upsample(coarse[image], size))
    # A linear function of the place, in pixels of stride 2, comes back between the centres of the outer cells.
    ramp = (2 * torch.arange(6, dtype=torch.float64) + 0.5).expand(1, 1, 4, 6)
    upsampled = resize_bilinear(ramp, (8, 12), align_corners=False)
    torch.testing.assert_close(upsampled[..., 1:-1], torch.arange(1, 11, dtype=torch.float64).expand(1, 1, 8, 10))


def test_the_refinement_pyramid_adds_every_coarser_level():
    sizes = [(8, 12), (4, 6), (2, 3), (1, 2)]
    maps = [torch.full((2, 3, *size), 10.0**number) for number, size in enumerate(sizes)]
    refined = refine_coarse_to_fine(maps)
    # 1 + 10 + 100 + 1000 at the finest, each coarser one less at the next
    for found, size, value in zip(refined, sizes, [1111.0, 1110.0, 1100.0, 1000.0], strict=True):
        assert torch.equal(found, torch.full((2, 3, *size), value))
    assert [map_.unique().tolist() for map_ in maps] == [[1.0], [10.0], [100.0], [1000.0]]


def test_an_atrous_spatial_pyramid_sees_its_rates_and_nothing_of_the_whole_image():
    pyramid = AtrousSpatialPyramid(3, 4, rates=(2, 5), norm=lambda channels: nn.Identity())
    for parameter in pyramid.parameters():
        nn.init.constant_(parameter, 0.5)
    features = torch.ones(1, 3, 15, 17, requires_grad=True)
    (gradient,) = torch.autograd.grad(pyramid(features)[0, :, 7, 8].sum(), features)
    seen = gradient[0].abs().sum(0).nonzero().tolist()
    assert sorted(seen) == sorted(
        [[7, 8], *([7 + rate * dy, 8 + rate * dx] for rate in (2, 5) for dy in (-1, 0, 1) for dx in (-1, 0, 1)
                   if (dy, dx) != (0, 0))]
    )  # fmt: skip


@pytest.mark.parametrize("branch", BRANCHES)
def test_every_level_and_parameter_is_used(branch):
    levels = {name: level.requires_grad_() for name, level in noise_levels(size=(64, 96)).items()}
    layers = branch(dict.fromkeys(levels, 4), 3, filters=32)
    layers(levels).square().sum().backward()
    for tensor in [*levels.values(), *layers.parameters()]:
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any()


def test_the_stuff_branch_reads_rpn_feature_maps_where_there_are_some():
    both = noise_levels("r") | noise_levels("p")
    channels = dict.fromkeys(both, 4)
    layers = StuffBranch(channels, 3, filters=32)
    changed = {name: 2 * level for name, level in both.items() if name.startswith("p")}
    assert torch.equal(layers(both), layers(both | changed))
    without = StuffBranch({name: 4 for name in channels if name.startswith("p")}, 3, filters=32)
    assert without(both).shape == (2, 3, 8, 16)


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_decoder_without_a_pyramid_is_refused(branch):
    message = r"expected the levels \['p2', .*'p5'\] of a feature pyramid, got \['c5', 'decoder'\]; choose decoder=fpn"
    with pytest.raises(ValueError, match=message):
        branch({"c5": 8, "decoder": 8}, 3)
