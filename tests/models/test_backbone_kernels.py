"""Larger kernels in place of 3x3: sizes, receptive fields, weights that fit and weights that do not."""

import copy

import pytest
import timm
import torch
from torch import nn

from panoptic.configuration import load_config, resolved
from panoptic.instantiation import build
from panoptic.models.backbones import timm as timm_backbone
from panoptic.models.backbones.kernels import fits_inside, inflate_kernel, widen_convolutions
from panoptic.models.backbones.timm import TimmBackbone

pytestmark = pytest.mark.slow

# Channels of MobileNetV2's depthwise convolutions: 6 times the input of each block, its Table 2.
DEPTHWISE = [32, 96, 144, 144, 192, 192, 192, 384, 384, 384, 384, 576, 576, 576, 960, 960, 960]


def backbone_of(*overrides):
    return build(resolved(load_config("train", overrides))["backbone"])


def convolutions(parts):
    return [layer for part in parts for layer in part.modules() if isinstance(layer, nn.Conv2d)]


def receptive_field(layers):
    """Pixels along one side that a cell after these convolutions sees, when each follows the one before it."""
    pixels, stride = 1, 1
    for layer in layers:
        pixels += (layer.kernel_size[0] - 1) * layer.dilation[0] * stride
        stride *= layer.stride[0]
    return pixels


@torch.no_grad()
def average_everywhere(network):
    """Every convolution the mean of its window: no activation is cut off, a gradient is 0 where nothing is seen."""
    for layer in convolutions([network]):
        layer.weight.fill_(1 / layer.weight[0].numel())
    return network.double().eval()


