"""ResNets in cascade: strides, rates and parameters of DeepLabv3's Tables 1 to 3, values and fields of view."""

import pytest
import timm
import torch
import torch.nn.functional as F
from batch_norms import as_trained
from oracles.deeplabv3 import residual_unit
from torch import nn

from panoptic.configuration import load_config, resolved
from panoptic.instantiation import build
from panoptic.models.backbones.cascade import CascadedResNet, block_geometry

pytestmark = pytest.mark.slow


def cascade_of(name="resnet50", **options):
    """Without memory for its weights."""
    with torch.device("meta"):
        return CascadedResNet(name, **options)


@pytest.fixture(scope="module")
def seven_blocks():
    return cascade_of(num_blocks=7)


def blocks_of(backbone):
    return [*(backbone.body[f"layer{number}"] for number in (1, 2, 3, 4)), *backbone.blocks]


def wide(unit):
    """The 3x3 convolutions of a unit."""
    return [part for part in unit.modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3)]


def rates_of(backbone):
    """For each block, for each unit, the rates of its 3x3 convolutions, in the cells that their stride leaves."""
    return [
        [[conv.dilation[0] // conv.stride[0] for conv in wide(unit)] for unit in block] for block in blocks_of(backbone)
    ]


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


TABLE_1 = {
    8: ([1, 2, 1, 1, 1, 1, 1], [1, 1, 2, 4, 8, 16, 32]),
    16: ([1, 2, 2, 1, 1, 1, 1], [1, 1, 1, 2, 4, 8, 16]),
    32: ([1, 2, 2, 2, 1, 1, 1], [1, 1, 1, 1, 2, 4, 8]),
    64: ([1, 2, 2, 2, 2, 1, 1], [1, 1, 1, 1, 1, 2, 4]),
    128: ([1, 2, 2, 2, 2, 2, 1], [1, 1, 1, 1, 1, 1, 2]),
    256: ([1, 2, 2, 2, 2, 2, 2], [1, 1, 1, 1, 1, 1, 1]),
}
"""{output stride: strides and rates of blocks 1 to 7}."""


@pytest.mark.parametrize("output_stride", TABLE_1)
def test_rates_double_where_strides_end(seven_blocks, output_stride):
    strides, rates = TABLE_1[output_stride]
    assert block_geometry(7, output_stride) == list(zip(strides, rates, strict=True))
    backbone = seven_blocks
    backbone.set_output_stride(output_stride)
    assert rates_of(backbone) == [[[rate]] * units for rate, units in zip(rates, (3, 4, 6, 3, 3, 3, 3), strict=True)]
    found = [[unit.conv1.stride[0] for unit in block] for block in blocks_of(backbone)]
    assert found == [[stride, *[1] * (units - 1)] for stride, units in zip(strides, (3, 4, 6, 3, 3, 3, 3), strict=True)]
    for block in blocks_of(backbone):
        assert all(conv.padding == conv.dilation for unit in block for conv in wide(unit))
        assert all(conv.stride == (1, 1) for unit in block for conv in wide(unit))
        assert block[0].downsample[0].stride == block[0].conv1.stride


def test_an_output_stride_of_the_start_is_that_of_a_change():
    backbone = cascade_of("test_resnet", num_blocks=7, multi_grid=(2,), output_stride=64)
    other = cascade_of("test_resnet", num_blocks=7, multi_grid=(2,), output_stride=8)
    assert (other.output_stride, rates_of(other)) != (backbone.output_stride, rates_of(backbone))
    other.set_output_stride(64)
    assert (other.output_stride, rates_of(other)) == (backbone.output_stride, rates_of(backbone))


@pytest.mark.parametrize("output_stride", TABLE_1)
def test_the_last_level_has_the_output_stride(seven_blocks, output_stride):
    backbone = seven_blocks
    backbone.set_output_stride(output_stride)
    levels = backbone(torch.zeros(2, 3, 513, 769, device="meta"))
    own = {"c1": 2, "c2": 4, "c3": 8, "c4": min(16, output_stride), "c5": output_stride}
    assert backbone.strides == own
    assert backbone.channels == {"c1": 64, "c2": 256, "c3": 512, "c4": 1024, "c5": 2048}
    assert list(levels) == backbone.levels == list(own)
    for level, stride in own.items():
        assert levels[level].shape == (2, backbone.channels[level], 512 // stride + 1, 768 // stride + 1), level


@pytest.mark.parametrize(
    ("num_blocks", "multi_grid"), [(4, (1, 1, 1)), (5, (1, 2, 1)), (6, (1, 2, 3)), (7, (1, 2, 4)), (7, (2, 2, 2))]
)
def test_unit_rates_multiply_those_of_block_4_and_its_replicas(num_blocks, multi_grid):
    rates = rates_of(cascade_of("resnet101", num_blocks=num_blocks, multi_grid=multi_grid))
    assert len(rates) == num_blocks
    assert rates[:3] == [[[1]] * 3, [[1]] * 4, [[1]] * 23]
    for block, rate in zip(rates[3:], (2, 4, 8, 16), strict=False):
        assert block == [[rate * unit_rate] for unit_rate in multi_grid]


def test_the_papers_example_has_rates_2_4_and_8():
    assert rates_of(cascade_of(multi_grid=(1, 2, 4)))[3] == [[2], [4], [8]]


def test_basic_units_have_the_rate_in_both_convolutions_and_a_deep_stem_has_none():
    backbone = cascade_of("test_resnet", num_blocks=6, multi_grid=(3,), output_stride=8)
    assert rates_of(backbone) == [[[1, 1]], [[1, 1]], [[2]], [[12, 12]], [[24, 24]], [[48, 48]]]
    assert [conv.dilation for conv in wide(backbone.body["conv1"])] == [(1, 1)] * 3


def test_attention_and_groups_stay():
    backbone = cascade_of("seresnext26t_32x4d", num_blocks=5, multi_grid=(1, 2))
    assert rates_of(backbone)[3:] == [[[2], [4]], [[4], [8]]]
    (conv,) = wide(backbone.blocks[0][1])
    assert conv.groups == 32
    assert num_parameters(backbone.blocks[0][1].se) == num_parameters(backbone.body["layer4"][1].se) > 0


def test_an_added_block_has_the_parameters_of_its_convolutions_and_geometry_has_none():
    first = 2048 * 512 + 512 * 512 * 9 + 512 * 2048 + 2048 * 2048 + 2 * (512 + 512 + 2048 + 2048)
    other = 2048 * 512 + 512 * 512 * 9 + 512 * 2048 + 2 * (512 + 512 + 2048)
    plain = num_parameters(cascade_of())
    with torch.device("meta"):
        assert plain == num_parameters(timm.create_model("resnet50", num_classes=0))
    for more in (1, 3):
        options = {"num_blocks": 4 + more, "multi_grid": (1, 2, 4), "output_stride": 2 ** (4 + more)}
        assert num_parameters(cascade_of(**options)) == plain + more * (first + 2 * other)


@pytest.mark.parametrize(
    ("num_blocks", "output_stride", "multi_grid", "reach"),
    [
        (4, 16, (1, 1), 2 + 2),
        (4, 16, (1, 4), 2 + 8),
        (4, 8, (1, 2), 4 + 8),
        (5, 16, (1, 2), 2 + 4 + 4 + 8),
        (6, 16, (1, 1), 2 + 2 + 4 + 4 + 8 + 8),
    ],
)
def test_the_field_of_view_is_the_sum_of_rates(num_blocks, output_stride, multi_grid, reach):
    """From block 4 on, in cells to each side; all weights are positive, so that no contribution vanishes."""
    options = {"num_blocks": num_blocks, "multi_grid": multi_grid, "output_stride": output_stride}
    backbone = CascadedResNet("resnet26", layers=(1, 1, 1, 2), **options)
    for parameter in backbone.parameters():
        nn.init.constant_(parameter, 0.01)
    backbone.eval()
    features = torch.ones(1, 1024, 1, 2 * reach + 7, requires_grad=True)
    result = features
    for block in blocks_of(backbone)[3:]:
        result = block(result)
    (gradient,) = torch.autograd.grad(result[..., reach + 3].sum(), features)
    seen = gradient[0, :, 0].abs().sum(0).nonzero()[:, 0].tolist()
    assert (seen[0], seen[-1]) == (3, 2 * reach + 3)


@pytest.mark.parametrize(("output_stride", "multi_grid"), [(8, 1), (16, 2), (32, 1), (64, 3)])
@torch.no_grad()
def test_blocks_equal_the_papers_text_one_cell_at_a_time(output_stride, multi_grid):
    torch.manual_seed(0)
    backbone = CascadedResNet("test_resnet", num_blocks=6, multi_grid=(multi_grid,), output_stride=output_stride)
    as_trained(backbone).double().eval()
    levels = backbone(torch.randn(1, 3, 65, 97, dtype=torch.float64))
    weights, geometry = backbone.state_dict(), block_geometry(6, output_stride)
    expected = levels["c2"][0]
    for number, (stride, rate) in enumerate(geometry[1:], start=2):
        name = f"body.layer{number}.0" if number <= 4 else f"blocks.{number - 5}.0"
        unit_rate = multi_grid if number >= 4 else 1
        expected = residual_unit(weights, name, expected, stride, rate, unit_rate)
        if number < 4:
            torch.testing.assert_close(levels[f"c{number + 1}"][0], expected)
    torch.testing.assert_close(levels["c5"][0], expected)


def bottleneck(unit, features, stride=1):
    """A unit whose 3x3 convolution strides, with every second cell of its input beside it."""
    inner = F.relu(unit.bn1(F.conv2d(features, unit.conv1.weight)))
    wide = unit.conv2
    inner = F.conv2d(inner, wide.weight, stride=stride, padding=wide.padding, dilation=wide.dilation)
    inner = unit.bn3(unit.conv3(F.relu(unit.bn2(inner))))
    shortcut = (
        features if unit.downsample is None else unit.downsample[1](F.conv2d(features, unit.downsample[0].weight))
    )
    return F.relu(inner + shortcut[..., ::stride, ::stride])


@pytest.mark.parametrize("output_stride", [8, 16, 64])
@torch.no_grad()
def test_it_is_the_papers_network_whose_blocks_stride_in_their_last_unit(output_stride):
    torch.manual_seed(0)
    options = {"layers": (1, 2, 2, 3), "num_blocks": 5, "multi_grid": (1, 2, 4)}
    backbone = as_trained(CascadedResNet("resnet26", output_stride=output_stride, **options)).double().eval()
    images = torch.randn(1, 3, 65, 97, dtype=torch.float64)
    features = backbone.body["maxpool"](backbone.body["act1"](backbone.body["bn1"](backbone.body["conv1"](images))))
    strides = [stride for stride, _ in block_geometry(5, output_stride)[1:]] + [1]
    for block, stride_of_the_next in zip(blocks_of(backbone), strides, strict=True):
        *units, last = block
        for unit in units:
            features = bottleneck(unit, features)
        features = bottleneck(last, features, stride_of_the_next)
    torch.testing.assert_close(backbone(images)["c5"], features)


@torch.no_grad()
def test_without_dilation_and_more_blocks_it_is_timms_resnet_that_strides_before_its_3x3():
    """In the first 1x1 of a block, as the first ResNets did, where timm's do in the first 3x3."""
    torch.manual_seed(0)
    options = {"layers": (1, 2, 1, 2)}
    cascade = CascadedResNet("resnet26", **options, multi_grid=(1, 1), output_stride=32)
    as_trained(cascade).eval()
    timms = timm.create_model("resnet26", **options, features_only=True).eval()
    timms.load_state_dict(cascade.body.state_dict())
    images = torch.randn(2, 3, 65, 97)
    assert not torch.allclose(cascade(images)["c3"], timms(images)[2], atol=1e-2)
    for block in (timms["layer2"], timms["layer3"], timms["layer4"]):
        block[0].conv1.stride, block[0].conv2.stride = (2, 2), (1, 1)
    for features, expected in zip(cascade(images).values(), timms(images), strict=True):
        assert torch.equal(features, expected)


def test_replicas_begin_as_block_4_where_shapes_agree_and_then_are_their_own(tmp_path):
    torch.manual_seed(0)
    layers = (1, 1, 1, 2)
    state = {
        name: torch.randn_like(tensor)
        for name, tensor in timm.create_model("resnet26", layers=layers).named_parameters()
    }
    torch.save(state, tmp_path / "weights.pth")
    options = {"num_blocks": 6, "multi_grid": (1, 2), "checkpoint": str(tmp_path / "weights.pth")}
    backbone = CascadedResNet("resnet26", layers=layers, **options)
    assert f"{len(state) - 2} tensors loaded" in backbone.weights_report  # all but the classifier's
    original = {name.removeprefix("layer4."): value for name, value in state.items() if name.startswith("layer4.")}
    for block in backbone.blocks:
        own = dict(block.named_parameters())
        assert list(own) == list(original)
        anew = [name for name, value in own.items() if value.shape != original[name].shape]
        assert anew == ["0.conv1.weight", "0.downsample.0.weight"]
        for name in set(own) - set(anew):
            assert torch.equal(own[name], original[name]), name
        for name, fan_out in zip(anew, (512, 2048), strict=True):
            assert own[name].shape[1] == 2048
            assert own[name].std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)
    fifth, sixth = backbone.blocks
    assert not torch.equal(fifth[0].conv1.weight, sixth[0].conv1.weight)
    nn.init.zeros_(fifth[1].conv2.weight)
    assert sixth[1].conv2.weight.any()
    assert backbone.body["layer4"][1].conv2.weight.any()


def test_every_parameter_of_every_block_trains():
    backbone = CascadedResNet("test_resnet", num_blocks=7, multi_grid=(2,), output_stride=8)
    backbone(torch.randn(2, 3, 33, 49))["c5"].square().mean().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet5o"}, r"timm has no model 'resnet5o'; names that look like it: \["),
        ({"num_blocks": 3}, "expected num_blocks from 4 to 7, got 3"),
        ({"num_blocks": 8}, "expected num_blocks from 4 to 7, got 8"),
        ({"multi_grid": (1, 2)}, r"expected a multi_grid of 3 rates .* of block 4 of resnet50, got \[1, 2\]"),
        ({"multi_grid": (1, 0, 2)}, r"rates of at least 1, .* got \[1, 0, 2\]"),
        ({"name": "test_resnet"}, r"expected a multi_grid of 1 rates .* of test_resnet, got \[1, 1, 1\]"),
        ({"output_stride": 64}, r"expected an output_stride of \[4, 8, 16, 32\] for 4 blocks, got 64"),
        ({"output_stride": 12, "num_blocks": 5}, r"output_stride of \[4, 8, 16, 32, 64\] for 5 blocks, got 12"),
        ({"output_stride": 2}, r"expected an output_stride of \[4, 8, 16, 32\] for 4 blocks, got 2"),
        ({"name": "test_convnext"}, "expected a timm ResNet of basic or bottleneck units to .*, got test_convnext of"),
        ({"name": "resnetv2_50"}, "expected a timm ResNet of basic or bottleneck units to .*, got resnetv2_50 of"),
        ({"name": "res2net50_26w_4s"}, r"got res2net50_26w_4s of \['Bottle2neck'\]"),
        ({"name": "resnetblur50"}, "resnetblur50 blurs before it strides, which has no atrous form"),
        ({"layers": (1, 1, 3)}, r"expected layers as 4 numbers of units, at least 1, got \[1, 1, 3\]"),
        ({"layers": (1, 0, 1, 3)}, r"expected layers as 4 numbers of units, at least 1, got \[1, 0, 1, 3\]"),
        ({"layers": (1, 1, 1, 3), "pretrained": True}, "timm's weights of resnet50 are for its own layers"),
        ({"pretrained": True, "checkpoint": "any.pth"}, "expected one source of backbone weights"),
    ],
)
def test_what_cannot_be_built_says_why(options, message):
    with pytest.raises(ValueError, match=message):
        cascade_of(**{"name": "resnet50", **options})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"backbone checkpoint .*none.pth does not exist"):
        CascadedResNet("test_resnet", multi_grid=(1,), checkpoint=str(tmp_path / "none.pth"))


@pytest.mark.parametrize(
    ("choice", "units"), [("resnet50_multi_grid", 6), ("resnet101_multi_grid", 23), ("resnet_small_multi_grid", 1)]
)
def test_a_cascade_is_chosen_by_name(choice, units):
    node = resolved(load_config("train", [f"backbone={choice}", "backbone.num_blocks=5"]))["backbone"]
    with torch.device("meta"):
        backbone = build(node)
    assert len(backbone.body["layer3"]) == units
    grid = rates_of(backbone)
    assert [{*unit} for unit in grid[3]] == [{2}, {4}, {8}]
    assert (len(backbone.blocks), backbone.strides["c5"]) == (1, 16)
