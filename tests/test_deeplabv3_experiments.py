"""DeepLabv3's experiments: the paper's schedule at full size, and a step of training at small size."""

import pytest
import torch
from experiment_steps import check_two_steps

from panoptic.configuration import config_folder, load_config, resolved
from panoptic.models.build import build_network
from panoptic.structures import Category, ImageStatistics

SMALL = ["deeplabv3_scenes", "deeplabv3_cascade_scenes"]
ROWS = sorted(
    f"{path.parent.name}/{path.stem}" for path in (config_folder() / "experiment").glob("deeplabv3_table*/*.yaml")
)
CATEGORIES = [Category(number, f"category {number}", is_thing=False) for number in range(21)]


def compose(name):
    return resolved(load_config("train", [f"experiment={name}", "data.root=somewhere"]))


@pytest.mark.parametrize(
    ("name", "crop", "steps", "rate"),
    [
        ("deeplabv3_voc", 513, 30_000, 0.007),
        ("deeplabv3_voc_cascade", 513, 30_000, 0.007),
        ("deeplabv3_voc_os8", 513, 30_000, 0.001),
        ("deeplabv3_cityscapes", 769, 90_000, 0.007),
    ],
)
def test_the_schedule_is_that_of_section_4_and_appendix_c(name, crop, steps, rate):
    config = compose(name)
    train = config["data"]["train_transform"]
    assert (train["size"], train["scale"], train["colour"]) == ([crop, crop], [0.5, 2.0], 0)
    assert config["data"]["batch_size"] == 16
    assert (config["trainer"]["max_steps"], config["trainer"]["max_epochs"]) == (steps, -1)
    optimizer = {key: value for key, value in config["optimizer"].items() if not key.startswith("_")}
    assert optimizer == {"lr": rate, "momentum": 0.9, "weight_decay": 4e-5}
    assert config["scheduler"]["_target_"] == "panoptic.training.schedules.poly"
    assert (config["scheduler"]["power"], config["scheduler"]["warmup_steps"]) == (0.9, 0)
    assert config["batch_norm"]["momentum"] == pytest.approx(1 - 0.9997)


def test_the_models_are_the_best_of_tables_4_and_6():
    aspp, cascade = compose("deeplabv3_voc"), compose("deeplabv3_voc_cascade")
    parts = {name: c["backbone"] for name, c in (("aspp", aspp), ("cascade", cascade))}
    chosen = {name: (b["name"], b["num_blocks"], b["multi_grid"], b["output_stride"]) for name, b in parts.items()}
    assert chosen == {"aspp": ("resnet101", 4, [1, 2, 4], 16), "cascade": ("resnet101", 7, [1, 2, 1], 16)}
    assert (aspp["decoder"]["rates"], aspp["decoder"]["image_pooling"]) == ([6, 12, 18], True)
    assert cascade["decoder"]["aspp"] is False


def test_the_second_stage_has_the_first_ones_parameters_at_stride_8_with_frozen_batch_norm():
    first, second = compose("deeplabv3_voc"), compose("deeplabv3_voc_os8")
    with torch.device("meta"):
        networks = [build_network(config, CATEGORIES, ImageStatistics()) for config in (first, second)]
    shapes = [{name: value.shape for name, value in network.state_dict().items()} for network in networks]
    assert shapes[0] == shapes[1]
    assert (first["backbone"]["output_stride"], second["backbone"]["output_stride"]) == (16, 8)
    assert (first["batch_norm"]["frozen"], second["batch_norm"]["frozen"]) == (False, True)
    train = second["data"]["train"]
    assert train["dataset"]["split"] == "trainval"
    assert set(train["categories"]) == {"bicycle", "chair", "diningtable", "pottedplant", "sofa"}
    assert train["times"] == 1


@pytest.mark.parametrize(
    "experiment",
    [pytest.param(name, marks=pytest.mark.slow) for name in SMALL]
    + [pytest.param(name, marks=pytest.mark.very_slow) for name in ROWS if "frozen" not in name],
)
def test_small_versions_train_and_validate(experiment):
    check_two_steps(experiment, "data.train.size=[49,65]")