@pytest.mark.parametrize(("kernel_size", "pixels"), [(3, 491), (5, 981), (7, 1471)])
@pytest.mark.parametrize("output_stride", [16, 32])
def test_mobilenetv2_sees_as_many_pixels_as_the_paper_says(kernel_size, pixels, output_stride):
    backbone = backbone_of(
        "backbone=mobilenetv2", f"backbone.kernel_size={kernel_size}", f"backbone.output_stride={output_stride}"
    )
    assert receptive_field(convolutions([backbone.body])) == pixels


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_the_gradient_reaches_as_far_as_walking_the_layers_says(kernel_size):
    body = average_everywhere(TimmBackbone("mobilenetv2_100", kernel_size=kernel_size).body)
    reach = receptive_field(convolutions([body.conv_stem, *body.blocks[:3]])) // 2
    images = torch.ones(1, 3, 193, 209, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(body(images)[2][0, :, 12, 13].sum(), images)
    seen = gradient[0].abs().sum(0) > 0
    # Cell (12, 13) of stride 8 lies on pixel (96, 104).
    assert seen.any(1).nonzero().flatten().tolist() == list(range(96 - reach, 96 + reach + 1))
    assert seen.any(0).nonzero().flatten().tolist() == list(range(104 - reach, 104 + reach + 1))


@pytest.mark.parametrize("kernel_size", [5, 7])
def test_every_3x3_convolution_grows_and_nothing_else(kernel_size):
    stock = TimmBackbone("mobilenetv2_100").state_dict()
    wider = TimmBackbone("mobilenetv2_100", kernel_size=kernel_size).state_dict()
    assert list(stock) == list(wider)
    for name, tensor in stock.items():
        grown = (*tensor.shape[:2], kernel_size, kernel_size)
        assert wider[name].shape == (grown if tensor.shape[2:] == (3, 3) else tensor.shape), name
    more = sum(tensor.numel() for tensor in wider.values()) - sum(tensor.numel() for tensor in stock.values())
    assert more == (kernel_size**2 - 9) * (3 * 32 + sum(DEPTHWISE))


def test_the_papers_names_are_the_stock_and_the_5x5_network():
    stock, wider = backbone_of("backbone=mobilenetv2"), backbone_of("backbone=mobilenetv2_wider")
    for backbone, kernel_size in ((stock, 3), (wider, 5)):
        sizes = {layer.kernel_size for layer in convolutions([backbone])}
        assert sizes == {(1, 1), (kernel_size, kernel_size)}
        groups = [layer.groups for layer in convolutions([backbone]) if layer.kernel_size != (1, 1)]
        assert groups == [1, *DEPTHWISE]


@pytest.mark.parametrize("choice", ["xception71", "mobilenetv2", "mobilenetv2_wider"])
@pytest.mark.parametrize("side", [721, 1441])
def test_the_papers_backbones_have_a_cell_on_every_4th_and_16th_pixel(choice, side):
    with torch.device("meta"):
        backbone = backbone_of(f"backbone={choice}").eval()
        levels = backbone(torch.zeros(1, 3, side, 65))
    assert backbone.strides == {"c1": 2, "c2": 4, "c3": 8, "c4": 16, "c5": 16}
    for level, stride in backbone.strides.items():
        assert levels[level].shape == (1, backbone.channels[level], side // stride + 1, 64 // stride + 1)


def test_new_weights_are_spread_as_initialisations_by_fan_would():
    torch.manual_seed(0)
    stock, wider = TimmBackbone("mobilenetv2_100"), TimmBackbone("mobilenetv2_100", kernel_size=5)
    name = "body.blocks.6.0.conv_dw.weight"  # the most weights: 960 * 25
    deviations = [backbone.state_dict()[name].std() for backbone in (stock, wider)]
    assert deviations[1] / deviations[0] == pytest.approx(3 / 5, rel=0.05)


@pytest.mark.parametrize("name", ["mobilenetv2_100", "tf_mobilenetv3_small_minimal_100", "test_resnet"])
@pytest.mark.parametrize(("kernel_size", "size"), [(5, (65, 97)), (7, (64, 96))])
@torch.no_grad()
def test_an_inflated_network_computes_what_the_stock_one_does(tmp_path, name, kernel_size, size):
    """Up to the border: a kernel's outer weights are 0 where it meets the larger padding."""
    torch.manual_seed(0)
    stock = TimmBackbone(name).double().eval()
    state = {key.removeprefix("body."): tensor for key, tensor in stock.state_dict().items()}
    torch.save(state, tmp_path / "stock.pth")
    inflated = TimmBackbone(
        name, kernel_size=kernel_size, checkpoint=str(tmp_path / "stock.pth"), pretrained_inflate=True
    )
    count = sum(tensor.shape[2:] == (3, 3) for tensor in stock.state_dict().values())
    assert f"tensors loaded ({count} kernels inflated), 0 kept random" in inflated.weights_report
    images = torch.randn(1, 3, *size, dtype=torch.float64)
    expected, levels = stock(images), inflated.double().eval()(images)
    assert expected["c5"].std() > 0
    for level in expected:
        torch.testing.assert_close(levels[level], expected[level])


@torch.no_grad()
def test_pretrained_weights_are_inflated_too(monkeypatch):
    stock = timm.create_model("mobilenetv2_100", features_only=True, output_stride=16).eval()
    monkeypatch.setattr(timm_backbone, "_create", lambda name, output_stride, pretrained: copy.deepcopy(stock))
    inflated = TimmBackbone("mobilenetv2_100", kernel_size=5, pretrained=True, pretrained_inflate=True)
    assert inflated.weights_report.endswith(", inflated to 5x5")
    images = torch.randn(1, 3, 65, 49, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(inflated.double().eval()(images)["c5"], stock.double()(images)[-1])


def test_pretrained_3x3_weights_do_not_fit_by_themselves():
    message = r"timm's weights of mobilenetv2_100 are for 3x3 kernels, not for kernel_size 5; .*pretrained_inflate=true"
    with pytest.raises(ValueError, match=message):
        TimmBackbone("mobilenetv2_100", kernel_size=5, pretrained=True)


@torch.no_grad()
def test_a_checkpoint_of_ones_own_wider_classifier_loads_completely(tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model("mobilenetv2_100").eval()
    widen_convolutions(whole, 5, inflate=False)
    torch.save({"state_dict": whole.state_dict()}, tmp_path / "own.pth")
    backbone = TimmBackbone("mobilenetv2_100", kernel_size=5, output_stride=32, checkpoint=str(tmp_path / "own.pth"))
    assert "inflated" not in backbone.weights_report
    assert ", 0 kept random []" in backbone.weights_report
    images = torch.randn(1, 3, 64, 96)
    (expected,) = whole.forward_intermediates(images, indices=[-1], intermediates_only=True)
    torch.testing.assert_close(backbone.eval()(images)["c5"], expected)


@pytest.mark.parametrize(
    ("theirs", "ours", "inflate", "message"),
    [
        (
            3,
            5,
            False,
            r"18 tensors differ in shape, such as conv_stem.weight \(32, 3, 3, 3\) into \(32, 3, 5, 5\); pretra",
        ),
        (5, 7, False, r"\(32, 3, 5, 5\) into \(32, 3, 7, 7\); pretrained_inflate=true puts smaller kernels in the"),
        (5, 3, True, r"\(32, 3, 5, 5\) into \(32, 3, 3, 3\)$"),
    ],
)
def test_a_checkpoint_of_another_kernel_size_is_refused(tmp_path, theirs, ours, inflate, message):
    torch.save(TimmBackbone("mobilenetv2_100", kernel_size=theirs).body.state_dict(), tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match=message):
        TimmBackbone(
            "mobilenetv2_100",
            kernel_size=ours,
            checkpoint=str(tmp_path / "theirs.pth"),
            pretrained_inflate=inflate,
        )


@pytest.mark.parametrize("kernel_size", [1, 2, 4])
def test_kernels_without_a_middle_or_smaller_than_3_are_refused(kernel_size):
    with pytest.raises(ValueError, match=f"expected an odd kernel_size of at least 3, got {kernel_size}"):
        TimmBackbone("mobilenetv2_100", kernel_size=kernel_size)


def test_a_backbone_without_3x3_convolutions_is_refused():
    with pytest.raises(ValueError, match="the backbone has no 3x3 convolution to make 5x5; leave kernel_size 3"):
        TimmBackbone("test_convnext", kernel_size=5)


def test_convolutions_that_are_more_than_that_are_refused():
    with pytest.raises(ValueError, match=r"cannot make this 3x3 convolution 5x5: ScaledStdConv2d"):
        TimmBackbone("nf_regnet_b0", kernel_size=5)
    mirrored = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(ValueError, match=r"cannot make this 3x3 convolution 5x5: .*padding_mode=reflect"):
        widen_convolutions(mirrored, 5, inflate=True)


def test_a_kernel_fits_only_where_it_has_a_middle_and_the_same_channels():
    weight = torch.arange(18.0).view(2, 1, 3, 3)
    fitting = [shape for shape in [(2, 1, 3, 3), (2, 1, 4, 4), (2, 1, 5, 5), (2, 1, 5, 7), (1, 2, 5, 5), (2, 5, 5)]
               if fits_inside(weight, shape)]  # fmt: skip
    assert fitting == [(2, 1, 5, 5)]
    inflated = inflate_kernel(weight, 7)
    assert torch.equal(inflated[..., 2:5, 2:5], weight)
    assert inflated.sum() == weight.sum()
