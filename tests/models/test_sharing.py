"""One path, two paths of one backbone, two networks: what they share, compute and count."""

import pytest
import torch
from torch import nn

from panoptic.assembly import build_data, build_module, start_report
from panoptic.configuration import load_config, resolved
from panoptic.data.scenes import Scenes
from panoptic.instantiation import build, complete
from panoptic.models.build import build_network
from panoptic.models.network import NetworkPath, PanopticNetwork
from panoptic.models.sharing import share_backbone, share_nothing

pytestmark = pytest.mark.slow

SCENES = Scenes(split="train", length=1, size=(48, 64), difficulty="easy")
OANET = ["heads=oanet_small", "decoder=fpn_rpn_features_small", "backbone.output_stride=32"]
SMALL = ["backbone.name=test_resnet", "decoder.filters=16"]
SIZE = (64, 96)


def compose(*overrides):
    return resolved(load_config("train", [*SMALL, *overrides]))


def network_of(config):
    torch.manual_seed(0)
    return build_network(config, SCENES.categories, SCENES.image_statistics)


def oanet(sharing, *overrides):
    return network_of(compose(*OANET, f"sharing={sharing}", *overrides))


def deeperlab(sharing):
    return network_of(compose("heads=deeperlab", f"sharing={sharing}"))


