"""Every configuration composes and builds; wrong ones say what is wrong."""

import re

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from panoptic.assembly import build_data, build_module, try_out
from panoptic.configuration import config_folder, load_config, resolved
from panoptic.instantiation import build
from panoptic.structures import RECTANGLE, STAR

pytestmark = pytest.mark.slow

CONF = config_folder()
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
# Feature pyramids and the heads that read them are crossed in test_pyramid_conf.py.
DECODERS = sorted(path.stem for path in (CONF / "decoder").glob("*.yaml") if not path.stem.startswith("fpn"))
HEADS = ["deeperlab", "deeperlab_small", "semantic"]
CHOICES = sorted(
    (path.parent.name, path.stem)
    for path in CONF.glob("*/*.yaml")
    if path.parent.name not in ("experiment", "head", "from", "to")
)


def compose(*overrides):
    return resolved(load_config("train", overrides))


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_of_every_group_composes(group, choice):
    extra = ["data.root=somewhere"] if group == "data" and choice != "scenes" else []
    assert compose(f"{group}={choice}", *extra)


MASK_RCNN = [f"instances_{term}" for term in ("rpn_objectness", "rpn_box", "class", "box", "mask")]
DEEPERLAB = ["semantic_cross_entropy", "heatmap_cross_entropy"]
DEEPERLAB += [f"{head}_l1" for head in ("short_range", "middle_range", "long_range")]
LOSSES = {
    "deeperlab": DEEPERLAB,
    "deeplabv3": ["semantic_cross_entropy"],
    "balancing": DEEPERLAB,
    "mask_rcnn": MASK_RCNN,
    "oanet_camvid": [*MASK_RCNN, "semantic_cross_entropy"],
    "oanet": ["semantic_cross_entropy", *MASK_RCNN, "ranking_cross_entropy"],
    "fusion_scheme": ["semantic_cross_entropy", *MASK_RCNN],
}
"""Of the experiments whose names begin so; the first that fits."""


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_builds_its_network_on_scenes(experiment):
    is_on_scenes = experiment.endswith("scenes") or experiment == "balancing_comparison"
    config = compose(f"experiment={experiment}", *([] if is_on_scenes else ["data.root=somewhere"]))
    scenes = compose("data.train.length=16", "data.val.length=2", "data.num_workers=0")["data"]
    config["data"] = scenes
    data = build_data(config)
    module = build_module(config, data)
    family = next(family for family in LOSSES if experiment.startswith(family))
    assert module.network.loss_names == LOSSES[family]


@pytest.mark.parametrize(
    "group", ["optimizer", "scheduler", "lr_scaling", "fusion", "balancing", "logger", "callbacks", "sharing"]
)
def test_every_leaf_of_a_group_instantiates(group):
    known = {"losses_of_heads": {"one": ["one_loss"]}} if group == "balancing" else {}
    for path in sorted((CONF / group).glob("*.yaml")):
        build(compose(f"{group}={path.stem}")[group], **known)


