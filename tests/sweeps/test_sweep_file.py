"""What a sweep file may say, and what is said about one that is wrong."""

import pytest
import yaml
from sweep_makers import compose_nothing, stub_sweep, write_sweep

import sweeps
from panoptic.__main__ import main
from panoptic.configuration import config_folder, load_config
from panoptic.sweeps.sweep_file import read_sweep_file

pytestmark = pytest.mark.slow

FILES = sorted((config_folder().parent / "sweeps").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_of_the_repository_is_a_sweep_of_this_package(path):
    sweep = read_sweep_file(path, load_config)
    assert sweep.config["name"] == path.stem
    assert sweep.metric == ("val_miou" if path.stem.startswith("deeplabv3") else "val_pq")


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_panoptic_sweep_takes_every_file_of_the_repository(path, capsys):
    assert main(["sweep", str(path), "--dry-run"]) == 0
    assert f"trials in runs/{path.stem}; the first one runs" in capsys.readouterr().out


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_of_the_repository_keeps_to_the_schema_of_wandb(path):
    config = yaml.safe_load(path.read_text())
    assert sweeps.schema_violations_from_proposed_config(config) == []
    assert len(sweeps.SweepConfig(config)["parameters"]) == len(config["parameters"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    "fault",
    [
        {"metod": "grid"},
        {"method": "grit"},
        {"metric": {"name": "val_pq", "goal": "maximise"}},
        {"early_terminate": {"type": "hyperband"}},
        {"parameters": {"seed": {"values": 3}}},
        {"parameters": {}},
    ],
    ids=str,
)
def test_the_schema_of_wandb_refuses_a_fault_in_any_file(path, fault):
    config = yaml.safe_load(path.read_text())
    if "metod" in fault:
        del config["method"]
    assert sweeps.schema_violations_from_proposed_config(config | fault)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metod": "grid"}, "unknown key metod, did you mean 'method'"),
        ({"metric": {"name": "val_pq", "gaol": "maximize"}}, "unknown key metric.gaol, did you mean 'goal'"),
        ({"early_terminate": {"type": "hyperband", "mini_iter": 1}}, "unknown key early_terminate.mini_iter, did you"),
        ({"parameters": {"x": {"vales": [1]}}}, "unknown key parameters.x.vales, did you mean 'values'"),
        ({"parameters": {"x": [1, 2]}}, "parameters.x: expected a mapping such as"),
        ({"parameters": [1]}, r"parameters: expected a mapping of names, got \[1\]"),
        ({"parameters": {"x": {"parameters": {"y": {"value": 1}}}}}, "nested parameters are not supported; write x.y"),
        (
            {"parameters": {"x": {"values": [1, None]}}},
            'null would be passed on as the text None; write the string "null"',
        ),
        ({"parameters": {"x": {"values": [{"a": 1}]}}}, "expected numbers, texts or lists, got"),
        ({"parameters": {"x": {"min": "1e-3", "max": 1.0}}}, r"parameters.x.min: '1e-3' is a text to yaml"),
        ({"parameters": {"x": {"values": 3}}}, "parameters.x is not W&B's"),
        ({"parameters": {"x": {"min": 3, "max": 2}}}, "x: min 3 is not less than max 2"),
        ({"parameters": None}, "'parameters' is a required property"),
        ({"method": None}, "'method' is a required property"),
        ({"method": "custom"}, "method custom has no engine here; use grid, random or bayes"),
        ({"method": "bayes", "metric": None}, "need a metric; add metric"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 1}, "metric": None}, "need a metric"),
        (
            {"parameters": {"x": {"min": 0.0, "max": 1.0}}},
            "parameters.x: method grid needs values, or whole min and max",
        ),
        ({"command": ["${progam}", "${args}"]}, r"unknown macro \$\{progam\}, did you mean 'program'"),
        ({"program": None}, "the file names no program; add program: panoptic"),
        ({"command": ["${program}"]}, "command passes no parameters on"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as raised:
        stub_sweep(tmp_path, {"x": [1]}, **changes)
    assert "stub.yaml" in str(raised.value)


def test_a_missing_file_names_the_nearest(tmp_path):
    write_sweep(tmp_path / "lambda.yaml", {"x": [1]})
    with pytest.raises(FileNotFoundError, match=r"no such sweep file: .*lamda.yaml, did you mean 'lambda.yaml'"):
        read_sweep_file(tmp_path / "lamda.yaml", compose_nothing)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: [", "is not valid yaml"),
        ("- grid", "expected a mapping with method and parameters, got list"),
        ("method: grid\nmethod: random", "key 'method' is given twice"),
    ],
)
def test_what_is_no_mapping_is_refused(tmp_path, text, message):
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_sweep_file(tmp_path / "sweep.yaml", compose_nothing)


def of_train(folder, parameters, *words):
    command = [
        "${interpreter}",
        "-m",
        "${program}",
        "train",
        "experiment=deeperlab_scenes",
        *words,
        "${args_no_hyphens}",
    ]
    path = write_sweep(folder / "train.yaml", parameters, program="panoptic", command=command)
    return read_sweep_file(path, load_config)


def test_parameters_of_train_are_those_of_its_configuration(tmp_path):
    sweep = of_train(
        tmp_path, {"keypoints": ["star", "rectangle"], "optimizer.lr": [0.1, 0.2], "data.train.size": [[48, 64]]}
    )
    assert list(sweep.config["parameters"]) == ["data.train.size", "keypoints", "optimizer.lr"]


@pytest.mark.parametrize(
    ("parameters", "words", "message"),
    [
        ({"optimizer.rl": [0.1]}, (), "optimizer.rl.*did you mean 'optimizer.lr'"),
        ({"keypoints": ["star", "rectangel"]}, (), "no keypoints 'rectangel', did you mean 'rectangle'"),
        ({"loss_weights.semantic_cross_entrpy": [1]}, (), "did you mean 'loss_weights.semantic_cross_entropy'"),
        ({"loss_weights.semantic_cross_entropy": [1, "two"]}, (), "expected numbers, got 'two'"),
        ({"seed": [0]}, ("experiment=deeperlab_scnes",), "deeperlab_scnes.*did you mean 'deeperlab_scenes'"),
        ({"seed": [0]}, ("--config-dir", "/nowhere"), "--config-dir /nowhere is not a folder"),
        ({"run": ["a"]}, (), "the command passes run=a; expected key=value, and no run= or resume="),
        ({"seed": [0]}, ("resume=auto",), "the command passes resume=auto; expected key=value, and no run= or resume="),
        ({"seed": [0]}, ("--seed=1",), "the command passes --seed=1; expected key=value"),
    ],
)
def test_parameters_that_train_does_not_have_are_named(tmp_path, parameters, words, message):
    with pytest.raises(ValueError, match=message) as raised:
        of_train(tmp_path, parameters, *words)
    assert "train.yaml" in str(raised.value)


def test_a_weight_that_the_command_lists_may_be_varied(tmp_path):
    assert of_train(tmp_path, {"loss_weights.mine_l1": [1, 2]}, "++loss_weights.mine_l1=1")
