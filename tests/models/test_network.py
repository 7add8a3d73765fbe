"""Paths, their heads and what they share; layers and decoders at the sizes of the paper."""

import pytest
import torch
from torch import nn

from panoptic.configuration import config_folder, load_config, resolved
from panoptic.instantiation import build
from panoptic.models.decoders.aspp import ASPP
from panoptic.models.decoders.base import Decoder
from panoptic.models.heads.base import DenseOutput, Head
from panoptic.models.layers import resize_bilinear
from panoptic.models.network import ImageOutputs, NetworkPath, PanopticNetwork
from panoptic.structures import ImageStatistics, SizeRule

pytestmark = pytest.mark.slow

# Of DeeperLab; feature pyramids and the pyramid of DeepLabv3 have tests of their own.
OTHERS = ("fpn", "deeplabv3")
DECODERS = sorted(
    path.stem for path in (config_folder() / "decoder").glob("*.yaml") if not path.stem.startswith(OTHERS)
)
STATISTICS = ImageStatistics(mean=(0.25, 0.5, 0.75), std=(0.5, 0.25, 1.0))
SIZES = [(5, 7), (3, 4)]


class Backbone(nn.Module):
    """Half the image's size; keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)
        self.given = []

    def forward(self, images):
        self.given.append(images)
        return {"c2": self.layer(images)[..., ::2, ::2]}


class PlainDecoder(Decoder):
    def __init__(self, size_rule=None):
        super().__init__()
        self.size_rule = size_rule or SizeRule(2, 1)
        self.channels = {"decoder": 6}
        self.layer = nn.Conv2d(4, 6, 1)

    def forward(self, levels, image_sizes=None):
        return {"decoder": self.layer(levels["c2"])}


class PlainHead(Head):
    """Sums its features; `reads` another head's values if told to."""

    terms = ("size", "sign")
    encode = None

    def __init__(self, reads=()):
        super().__init__()
        self.reads = tuple(reads)
        self.layer = nn.Conv2d(6, 2, 1)

    def forward(self, features, outputs):
        values = self.layer(features.levels["decoder"])
        for name in self.reads:
            values = values + outputs[name].values
        return DenseOutput(values, features.padded_size)

    def losses(self, output, features, targets):
        return {"size": output.values.square().mean(), "sign": output.values.mean()}

    def as_outputs(self, targets, features):
        raise NotImplementedError


def network_of(*paths):
    return PanopticNetwork(list(paths), STATISTICS)


def run(network):
    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return network(images, SIZES)


def test_a_network_without_heads_is_refused():
    with pytest.raises(ValueError, match=r"expected at least one head and each name once, got \[\]"):
        network_of(NetworkPath(Backbone(), PlainDecoder(), {}))


def test_a_name_in_two_paths_is_refused():
    paths = [NetworkPath(Backbone(), PlainDecoder(), {"semantic": PlainHead()}) for _ in range(2)]
    with pytest.raises(ValueError, match=r"each name once, got \['semantic', 'semantic'\]"):
        network_of(*paths)


@pytest.mark.parametrize("reads", ["later", "first", "nobody"])
def test_a_head_that_reads_what_does_not_run_before_it_is_refused(reads):
    heads = {"first": PlainHead([reads]), "later": PlainHead()}
    with pytest.raises(ValueError, match=rf"head 'first' reads \['{reads}'\], declare them before it; heads: "):
        network_of(NetworkPath(Backbone(), PlainDecoder(), heads))


def test_a_head_reads_the_outputs_of_heads_before_it_even_of_another_path():
    first = NetworkPath(Backbone(), PlainDecoder(), {"first": PlainHead()})
    later = NetworkPath(Backbone(), PlainDecoder(), {"later": PlainHead(["first"])})
    network = network_of(first, later)
    nn.init.zeros_(network.heads["later"].layer.weight)
    nn.init.zeros_(network.heads["later"].layer.bias)
    outputs, _ = run(network)
    assert list(outputs) == ["first", "later"]
    assert torch.equal(outputs["later"].values, outputs["first"].values)


def test_losses_are_named_after_head_and_term_in_the_order_of_the_heads():
    heads = {"b": PlainHead(), "a": PlainHead()}
    network = network_of(NetworkPath(Backbone(), PlainDecoder(), heads))
    assert network.loss_names == ["b_size", "b_sign", "a_size", "a_sign"]


def test_images_are_normalised_and_padding_is_zero():
    network = network_of(NetworkPath(Backbone(), PlainDecoder(), {"only": PlainHead()}))
    images = torch.full((2, 3, 5, 7), 255, dtype=torch.uint8)
    before = images.clone()
    network(images, SIZES)
    (given,) = network.paths[0].backbone.given
    # (1 - mean) / std per channel
    assert torch.allclose(given[0], torch.tensor([1.5, 2.0, 0.25])[:, None, None].expand(3, 5, 7))
    assert torch.allclose(given[1, :, :3, :4], torch.tensor([1.5, 2.0, 0.25])[:, None, None].expand(3, 3, 4))
    assert not given[1, :, 3:].any()
    assert not given[1, :, :, 4:].any()
    assert torch.equal(images, before)


def test_statistics_are_no_weights():
    network = network_of(NetworkPath(Backbone(), PlainDecoder(), {"only": PlainHead()}))
    assert not {"mean", "std"} & set(network.state_dict())
    assert {"mean", "std"} <= {name for name, _ in network.named_buffers()}


