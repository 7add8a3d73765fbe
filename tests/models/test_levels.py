"""Levels of a backbone that nothing reads are let go of where no gradient needs them; parts say which they read."""

import weakref

import pytest
import torch
from batch_norms import as_trained

from panoptic.configuration import load_config, resolved
from panoptic.data.scenes import Scenes
from panoptic.models.build import build_network
from panoptic.models.heads.base import DenseOutput, Head
from panoptic.models.heads.semantic import SemanticHead

pytestmark = pytest.mark.slow

SCENES = Scenes(split="train", length=1, size=(48, 64), difficulty="easy")
CASCADE = "backbone=resnet_small_multi_grid"
PYRAMID = [CASCADE, "backbone.output_stride=32", "decoder=fpn_small"]
ALL = {"c2", "c3", "c4", "c5"}
NETWORKS = {
    "deeplabv3": (["decoder=deeplabv3_small", "heads=deeplabv3", "fusion=semantic"], {"c5"}),
    "aspp": (["decoder=none_small", "heads=deeperlab_small"], {"c5"}),
    "bilinear": (["decoder=bilinear_small", "heads=deeperlab_small"], {"c2", "c5"}),
    "space to depth": (["decoder=s2d_small", "heads=deeperlab_small"], {"c2", "c5"}),
    "mask r-cnn": ([*PYRAMID, "heads=mask_rcnn_small", "fusion=instances"], ALL),
    "oanet": (
        [*PYRAMID, "decoder=fpn_rpn_features_small", "heads=oanet_small", "fusion=spatial_ranking_small"],
        ALL,
    ),
}
"""{name: choices and the levels that are read}."""


def network_of(*choices):
    torch.manual_seed(0)
    config = resolved(load_config("train", [CASCADE, *choices]))
    return as_trained(build_network(config, SCENES.categories, SCENES.image_statistics)).eval()


def run(network):
    generator = torch.Generator().manual_seed(0)
    size = network.size_rule.pad(48, 64)
    return network(torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=generator), [(48, 64)])


def tensors_of(output):
    """Every tensor of an output."""
    return [
        one
        for value in vars(output).values()
        for one in (value if isinstance(value, list) else [value])
        if torch.is_tensor(one)
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_a_network_that_keeps_all(name):
    choices, read = NETWORKS[name]
    network = network_of(*choices)
    expected, features = run(network)
    for path in network.paths:
        assert {"c1", "c2", "c3", "c4", "c5"} < set(features[path.readers[0]].levels)
    with torch.no_grad():
        outputs, features = run(network)
    for path in network.paths:
        assert set(features[path.readers[0]].levels) == read | set(path.decoder.channels)
    compared = 0
    for head, output in outputs.items():
        for one, other in zip(tensors_of(output), tensors_of(expected[head]), strict=True):
            assert torch.equal(one, other), head
            compared += 1
    assert compared >= len(outputs)


def test_a_shared_backbone_keeps_what_either_path_reads():
    network = network_of(*NETWORKS["bilinear"][0])
    other = network_of(*NETWORKS["aspp"][0]).paths[0]
    paths = [network.paths[0], other]
    other.backbone = paths[0].backbone
    other.heads = torch.nn.ModuleDict({f"other_{name}": head for name, head in other.heads.items()})
    joined = type(network)(paths, SCENES.image_statistics).eval()
    with torch.no_grad():
        outputs, features = run(joined)
    assert len(outputs) == 2 * len(network.heads)
    assert set(features["other_semantic"].levels) == {"c2", "c5", "decoder"}


def test_while_the_last_block_runs_finer_levels_are_gone():
    network = network_of(*NETWORKS["deeplabv3"][0])
    body = network.paths[0].backbone.body
    made, alive = {}, []
    for name in ("act1", "layer1", "layer2"):
        body[name].register_forward_hook(lambda part, given, made_, name=name: made.update({name: weakref.ref(made_)}))
    body["layer4"].register_forward_hook(
        lambda *_: alive.append([name for name, kept in made.items() if kept() is not None])
    )
    run(network)
    with torch.no_grad():
        run(network)
    assert alive == [["act1", "layer1", "layer2"], []]


class FinerHead(SemanticHead):
    """Reads a level of the backbone, and need not say so."""

    reads_levels = Head.reads_levels

    def forward(self, features, outputs):
        return DenseOutput(features.levels["c3"].mean(1, keepdim=True), features.padded_size)


def test_a_head_that_does_not_say_what_it_reads_finds_every_level():
    network = network_of(*NETWORKS["deeplabv3"][0])
    network.heads["semantic"].__class__ = FinerHead
    with torch.no_grad():
        outputs, _ = run(network)
    assert outputs["semantic"].values.shape == (1, 1, 7, 9)
