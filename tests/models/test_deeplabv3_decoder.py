"""ASPP of DeepLabv3: its values, the switches of Table 5, rates that follow the stride, means of images."""

import pytest
import torch
from batch_norms import as_trained
from oracles.deeplabv3 import aspp
from torch import nn

from panoptic.configuration import load_config, resolved
from panoptic.instantiation import build
from panoptic.models.decoders.aspp import ASPP, ImagePooling
from panoptic.models.decoders.deeplabv3 import DeepLabV3Decoder
from panoptic.structures import SizeRule

TABLE_5 = [
    {"image_pooling": False},
    {"image_pooling": False, "rates": (6, 12, 18, 24)},
    {},
    {"pointwise": False},
    {"rates": ()},
]


def rates_of(decoder):
    return [branch[0].dilation for branch in decoder.atrous]


@pytest.mark.parametrize("options", TABLE_5)
@pytest.mark.parametrize("output_stride", [16, 32])
@torch.no_grad()
def test_equals_the_papers_text_one_cell_at_a_time(options, output_stride):
    torch.manual_seed(0)
    decoder = as_trained(DeepLabV3Decoder({"c5": 5}, filters=4, **options)).double().eval()
    decoder.set_output_stride(output_stride)
    features = torch.randn(2, 5, 8, 11, dtype=torch.float64)
    found = decoder({"c4": None, "c5": features})["decoder"]
    rates = [rate * 16 // output_stride for rate in options.get("rates", (6, 12, 18))]
    for image in range(2):
        torch.testing.assert_close(found[image], aspp(decoder.state_dict(), features[image], rates))


@pytest.mark.parametrize("options", TABLE_5)
def test_every_switch_takes_or_adds_the_parameters_of_its_branch(options):
    with torch.device("meta"):
        decoder = DeepLabV3Decoder({"c5": 2048}, **options)
    norm, pointwise, atrous = 2 * 256, 2048 * 256, 2048 * 256 * 9
    branches = [pointwise] * options.get("pointwise", True) + [pointwise] * options.get("image_pooling", True)
    branches += [atrous] * len(options.get("rates", (6, 12, 18)))
    expected = sum(branches) + norm * len(branches) + 256 * len(branches) * 256 + norm
    assert sum(parameter.numel() for parameter in decoder.parameters()) == expected
    assert decoder.channels == {"decoder": 256}
    shape = decoder({"c5": torch.zeros(1, 2048, 33, 49, device="meta")})["decoder"].shape
    assert shape == (1, 256, 33, 49)


@pytest.mark.parametrize(
    ("output_stride", "rates", "multiple"),
    [(4, (24, 48, 72), 16), (8, (12, 24, 36), 16), (16, (6, 12, 18), 16), (32, (3, 6, 9), 32)],
)
def test_rates_follow_the_output_stride(output_stride, rates, multiple):
    decoder = DeepLabV3Decoder({"c5": 3}, filters=2)
    decoder.set_output_stride(output_stride)
    assert rates_of(decoder) == [(rate, rate) for rate in rates]
    assert all(branch[0].padding == branch[0].dilation for branch in decoder.atrous)
    assert decoder.size_rule == SizeRule(multiple, 1)
    assert decoder.output_stride == output_stride


def test_rates_that_are_not_whole_are_refused_and_nothing_changes():
    decoder = DeepLabV3Decoder({"c5": 3}, filters=2)
    message = r"rates \[6, 12, 18\] at output stride 16 are \[1.5, 3, 4.5\] at 64; give rates that are multiples of 4"
    with pytest.raises(ValueError, match=message):
        decoder.set_output_stride(64)
    assert rates_of(decoder) == [(6, 6), (12, 12), (18, 18)]
    assert (decoder.output_stride, decoder.size_rule) == (16, SizeRule(16, 1))


def test_without_any_branch_it_is_refused():
    with pytest.raises(ValueError, match=r"expected at least one branch of rates, pointwise and .*, got none"):
        DeepLabV3Decoder({"c5": 3}, rates=(), pointwise=False, image_pooling=False)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 7), (33, 65)])