def run(network):
    """Outputs and features of two images of noise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8, generator=generator)
    return network(images, [SIZE, SIZE])


def features_of(network):
    return run(network)[1]


def num_parameters(*modules):
    found = {id(parameter): parameter for module in modules for parameter in module.parameters()}
    return sum(parameter.numel() for parameter in found.values())


def test_one_path_is_the_network_of_before_there_was_a_choice():
    config = compose("heads=deeperlab")
    assert config["sharing"]["_target_"].endswith(".share_decoder")
    torch.manual_seed(0)
    backbone = build(config["backbone"])
    decoder = complete("decoder", config["decoder"], backbone.channels)
    channels = {**backbone.channels, **decoder.channels}
    heads = {
        name: complete(f"heads.{name}", node, channels, SCENES.categories) for name, node in config["heads"].items()
    }
    expected = PanopticNetwork([NetworkPath(backbone, decoder, heads)], SCENES.image_statistics).state_dict()
    without = {key: value for key, value in config.items() if key != "sharing"}
    for found in (network_of(config).state_dict(), network_of(without).state_dict()):
        assert list(found) == list(expected)
        assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_paths_have_the_heads_that_are_named_and_a_decoder_each():
    for sharing in ("backbone", "none"):
        first, second = oanet(sharing).paths
        assert list(first.heads) == ["instances", "ranking"]
        assert list(second.heads) == ["semantic"]
        assert first.decoder is not second.decoder
        assert (first.backbone is second.backbone) == (sharing == "backbone")


def test_parameters_are_those_of_the_parts():
    one, two, apart = (oanet(sharing) for sharing in ("skip_connection", "backbone", "none"))
    (path,) = one.paths
    assert num_parameters(two) - num_parameters(one) == num_parameters(path.decoder)
    assert num_parameters(apart) - num_parameters(two) == num_parameters(path.backbone)


def test_a_shared_backbone_runs_once():
    network = oanet("backbone").eval()
    runs = []
    network.paths[0].backbone.register_forward_hook(lambda *_: runs.append(1))
    features_of(network)
    assert len(runs) == 1


def test_paths_of_one_backbone_compute_what_two_networks_of_equal_weights_do():
    together, apart = deeperlab("backbone").eval(), deeperlab("none").eval()
    apart.load_state_dict(together.state_dict())
    found, expected = run(together)[0], run(apart)[0]
    assert list(found) == list(expected)
    for name, output in found.items():
        assert torch.equal(output.values, expected[name].values)


def test_gradients_of_both_paths_add_up_in_a_shared_backbone():
    network = deeperlab("backbone").train()
    weight = next(network.paths[0].backbone.parameters())
    outputs, _ = run(network)
    sums = {name: output.values.sum() for name, output in outputs.items()}
    alone = [torch.autograd.grad(value, weight, retain_graph=True)[0] for value in sums.values()]
    assert all(gradient.any() for gradient in alone)
    sum(sums.values()).backward()
    torch.testing.assert_close(weight.grad, sum(alone), rtol=1e-3, atol=1e-3)


def test_heads_of_one_path_share_the_levels_that_all_others_are_made_of():
    network = oanet("skip_connection")
    features = features_of(network)
    shared = network.shared(features)
    levels = features["semantic"].levels
    assert [tensor is levels[f"p{number}"] for number, tensor in enumerate(shared, start=2)] == [True] * 4


def test_paths_share_the_last_level_of_their_backbone():
    network = oanet("backbone")
    features = features_of(network)
    (shared,) = network.shared(features)
    assert shared is features["semantic"].levels["c5"]
    assert shared is features["instances"].levels["c5"]
    for name, level in (("semantic", "r5"), ("instances", "p2")):
        (gradient,) = torch.autograd.grad(features[name].levels[level].sum(), shared, retain_graph=True)
        assert gradient.any()


def test_two_networks_share_nothing():
    network = oanet("none")
    assert network.shared(features_of(network)) == []


def test_a_head_that_reads_no_features_is_no_second_reader():
    network = oanet("skip_connection", "~heads.semantic")
    assert list(network.heads) == ["instances", "ranking"]
    assert network.shared(features_of(network)) == []


def test_weights_of_a_shared_backbone_are_stored_once_and_load_again(tmp_path):
    network = oanet("backbone")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    size = (tmp_path / "weights.pth").stat().st_size
    torch.save({name: value.clone() for name, value in network.state_dict().items()}, tmp_path / "copies.pth")
    assert (tmp_path / "copies.pth").stat().st_size - size > 4 * num_parameters(network.paths[0].backbone)
    nn.init.zeros_(next(network.parameters()))
    network.load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))
    expected = oanet("backbone").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


def test_the_start_report_counts_a_shared_backbone_once():
    totals = {}
    for sharing in ("skip_connection", "backbone", "none"):
        overrides = [*OANET, f"sharing={sharing}", "data.num_workers=0", "fusion=semantic"]
        config = compose(*overrides)
        table = next(iter(start_report(config, build_module(config, build_data(config)))))
        columns = [list(column.cells) for column in table.columns]
        rows = {
            name: (int(count.replace(",", "")), operations) for name, count, _, operations in zip(*columns, strict=True)
        }
        assert ("backbone 2" in rows) == (sharing == "none")
        assert ("decoder 2" in rows) == (sharing != "skip_connection")
        assert "rest" not in rows
        assert sum(count for name, (count, _) in rows.items() if name != "total") == rows["total"][0]
        totals[sharing] = rows["total"], rows["backbone"], rows["decoder"]
    assert totals["backbone"][1] == totals["none"][1] == totals["skip_connection"][1]
    decoder = totals["skip_connection"][2][0]
    assert totals["backbone"][0][0] - totals["skip_connection"][0][0] == decoder


@pytest.mark.parametrize("share", [share_backbone, share_nothing])
def test_a_head_that_there_is_not_cannot_be_separate(share):
    with pytest.raises(ValueError, match=r"sharing.separate names \['stuff'\], but the heads are \['instances', 'sem"):
        share(None, None, {"semantic": None, "instances": None}, separate=["stuff"])


@pytest.mark.parametrize("separate", [[], ["instances", "semantic"]])
def test_each_path_needs_a_head(separate):
    message = (
        r"expected heads on both paths, got sharing.separate=\[.*\] of \['instances', 'semantic'\]; choose sharing="
    )
    with pytest.raises(ValueError, match=message):
        share_nothing(None, None, {"semantic": None, "instances": None}, separate=separate)