@pytest.mark.parametrize("graph", [STAR, RECTANGLE])
def test_a_keypoint_graph_is_chosen_by_name(graph):
    assert build(compose(f"keypoints={graph.name}")["keypoints"]["graph"]) == graph


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["deeperlab_nuclei", "deeperlab_scenes", "deeperlab_wider_mnv2"])
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("heads", HEADS)
def test_an_experiments_parts_are_exchanged_by_one_word_each(experiment, decoder, heads):
    fusion = "fusion=semantic" if heads == "semantic" else "fusion=bottom_up"
    choices = [f"experiment={experiment}", f"decoder={decoder}", f"heads={heads}", fusion, "data=scenes"]
    config = compose(*choices, "data.train.length=16", "data.num_workers=0")
    try_out(build_module(config, build_data(config)))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.max_epochs=abc", "expected a whole number for trainer.max_epochs, got 'abc'"),
        ("optimizer.lr=high", "expected a number for optimizer.lr, got 'high'"),
        ("channels_last=maybe", "expected true or false for channels_last, got 'maybe'"),
        ("data.train.size=5", "expected a list for data.train.size, got 5"),
        ("experiment", "expected key=value, got 'experiment'"),
        ("max_images=many", "expected a whole number for max_images, got 'many'; the default is max_images=null"),
        ("scheduler.warmup_images=1.5", "expected a whole number for scheduler.warmup_images, got 1.5"),
        ("trainer.max_steps=1e5", "expected a whole number for trainer.max_steps, got 100000.0"),
    ],
)
def test_a_value_of_the_wrong_kind_names_its_key(override, message):
    with pytest.raises(ValueError, match=message):
        load_config("train", [override])


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["experiment=deeperlab_scenes", "trainer.max_epochs=3", "optimizer.lr=1"],
        ["scheduler=step", "scheduler.milestones=[0.5]", "trainer.profiler=simple", "trainer.limit_val_batches=3"],
        ["data.train.size=[48,64]", "+data.eval_batch_size=2", "++name=mine", "~trainer.gradient_clip_val"],
        ["~callbacks", "~data.test", "~data.num_workers=2", "heads={semantic:{filters:8}}", "run='a=b,c'"],
        ["trainer.limit_train_batches=0.5", "data.val.difficulty=hard", "+trainer.deterministic=true", "run=null"],
        ["head@heads.semantic=heatmap", "heads.semantic.filters=8", "logger=[csv,tensorboard]"],
        ["trainer.max_epochs=1", "trainer.max_epochs=2", "+data={eval_batch_size:4}"],
    ],
)
def test_one_composition_and_changes_give_what_hydra_gives(overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        expected = hydra_compose("train", overrides)
    assert OmegaConf.to_container(load_config("train", overrides)) == OmegaConf.to_container(expected)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+seed=1", "seed is there already; write seed=1"),
        ("~trainer.speed", "could not delete 'trainer.speed', which is not a key, did you mean 'trainer'?"),
        ("~seed=1", "could not delete seed=1: its value is 0; write ~seed"),
        ("seed=1,2", "expected one value for seed, got 'seed=1,2'; panoptic sweep runs several"),
        ("seed@here=1", "could not override 'seed@here=1': 'seed' is no group"),
        ("seed.deep=1", "'seed.deep' is not a key"),
        ("hydra.verbose=true", "could not override 'hydra.verbose'; 'hydra.verbose' is not a key"),
    ],
)
def test_a_change_that_cannot_be_made_says_why(override, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load_config("train", [override])


@pytest.mark.parametrize("key", ["trainer.max_epochs", "trainer.max_steps"])
def test_two_ends_of_training_contradict_each_other(key):
    message = rf"expected {key} or max_images, got both; give max_images=null, or leave out {key}"
    with pytest.raises(ValueError, match=message):
        load_config("train", ["max_images=800", f"{key}=3"])
    load_config("train", ["max_images=800", f"{key}=-1"])
    load_config("train", ["max_images=800", "experiment=deeperlab_scenes"])  # has a max_epochs, which is replaced


def test_paths_of_ones_own_data_replace_those_below_the_root():
    config = compose("data=coco_panoptic", "data.root=here", "data.train.panoptic_json=there/train.json")
    assert config["data"]["train"]["panoptic_json"] == "there/train.json"
    assert config["data"]["val"]["panoptic_json"] == "here/annotations/panoptic_val2017.json"


def test_the_weight_of_any_loss_may_be_given():
    assert compose("heads=semantic", "loss_weights.semantic_cross_entropy=2")["loss_weights"] == {
        "semantic_cross_entropy": 2
    }


def test_the_papers_heads_bring_starting_weights():
    starting = {"heatmap": 4.0, "semantic": 2.0, "short": 1.0, "middle": 0.25, "long": 0.125}  # PersonLab's
    weights = compose("heads=deeperlab")["loss_weights"]
    assert {name.split("_")[0]: weight for name, weight in weights.items()} == starting
    assert compose("heads=semantic", "fusion=semantic")["loss_weights"] == {}


def test_a_misspelt_experiment_names_the_nearest():
    with pytest.raises(ValueError, match="no experiment 'deeperlab_scene', did you mean 'deeperlab_scenes'"):
        load_config("train", ["experiment=deeperlab_scene"])


def test_a_misspelt_key_names_the_nearest():
    with pytest.raises(ValueError, match=r"'trainer.max_epoch' is not a key, did you mean 'trainer.max_epochs'"):
        load_config("train", ["trainer.max_epoch=3"])


def test_a_loss_weight_without_a_loss_lists_the_losses():
    config = compose("backbone.name=test_resnet", "data.num_workers=0", "loss_weights.semantic_ce=2")
    with pytest.raises(ValueError, match=r"loss_weights names \['semantic_ce'\], but heads produce \['heatmap_"):
        build_module(config, build_data(config))


def test_a_folder_of_the_users_own_is_searched(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nname: mine\nbackbone: {name: test_resnet}\n"
    )
    config = load_config("train", ["experiment=mine"], str(tmp_path))
    assert config.name == "mine"
    assert config.backbone.name == "test_resnet"


def test_a_head_of_the_users_own_trains_beside_ours():
    config = compose("backbone.name=test_resnet", "data.num_workers=0", "heads=semantic", "fusion=semantic")
    config["heads"]["mine"] = {"_target_": "own_head.OwnHead", "_partial_": True}
    module = build_module(config, build_data(config))
    assert module.network.loss_names == ["semantic_cross_entropy", "mine_brightness"]


def test_a_config_dir_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        load_config("train", [], str(tmp_path / "none"))


def test_printing_a_configuration_gives_yaml_that_reads_back():
    config = load_config("train", ["experiment=deeperlab_scenes"])
    assert OmegaConf.create(OmegaConf.to_yaml(config)) == config


def test_a_backbone_of_another_family_has_the_levels_of_its_strides():
    for name in ("convnext_atto", "resnet18", "mobilenetv2_100", "regnetx_002"):
        backbone = build({**compose()["backbone"], "name": name})
        assert list(backbone.channels)[-4:] == ["c2", "c3", "c4", "c5"]
        assert backbone.strides["c2"] == 4
        assert backbone.strides["c5"] == 16
