"""OANet's and the Fusion Scheme's experiments: the papers' schedules at full size, a step of training at small size."""

import pytest
import torch
from experiment_steps import check_two_steps

from panoptic.configuration import config_folder, load_config, resolved
from panoptic.models.build import build_network
from panoptic.structures import Category, ImageStatistics

pytestmark = pytest.mark.slow

SMALL = ["oanet_scenes", "fusion_scheme_scenes"]
ROWS = sorted(
    f"{path.parent.name}/{path.stem}"
    for family in ("oanet", "fusion_scheme")
    for path in (config_folder() / "experiment").glob(f"{family}_table*/*.yaml")
)


def compose(*overrides):
    return resolved(load_config("train", overrides))


@pytest.mark.parametrize("depth", [50, 101])
def test_oanets_schedule_is_that_of_section_4_2(depth):
    config = compose(f"experiment=oanet_resnet{depth}", "data.root=somewhere")
    assert config["backbone"]["name"] == f"resnet{depth}"
    assert (config["backbone"]["output_stride"], config["backbone"]["frozen_statistics"]) == (32, True)
    optimizer = {key: value for key, value in config["optimizer"].items() if not key.startswith("_")}
    assert optimizer == {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-4}
    steps = config["trainer"]["max_steps"]
    scheduler = config["scheduler"]
    assert (steps, config["data"]["batch_size"]) == (100_000, 16)
    assert [fraction * steps for fraction in scheduler["milestones"]] == [60_000, 80_000]
    assert scheduler["warmup_steps"] == 2000
    assert scheduler["warmup_start"] * optimizer["lr"] == pytest.approx(0.002)
    assert config["loss_weights"] == {"semantic_cross_entropy": 0.25}
    assert config["heads"]["instances"]["max_detections"] == 100
    transform = config["data"]["train_transform"]
    assert (transform["short_side"], transform["long_side"], transform["flip"]) == (800, 1333, 0.5)
    assert config["data"]["train"]["instances_json"] == "somewhere/annotations/instances_train2017.json"


def test_the_fusion_schemes_schedule_is_that_of_section_3():
    config = compose("experiment=fusion_scheme_resnet50", "data.root=somewhere")
    assert config["optimizer"]["lr"] == 5e-3
    assert config["optimizer"]["momentum"] == 0.9
    assert config["scheduler"]["_target_"] == "panoptic.training.schedules.poly"
    assert (config["trainer"]["max_steps"], config["data"]["batch_size"]) == (32_000, 2)
    transform = config["data"]["train_transform"]
    assert (transform["size"], transform["scale"]) == ([1024, 2048], [0.8, 1.0])
    assert config["heads"]["semantic"]["branch"]["rates"] == [6, 12, 18]
    assert config["loss_weights"] == {}


@pytest.mark.parametrize("experiment", ["oanet_resnet50", "oanet_resnet101", "fusion_scheme_resnet50"])
def test_full_size_networks_have_the_papers_levels_and_channels(experiment):
    config = compose(f"experiment={experiment}", "data.root=somewhere")
    categories = [Category(number, f"category {number}", is_thing=number < 80) for number in range(133)]
    with torch.device("meta"):
        network = build_network(config, categories, ImageStatistics())
    (path,) = network.paths
    levels = ["p2", "p3", "p4", "p5", "p6"]
    assert [path.decoder.channels[level] for level in levels] == [256] * 5
    assert network.size_rule.multiple == 32
    five = {f"instances_{term}" for term in ("rpn_objectness", "rpn_box", "class", "box", "mask")}
    ranking = {"ranking_cross_entropy"} if experiment.startswith("oanet") else set()
    assert set(network.loss_names) == five | {"semantic_cross_entropy"} | ranking


@pytest.mark.parametrize(
    "experiment",
    [pytest.param(name, marks=pytest.mark.slow) for name in SMALL]
    + [pytest.param(name, marks=pytest.mark.very_slow) for name in ROWS],
)
def test_small_versions_train_and_validate(experiment):
    check_two_steps(experiment, "data.train.size=[64,96]", "seed=1")
