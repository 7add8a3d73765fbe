"""The networks of OANet and the Fusion Scheme, composed by name: at the papers' size without memory, and small ones."""

import pytest
import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn

from panoptic.assembly import build_data, build_module, try_out
from panoptic.configuration import load_config, resolved
from panoptic.models.build import build_network
from panoptic.structures import Category, ImageStatistics, SizeRule

pytestmark = pytest.mark.slow

COCO = [Category(number, f"category {number}", is_thing=number < 80) for number in range(133)]
OANET = ["heads=oanet", "decoder=fpn_rpn_features"]
FUSION_SCHEME = ["heads=fusion_scheme", "decoder=fpn"]
INSTANCE_LOSSES = [f"instances_{term}" for term in ("rpn_objectness", "rpn_box", "class", "box", "mask")]


def compose(*overrides):
    return resolved(load_config("train", overrides))


def full_size(*overrides, categories=COCO):
    """The network on the meta device."""
    with torch.device("meta"):
        return build_network(compose(*overrides), categories, ImageStatistics())


@pytest.mark.parametrize("backbone", ["resnet50_frozen", "resnet101_frozen"])
@pytest.mark.parametrize("sharing", ["skip_connection", "backbone", "none"])
def test_oanet_at_the_papers_size(backbone, sharing):
    network = full_size(*OANET, f"backbone={backbone}", f"sharing={sharing}")
    assert network.size_rule == SizeRule(32)
    assert sorted(network.loss_names) == sorted(["semantic_cross_entropy", *INSTANCE_LOSSES, "ranking_cross_entropy"])
    size = network.size_rule.pad(800, 1333)
    outputs, features = network(torch.zeros(1, 3, *size, dtype=torch.uint8, device="meta"), [(800, 1333)])
    assert outputs["semantic"].values.shape == (1, 133, 200, 336)
    assert len(network.shared(features)) == {"skip_connection": 4, "backbone": 1, "none": 0}[sharing]


@pytest.mark.parametrize("head", ["semantic_asp_rp", "semantic_two_conv"])
def test_the_fusion_scheme_at_the_papers_size(head):
    network = full_size(
        *FUSION_SCHEME, "backbone=resnet50_frozen", f"head@heads.semantic={head}", categories=COCO[70:89]
    )
    assert network.loss_names == ["semantic_cross_entropy", *INSTANCE_LOSSES]
    images = torch.zeros(1, 3, 1024, 2048, dtype=torch.uint8, device="meta")
    outputs, _ = network(images, [(1024, 2048)])
    assert outputs["semantic"].values.shape == (1, 19, 256, 512)


def test_the_mask_rcnn_of_both_has_torchvisions_parameters():
    with torch.device("meta"):
        theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=81)
    ours = full_size("heads=mask_rcnn", "decoder=fpn", "backbone=resnet50_frozen")
    count = sum(parameter.numel() for parameter in theirs.parameters())
    assert sum(parameter.numel() for parameter in ours.parameters()) == count
    # OANet's RPN has its 3x3 convolution in the decoder, nothing more and nothing less.
    moved = full_size("heads=mask_rcnn", "decoder=fpn_rpn_features", "backbone=resnet50_frozen",
                      "heads.instances.rpn_convolution=false")  # fmt: skip
    assert sum(parameter.numel() for parameter in moved.parameters()) == count


def test_lambda_weighs_the_semantic_loss_of_oanet_alone():
    assert compose(*OANET)["loss_weights"] == {"semantic_cross_entropy": 0.25}
    assert compose("heads=oanet_small")["loss_weights"] == {"semantic_cross_entropy": 0.25}
    assert compose(*FUSION_SCHEME)["loss_weights"] == {}


@pytest.mark.parametrize("heads", ["oanet", "oanet_small"])
def test_the_ranking_learns_from_the_instances_of_the_instance_head(heads):
    for source in ("own", "panoptic"):
        nodes = compose(f"heads={heads}", f"heads.instances.instances_from={source}")["heads"]
        assert nodes["ranking"]["instances_from"] == nodes["instances"]["instances_from"] == source


def test_oanet_without_rpn_feature_maps_says_what_to_choose():
    with pytest.raises(ValueError, match="choose decoder=fpn, or decoder=fpn_rpn_features for a head without rpn_conv"):
        full_size("heads=oanet", "decoder=fpn", "backbone=resnet50_frozen")


@pytest.mark.parametrize(
    ("heads", "decoder", "fusion"),
    [
        ("oanet_small", "fpn_rpn_features_small", "spatial_ranking_small"),
        ("oanet_small", "fpn_rpn_features_small", "detection_score_small"),
        ("fusion_scheme_small", "fpn_small", "region_growing_small"),
        ("fusion_scheme_small", "fpn_small", "detection_score_small"),
    ],
)
@pytest.mark.parametrize("sharing", ["skip_connection", "backbone", "none"])
def test_small_networks_fuse_what_they_see(heads, decoder, fusion, sharing):
    choices = [f"heads={heads}", f"decoder={decoder}", f"fusion={fusion}", f"sharing={sharing}"]
    backbone = ["backbone.name=test_resnet", "backbone.output_stride=32"]
    config = compose(*choices, *backbone, "data.train.length=16", "data.num_workers=0")
    try_out(build_module(config, build_data(config)))


def test_a_head_of_another_decoder_names_the_level_that_it_reads():
    message = (
        r"heads.semantic reads the level 'decoder', but backbone and decoder have \['c1', .*'p6'\]; choose decoder="
    )
    with pytest.raises(ValueError, match=message):
        full_size("heads=deeperlab", "decoder=fpn", "backbone=resnet50_frozen")
