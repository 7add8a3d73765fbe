"""Backbones of several timm families: sizes of their features, and files of weights."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from panoptic.models.backbones.timm import TimmBackbone, load_weights

pytestmark = pytest.mark.slow

FAMILIES = ["test_resnet", "test_convnext", "test_efficientnet", "mobilenetv3_small_050", "regnetx_002"]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
@torch.no_grad()
def test_levels_have_the_sizes_and_channels_they_announce(name, output_stride):
    backbone = TimmBackbone(name, output_stride=output_stride).eval()
    expected = {"c2": 4, "c3": 8, "c4": min(16, output_stride), "c5": output_stride}
    assert {level: stride for level, stride in backbone.strides.items() if level != "c1"} == expected
    assert backbone.strides.get("c1", 2) == 2
    levels = backbone(torch.zeros(2, 3, 64, 96))
    assert list(levels) == list(backbone.channels) == list(backbone.strides)
    for level, features in levels.items():
        stride = backbone.strides[level]
        assert features.shape == (2, backbone.channels[level], 64 // stride, 96 // stride), level


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "mobilenetv3_small_050", "regnetx_002"])
@torch.no_grad()
def test_at_16k_plus_1_pixels_cell_i_lies_on_pixel_i_times_the_stride(name):
    backbone = TimmBackbone(name).eval()
    for level, features in backbone(torch.zeros(1, 3, 49, 65)).items():
        stride = backbone.strides[level]
        assert features.shape[-2:] == (48 // stride + 1, 64 // stride + 1), level


@torch.no_grad()
def test_dilation_leaves_the_values_at_the_coarser_cells_alone():
    """A dilated network computes the cells of the strided one, and those between them."""
    coarse, fine = TimmBackbone("regnetx_002", output_stride=32), TimmBackbone("regnetx_002", output_stride=16)
    fine.load_state_dict(coarse.state_dict())
    images = torch.randn(1, 3, 97, 129, generator=torch.Generator().manual_seed(0))
    one, other = coarse.eval()(images)["c5"], fine.eval()(images)["c5"]
    assert one.shape[-2:] == (4, 5)
    torch.testing.assert_close(other[..., ::2, ::2], one)


def test_an_unknown_name_suggests_some():
    with pytest.raises(ValueError, match=r"timm has no model 'resnet5o'; names that look like it: \['.*resnet"):
        TimmBackbone("resnet5o")


def test_two_sources_of_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected one source of backbone weights, got pretrained=true and a check"):
        TimmBackbone("test_resnet", pretrained=True, checkpoint=str(tmp_path / "any.pth"))


@pytest.mark.parametrize(
    ("name", "output_stride", "message"),
    [
        ("efficientvit_b0", 16, "efficientvit_b0 has no output_stride 16; its own is 32"),
        ("test_resnet", 64, "test_resnet"),
        ("test_resnet", 12, "test_resnet"),
    ],
)
def test_a_stride_that_the_model_cannot_have_is_refused(name, output_stride, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(name, output_stride=output_stride)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 2)
        self.second = nn.Linear(2, 2)


def filled(value, **extra):
    """Weights of `Small`, all equal."""
    return {name: torch.full_like(tensor, value) for name, tensor in Small().state_dict().items()} | extra


def without_second(state):
    return {name: tensor for name, tensor in state.items() if not name.startswith("second.")}


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        ("safetensors", save_file),
        ("pth", torch.save),
        ("pth", lambda state, path: torch.save({"state_dict": state, "epoch": 3}, path)),
        ("bin", lambda state, path: torch.save({"model": state}, path)),
        ("pth", lambda state, path: torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)),
    ],
    ids=["safetensors", "plain", "state_dict", "model", "parallel"],
)
def test_every_kind_of_file_loads(tmp_path, suffix, write):
    body, path = Small(), tmp_path / f"weights.{suffix}"
    write(filled(2.0), path)
    report = load_weights(body, path)
    assert report == f"backbone weights from {path}: 4 tensors loaded, 0 kept random [], 0 of the file unused []"
    assert all((parameter == 2).all() for parameter in body.parameters())


def test_a_part_of_the_weights_loads_and_the_rest_is_reported(tmp_path):
    body, path = Small(), tmp_path / "weights.pth"
    before = body.second.weight.clone()
    torch.save(without_second(filled(2.0)) | {"fc.weight": torch.zeros(5), "fc.bias": torch.zeros(1)}, path)
    report = load_weights(body, path)
    assert "2 tensors loaded, 2 kept random ['second.bias', 'second.weight']" in report
    assert "2 of the file unused ['fc.bias', 'fc.weight']" in report
    assert (body.first.weight == 2).all()
    assert torch.equal(body.second.weight, before)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"backbone checkpoint .*none.pth does not exist"):
        TimmBackbone("test_resnet", checkpoint=str(tmp_path / "none.pth"))


def test_weights_of_other_shapes_are_refused_and_nothing_is_loaded(tmp_path):
    body, path = Small(), tmp_path / "weights.pth"
    before = {name: tensor.clone() for name, tensor in body.state_dict().items()}
    torch.save(filled(2.0) | {"second.weight": torch.zeros(4, 2)}, path)
    with pytest.raises(ValueError, match=r"1 tensors differ in shape, such as second.weight \(4, 2\) into \(2, 2\)"):
        load_weights(body, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in body.state_dict().items())


def test_weights_of_other_names_are_refused(tmp_path):
    torch.save({"encoder.weight": torch.zeros(2)}, tmp_path / "weights.pth")
    message = (
        r"none of its 1 tensors \(such as 'encoder.weight'\) has a name of the backbone \(such as 'first.weight'\)"
    )
    with pytest.raises(ValueError, match=message):
        load_weights(Small(), tmp_path / "weights.pth")


@pytest.mark.parametrize("content", [b"not weights at all", b""])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_without_weights_is_named(tmp_path, content, suffix):
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"weights.{suffix}"):
        load_weights(Small(), path)


@pytest.mark.parametrize("content", [[1, 2, 3], {"state_dict": {}}, {}])
def test_a_checkpoint_without_tensors_is_named(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth"):
        load_weights(Small(), tmp_path / "weights.pth")


@pytest.mark.parametrize("name", [*FAMILIES, "xception41"])
@torch.no_grad()
def test_the_weights_of_timms_own_model_load_completely(tmp_path, name):
    """As downloaded for classification: only the classifier is left over, and the features are the same."""
    torch.manual_seed(0)
    whole = timm.create_model(name).eval()
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    backbone = TimmBackbone(name, output_stride=32, checkpoint=str(tmp_path / "whole.pth")).eval()
    assert ", 0 kept random []" in backbone.weights_report
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    (expected,) = whole.forward_intermediates(images, indices=[-1], intermediates_only=True)
    assert expected.any()
    torch.testing.assert_close(backbone(images)["c5"], expected)