@torch.no_grad()
def test_image_pooling_is_the_mean_of_the_image_at_any_size(height, width):
    pooling = as_trained(ImagePooling(3, 4, norm=nn.BatchNorm2d)).eval()
    features = torch.randn(2, 3, height, width)
    pooled = pooling(features)
    assert pooled.shape == (2, 4, height, width)
    assert torch.equal(pooled, pooled[..., :1, :1].expand_as(pooled))
    mean = features.double().mean((2, 3)).float()[..., None, None]
    torch.testing.assert_close(pooled[..., :1, :1], pooling(mean), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_padding_of_a_batch_is_in_no_mean():
    """At output stride 16 an image of 40x60 pixels has cells on rows 0, 16, 32 and columns 0, 16, 32, 48."""
    torch.manual_seed(0)
    decoder = as_trained(DeepLabV3Decoder({"c5": 3}, filters=8, rates=(), pointwise=False)).eval()
    features = torch.randn(3, 3, 6, 7)
    sizes = [(40, 60), (81, 97), (33, 17)]
    found = decoder({"c5": features}, sizes)["decoder"]
    for index, (rows, columns) in enumerate([(3, 4), (6, 7), (3, 2)]):
        alone = decoder({"c5": features[index : index + 1, :, :rows, :columns]})["decoder"]
        torch.testing.assert_close(found[index, :, :rows, :columns], alone[0])
    pooled = decoder.pooling(features, [(3, 4), (6, 7), (3, 2)])
    assert torch.equal(pooled[1], decoder.pooling(features)[1])
    assert not torch.allclose(pooled[0], decoder.pooling(features)[0])


@torch.no_grad()
def test_images_without_padding_have_the_same_mean_however_it_is_asked_for():
    decoder = as_trained(DeepLabV3Decoder({"c5": 3}, filters=2)).eval()
    decoder.set_output_stride(8)
    features = torch.randn(2, 3, 5, 7)
    assert torch.equal(decoder({"c5": features}, [(33, 49)] * 2)["decoder"], decoder({"c5": features})["decoder"])


def test_a_batch_of_one_trains_with_running_statistics_of_the_pooled_branch():
    torch.manual_seed(0)
    decoder = as_trained(DeepLabV3Decoder({"c5": 3}, filters=4)).train()
    norm = decoder.pooling[1][1]
    before = norm.running_mean.clone(), norm.running_var.clone()
    features = torch.randn(1, 3, 5, 7)
    pooled = decoder.pooling(features)
    decoder({"c5": features})["decoder"].square().mean().backward()
    assert torch.equal(norm.running_mean, before[0])
    assert torch.equal(norm.running_var, before[1])
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert norm.training
    torch.testing.assert_close(pooled, decoder.eval().pooling(features))


def test_a_batch_of_two_trains_with_its_own_statistics():
    torch.manual_seed(0)
    pooling = as_trained(ImagePooling(3, 4, norm=nn.BatchNorm2d)).train()
    norm = pooling[1][1]
    before = norm.running_mean.clone()
    features = torch.randn(2, 3, 5, 7)
    means = pooling[1][0](features.mean((2, 3), keepdim=True))[..., 0, 0]  # (B, D)
    normalised = (means - means.mean(0)) / (means.var(0, unbiased=False) + 1e-5).sqrt()
    expected = (normalised * norm.weight + norm.bias).clamp(min=0)
    torch.testing.assert_close(pooling(features)[..., 0, 0], expected)
    torch.testing.assert_close(norm.running_mean, 0.9 * before + 0.1 * means.mean(0))


def test_the_separable_pyramid_of_deeperlab_trains_with_a_batch_of_one_too():
    pyramid = ASPP(3, filters=4, rates=(2, 3)).train()
    pyramid(torch.randn(1, 3, 5, 7)).square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in pyramid.parameters())


@pytest.mark.parametrize(
    ("choice", "filters", "rates"), [("deeplabv3", 256, (6, 12, 18)), ("deeplabv3_small", 64, (2, 4, 6))]
)
def test_the_decoder_is_chosen_by_name(choice, filters, rates):
    node = resolved(load_config("train", [f"decoder={choice}"]))["decoder"]
    decoder = build(node)({"c5": 3})
    assert decoder.channels == {"decoder": filters}
    assert rates_of(decoder) == [(rate, rate) for rate in rates]
    without = resolved(load_config("train", [f"decoder={choice}", "decoder.image_pooling=false"]))["decoder"]
    assert build(without)({"c5": 3}).pooling is None
