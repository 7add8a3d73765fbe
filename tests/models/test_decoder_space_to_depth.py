"""Space to depth and back, and the decoder between them: values, alignment at 16k + 1 pixels, sizes, what it sees."""

import pytest
import torch
from torch import nn

from panoptic.models.backbones.timm import TimmBackbone
from panoptic.models.decoders.aspp import ASPPDecoder, BilinearDecoder
from panoptic.models.decoders.space_to_depth import SpaceToDepthDecoder
from panoptic.models.heads.base import DenseOutput
from panoptic.models.layers import depth_to_space, space_to_depth

MOBILENETV2 = {"c2": 24, "c5": 320}


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def with_norm(in_channels, out_channels, kernel_size=1, groups=1):
    """Parameters of a convolution without bias and of the norm after it."""
    return out_channels * (in_channels // groups) * kernel_size**2 + 2 * out_channels


def separable(in_channels, out_channels, kernel_size):
    depthwise = with_norm(in_channels, in_channels, kernel_size, groups=in_channels)
    return depthwise + with_norm(in_channels, out_channels)


def pyramid_parameters(in_channels):
    """ASPP with 256 filters: 1x1, three separable 3x3, image pooling."""
    return 2 * with_norm(in_channels, 256) + 3 * separable(in_channels, 256, 3)


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def average_everywhere(network):
    """Every convolution the mean of its window, so that a gradient is 0 only where nothing is seen."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.fill_(1 / layer.weight[0].numel())
    return network.double().eval()


def rows_and_columns_seen(gradient):
    seen = gradient[0].abs().sum(0) > 0
    return seen.any(1).nonzero().flatten().tolist(), seen.any(0).nonzero().flatten().tolist()


def test_space_to_depth_equals_a_loop_over_cells():
    tensor = noise(2, 3, 5, 7)
    moved = space_to_depth(tensor, 4)
    assert moved.shape == (2, 3 * 16, 2, 2)
    for channel in range(3):
        for row in range(8):
            for column in range(8):
                inside = row < 5 and column < 7
                expected = tensor[:, channel, row, column] if inside else torch.zeros(2)
                found = moved[:, 16 * channel + 4 * (row % 4) + column % 4, row // 4, column // 4]
                assert torch.equal(found, expected), (channel, row, column)


@pytest.mark.parametrize("pixels", [(721, 1441), (65, 721), (64, 96), (70, 50)])
def test_depth_to_space_is_the_inverse_at_every_size(pixels):
    """Stride 4 of 16k + 1 pixels has 4k + 1 rows, which 4 does not divide."""
    features = noise(1, 2, *(-(-side // 4) for side in pixels))
    moved = space_to_depth(features, 4)
    assert moved.shape[-2:] == tuple(-(-side // 16) for side in pixels)
    assert torch.equal(depth_to_space(moved, 4, features.shape[-2:]), features)


@pytest.mark.parametrize("size", [(21, 17), (16, 17), (17, 12)])
def test_depth_to_space_to_a_size_of_other_cells_is_refused(size):
    with pytest.raises(ValueError, match=rf"cells for {size[0]}x{size[1]} in blocks of 4, got 5x5"):
        depth_to_space(noise(1, 16, 5, 5), 4, size)


@torch.no_grad()
def pass_low_level_through(decoder, kinds):
    """Weights with which a decoder without norm gives back its first `kinds` channels of "c2"."""
    for layer in decoder.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.zero_()
    for kind in range(kinds):
        decoder.reduce[0].weight[kind, kind] = 1
    context = decoder.project[0].out_channels
    for layer in decoder.refine:
        middle = layer[0][0].kernel_size[0] // 2
        layer[0][0].weight[..., middle, middle] = 1
    first, last = (layer[1][0] for layer in decoder.refine)
    first.weight[:, :, 0, 0] = torch.eye(first.out_channels)
    for channel in range(last.out_channels):
        last.weight[channel, context + channel] = 1


@pytest.mark.parametrize(("height", "width"), [(721, 65), (65, 81)])
def test_row_i_of_stride_4_stays_on_pixel_4_i(height, width):
    """The picture itself goes through the decoder and comes back at the network's input resolution."""
    decoder = SpaceToDepthDecoder(
        {"c2": 3, "c5": 2}, filters=3, aspp_filters=4, low_level_filters=3, kernel_size=3, norm=lambda _: nn.Identity()
    )
    pass_low_level_through(decoder, 3)
    image = noise(1, 3, height, width).abs()
    levels = {"c2": image[..., ::4, ::4], "c5": torch.zeros(1, 2, height // 16 + 1, width // 16 + 1)}
    values = decoder(levels)["decoder"]
    assert torch.equal(values, levels["c2"])
    full = DenseOutput(values, (height, width)).upsampled()
    assert full.shape == image.shape
    torch.testing.assert_close(full[..., ::4, ::4], image[..., ::4, ::4], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel_size", [3, 7])
@pytest.mark.parametrize("level", ["c2", "c5"])
def test_two_convolutions_at_stride_16_see_their_kernels_there(kernel_size, level):
    decoder = average_everywhere(
        SpaceToDepthDecoder(
            {"c2": 3, "c5": 2}, aspp=False, filters=1, aspp_filters=2, low_level_filters=1, kernel_size=kernel_size
        )
    )
    levels = {"c2": torch.ones(1, 3, 69, 77), "c5": torch.ones(1, 2, 18, 20)}
    levels = {name: features.double().requires_grad_() for name, features in levels.items()}
    # Cell (33, 41) of stride 4 lies in cell (8, 10) of stride 16.
    (gradient,) = torch.autograd.grad(decoder(levels)["decoder"][0, 0, 33, 41], levels[level])
    reach = 2 * (kernel_size // 2)
    cells = range(8 - reach, 8 + reach + 1), range(10 - reach, 10 + reach + 1)
    block = 4 if level == "c2" else 1
    expected = [list(range(block * axis.start, block * axis.stop)) for axis in cells]
    assert list(rows_and_columns_seen(gradient)) == expected


@pytest.mark.parametrize("kernel_size", [3, 7])
def test_two_convolutions_at_stride_4_see_their_kernels_there(kernel_size):
    decoder = average_everywhere(
        BilinearDecoder({"c2": 3, "c5": 2}, aspp=False, filters=2, low_level_filters=1, kernel_size=kernel_size)
    )
    low_level = torch.ones(1, 3, 33, 37, dtype=torch.float64, requires_grad=True)
    levels = {"c2": low_level, "c5": torch.ones(1, 2, 9, 10, dtype=torch.float64)}
    (gradient,) = torch.autograd.grad(decoder(levels)["decoder"][0, 0, 16, 17], low_level)
    reach = 2 * (kernel_size // 2)
    assert rows_and_columns_seen(gradient) == (
        list(range(16 - reach, 16 + reach + 1)),
        list(range(17 - reach, 17 + reach + 1)),
    )


@pytest.mark.parametrize(("filters", "kernel_size"), [(256, 7), (256, 3), (128, 3)])
@pytest.mark.parametrize("aspp", [True, False])
def test_the_decoder_has_the_papers_channels(filters, kernel_size, aspp):
    """256 of the context and 16 * 32 of the low level, then 16 * 256 = 4096, or 2048 in the Light variant."""
    with torch.device("meta"):
        decoder = SpaceToDepthDecoder(MOBILENETV2, aspp=aspp, filters=filters, kernel_size=kernel_size)
    context = pyramid_parameters(320) + with_norm(5 * 256, 256) if aspp else with_norm(320, 256)
    refine = separable(768, 768, kernel_size) + separable(768, 16 * filters, kernel_size)
    assert num_parameters(decoder) == context + with_norm(24, 32) + refine
    levels = {"c2": torch.zeros(2, 24, 181, 361), "c5": torch.zeros(2, 320, 46, 91)}
    levels = {level: features.to("meta") for level, features in levels.items()}
    assert decoder(levels)["decoder"].shape == (2, filters, 181, 361)


@pytest.mark.parametrize("aspp", [True, False])
def test_the_other_decoders_without_aspp_lack_its_parameters_alone(aspp):
    with torch.device("meta"):
        none, bilinear = ASPPDecoder(MOBILENETV2, aspp=aspp), BilinearDecoder(MOBILENETV2, aspp=aspp)
    reduction = with_norm(5 * 256 if aspp else 320, 256)
    context = pyramid_parameters(320) if aspp else 0
    assert num_parameters(none) == (context + reduction if aspp else 0)
    refine = separable(256 + 32, 256, 7) + separable(256, 256, 7)
    assert num_parameters(bilinear) == context + reduction + with_norm(24, 32) + refine


def test_without_a_decoder_and_aspp_heads_read_the_backbones_features_themselves():
    features = noise(1, 5, 3, 4)
    decoder = ASPPDecoder({"c5": 5}, aspp=False)
    assert decoder.channels == {"decoder": 5}
    assert decoder({"c5": features})["decoder"] is features


def test_another_output_stride_is_refused():
    decoder = SpaceToDepthDecoder({"c2": 3, "c5": 2}, filters=1, aspp_filters=2, low_level_filters=1)
    levels = {"c2": torch.zeros(1, 3, 17, 21), "c5": torch.zeros(1, 2, 9, 11)}
    message = r"expected c5 of \(5, 6\) cells beside c2 of \(17, 21\), got \(9, 11\); .* needs .* output_stride 16"
    with pytest.raises(ValueError, match=message):
        decoder(levels)


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_convnext", "test_efficientnet", "regnetx_002", "mobilenetv2_100"]
)
def test_backbones_of_other_families_train_below_it(name):
    torch.manual_seed(0)
    backbone = TimmBackbone(name)
    decoder = SpaceToDepthDecoder(backbone.channels, filters=2, aspp_filters=4, low_level_filters=2)
    decoder(backbone(noise(2, 3, 49, 65)))["decoder"].square().mean().backward()
    for part in (decoder, backbone):
        for parameter_name, parameter in part.named_parameters():
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name
