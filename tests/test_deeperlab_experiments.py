"""DeeperLab's experiments: the paper's schedule at full size, and a step of training at small size."""

import pytest
import torch
from experiment_steps import check_two_steps

from panoptic.configuration import config_folder, load_config, resolved
from panoptic.models.build import build_network
from panoptic.structures import Category, ImageStatistics

pytestmark = pytest.mark.slow

VARIANTS = ("xception71", "wider_mnv2", "light_wider_mnv2")
SMALL = ["deeperlab_light_wider_mnv2_scenes", "deeperlab_wider_mnv2_scenes", "deeperlab_xception71_scenes"]
ROWS = sorted(
    f"{path.parent.name}/{path.stem}" for path in (config_folder() / "experiment").glob("deeperlab_table*/*.yaml")
)
CATEGORIES = [Category(number, f"category {number}", is_thing=number < 37) for number in range(65)]


def compose(*overrides):
    return resolved(load_config("train", overrides))


@pytest.mark.parametrize(("variant", "batch_size"), zip(VARIANTS, (16, 28, 28), strict=True))
def test_the_schedule_is_that_of_the_paper(variant, batch_size):
    config = compose(f"experiment=deeperlab_{variant}", "data.root=somewhere")
    data, trainer, semantic = config["data"], config["trainer"], config["heads"]["semantic"]
    assert data["train"]["_target_"] == "panoptic.data.mapillary.MapillaryVistas"
    assert (data["train"]["split"], data["val"]["split"]) == ("training", "validation")
    assert data["batch_size"] == batch_size
    train = data["train_transform"]
    assert (train["longest_side"], train["size"], train["scale"], train["colour"]) == (1441, [721, 721], [0.5, 2], 0)
    assert data["eval_transform"]["longest_side"] == 1441
    assert (trainer["max_steps"], trainer["max_epochs"]) == (500_000, -1)
    optimizer = {key: value for key, value in config["optimizer"].items() if not key.startswith("_")}
    assert optimizer == {"lr": 0.01, "momentum": 0.9, "weight_decay": 4e-5}
    assert config["optimizer"]["_target_"] == "torch.optim.SGD"
    assert config["scheduler"]["_target_"] == "panoptic.training.schedules.poly"
    assert (config["scheduler"]["power"], config["scheduler"]["warmup_steps"]) == (0.9, 0)
    assert config["keypoints"]["radius"] == 25
    constants = [semantic[key] for key in ("hard_pixel_fraction", "small_instance_weight", "small_instance_area")]
    assert constants == [0.15, 3, 64 * 64]
    filters = {name: head["filters"] for name, head in config["heads"].items()}
    assert filters.pop("semantic") == 256
    assert set(filters.values()) == {64}


def test_the_variants_are_those_of_table_1():
    configs = {name: compose(f"experiment=deeperlab_{name}", "data.root=somewhere") for name in VARIANTS}
    backbones = {name: (c["backbone"]["name"], c["backbone"]["kernel_size"]) for name, c in configs.items()}
    wider = ("mobilenetv2_100", 5)
    assert backbones == {"xception71": ("xception71", 3), "wider_mnv2": wider, "light_wider_mnv2": wider}
    decoders = {name: (c["decoder"]["filters"], c["decoder"]["kernel_size"]) for name, c in configs.items()}
    assert decoders == {"xception71": (256, 7), "wider_mnv2": (256, 7), "light_wider_mnv2": (128, 3)}
    assert all(config["decoder"]["aspp"] for config in configs.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_721_differs_in_the_input_at_inference_alone(variant):
    whole = compose(f"experiment=deeperlab_{variant}", "data.root=somewhere")
    half = compose(f"experiment=deeperlab_{variant}_721", "data.root=somewhere")
    assert half["data"]["eval_transform"].pop("longest_side") == 721
    assert whole["data"]["eval_transform"].pop("longest_side") == 1441
    assert half.pop("name") == whole.pop("name") + "_721"
    assert half == whole


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_full_size_networks_take_the_papers_inputs(variant):
    config = compose(f"experiment=deeperlab_{variant}", "data.root=somewhere")
    with torch.device("meta"):
        network = build_network(config, CATEGORIES, ImageStatistics()).eval()
    channels = {"semantic": 65, "heatmap": 5, "short_range": 10, "middle_range": 16, "long_range": 10}
    for size in ((721, 721), (1081, 1441)):
        padded = network.size_rule.pad(*size)
        assert all(side % 16 == 1 for side in padded)
        with torch.no_grad():
            outputs, _ = network(torch.zeros(1, 3, *padded, dtype=torch.uint8, device="meta"), [padded])
        quarter = tuple((side - 1) // 4 + 1 for side in padded)  # the decoder's stride is 4
        for name, count in channels.items():
            assert outputs[name].values.shape == (1, count, *quarter), name


@pytest.mark.parametrize(
    "words",
    [
        ["decoder=bilinear", "keypoints=rectangle"],
        ["heads=semantic", "fusion=semantic"],
        ["backbone=timm", "decoder=none", "optimizer=adamw"],
        ["scheduler=step", "callbacks=moving_average"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("data", ["data=scenes", "data=mapillary", "data=coco_panoptic"])
def test_each_part_is_exchanged_by_a_word(words, data):
    roots = [] if data == "data=scenes" else ["data.root=somewhere"]
    config = compose("experiment=deeperlab_wider_mnv2", data, *words, *roots)
    alone = compose(data, *words, *roots)
    for word in [data, *words]:
        group = word.partition("=")[0]
        target = alone[group]["graph"] if group == "keypoints" else alone[group].get("_target_")
        chosen = config[group]["graph"] if group == "keypoints" else config[group].get("_target_")
        assert chosen == target
        if group == "heads":
            assert list(config["heads"]) == ["semantic"]
        if group == "callbacks":
            assert "moving_average" in config["callbacks"]


@pytest.mark.parametrize(
    "experiment",
    [pytest.param(name, marks=pytest.mark.slow) for name in SMALL]
    + [pytest.param(name, marks=pytest.mark.very_slow) for name in ROWS],
)
def test_small_versions_train_and_validate(experiment):
    check_two_steps(experiment, "data.train.size=[49,65]")