def test_two_paths_share_a_backbone_by_identity():
    backbone = Backbone()
    one = NetworkPath(backbone, PlainDecoder(), {"one": PlainHead()})
    two = NetworkPath(backbone, PlainDecoder(), {"two": PlainHead()})
    network = network_of(one, two)
    assert network.paths[0].backbone is network.paths[1].backbone
    assert sum(parameter is backbone.layer.weight for parameter in network.parameters()) == 1
    outputs, features = run(network)
    gradients = [
        torch.autograd.grad(output.values.sum(), backbone.layer.weight, retain_graph=True)[0]
        for output in outputs.values()
    ]
    assert all(gradient.any() for gradient in gradients)
    assert len(backbone.given) == 1  # one run for both
    (shared,) = network.shared(features)  # each decoder has one reader: only the last level of the backbone is shared
    assert shared is features["one"].levels["c2"]
    assert shared is features["two"].levels["c2"]


def test_shared_are_the_features_that_two_heads_read():
    alone = NetworkPath(Backbone(), PlainDecoder(), {"alone": PlainHead()})
    together = NetworkPath(Backbone(), PlainDecoder(), {"one": PlainHead(), "two": PlainHead()})
    network = network_of(alone, together)
    outputs, features = run(network)
    (shared,) = network.shared(features)
    assert shared is features["one"].levels["decoder"]
    assert shared is features["two"].levels["decoder"]
    for name in ("one", "two"):
        assert torch.autograd.grad(outputs[name].values.sum(), shared, retain_graph=True)[0].any()
    (gradient,) = torch.autograd.grad(outputs["alone"].values.sum(), shared, allow_unused=True)
    assert gradient is None


def test_decoders_of_different_size_rules_are_refused():
    one = NetworkPath(Backbone(), PlainDecoder(SizeRule(16, 1)), {"one": PlainHead()})
    two = NetworkPath(Backbone(), PlainDecoder(SizeRule(32)), {"two": PlainHead()})
    assert network_of(one).size_rule == SizeRule(16, 1)
    with pytest.raises(ValueError, match=r"expected decoders with one size rule, got .*remainder=1.*multiple=32"):
        _ = network_of(one, two).size_rule


def test_fusion_reads_each_image_without_its_padding():
    network = network_of(NetworkPath(Backbone(), PlainDecoder(), {"only": PlainHead()}))
    outputs, _ = run(network)
    full = outputs["only"].upsampled()
    assert full.shape == (2, 2, 5, 7)
    for index, (height, width) in enumerate(SIZES):
        assert torch.equal(ImageOutputs(outputs, index, (height, width))["only"], full[index, :, :height, :width])


@pytest.mark.parametrize("stride", [4, 8, 16])
@pytest.mark.parametrize("size", [(17, 33), (65, 49)])
def test_resizing_to_16k_plus_1_keeps_cell_i_on_pixel_i_times_the_stride(stride, size):
    y = torch.arange(0, size[0], stride, dtype=torch.float64)[:, None]
    x = torch.arange(0, size[1], stride, dtype=torch.float64)
    rows, columns = torch.arange(size[0], dtype=torch.float64)[:, None], torch.arange(size[1], dtype=torch.float64)
    # A bilinear function comes back exactly, at and between the cells.
    resized = resize_bilinear((3 * y - 2 * x + y * x / 8)[None, None], size)
    torch.testing.assert_close(resized[0, 0], 3 * rows - 2 * columns + rows * columns / 8)
    noise = torch.randn(1, 2, len(y), len(x), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(resize_bilinear(noise, size)[..., ::stride, ::stride], noise)


def test_resizing_to_the_same_size_costs_nothing():
    tensor = torch.randn(1, 2, 5, 7)
    assert resize_bilinear(tensor, (5, 7)) is tensor


@pytest.mark.parametrize("aspp", [True, False])
@pytest.mark.parametrize(
    ("choice", "output_stride"),
    [(choice, stride) for choice in DECODERS for stride in (8, 16) if stride == 16 or not choice.startswith("s2d")],
)
def test_decoders_have_the_size_of_their_level(choice, output_stride, aspp):
    stride = output_stride if choice.startswith("none") else 4
    config = resolved(load_config("train", [f"decoder={choice}", "decoder.filters=10", f"decoder.aspp={aspp}"]))
    strides = {"c2": 4, "c3": 8, "c4": output_stride, "c5": output_stride}
    decoder = build(config["decoder"])(dict.fromkeys(strides, 3))
    assert decoder.size_rule == SizeRule(16, 1)
    channels = 3 if choice.startswith("none") and not aspp else 10
    assert decoder.channels == {"decoder": channels}
    height, width = decoder.size_rule.pad(40, 60)
    levels = {level: torch.randn(2, 3, height // s + 1, width // s + 1) for level, s in strides.items()}
    assert decoder(levels)["decoder"].shape == (2, channels, 48 // stride + 1, 64 // stride + 1)


def test_each_branch_of_aspp_looks_as_far_as_its_rate():
    aspp = ASPP(3, filters=4, rates=(2, 3)).eval()
    assert aspp.out_channels == 4 * 4
    for rate, branch in zip((2, 3), aspp.atrous, strict=True):
        # Depthwise convolution alone: the norm and ReLU after it hide gradients of negative values.
        features = torch.randn(1, 3, 11, 13, requires_grad=True)
        (gradient,) = torch.autograd.grad(branch[0][0](features)[..., 5, 6].sum(), features)
        seen = gradient[0].abs().sum(0).nonzero().tolist()
        assert seen == [[y, x] for y in (5 - rate, 5, 5 + rate) for x in (6 - rate, 6, 6 + rate)]
    pooled = aspp(torch.randn(2, 3, 11, 13))[:, -4:]
    assert pooled.shape == (2, 4, 11, 13)
    assert torch.equal(pooled, pooled[..., :1, :1].expand_as(pooled))
