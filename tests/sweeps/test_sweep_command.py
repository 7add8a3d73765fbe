"""The command line of a trial equals the one that W&B's agent makes of the same file."""

import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from panoptic.sweeps.command import MACROS, command_line, composition, macros_in, with_run_folder

PARAMETERS = {"b.c": 0.5, "flag": True, "off": False, "name": "star", "size": [48, 64]}


def line_of_wandb(command, program):
    """As `wandb.wandb_agent.Agent._command_run` puts it together."""
    words = create_sweep_command_args({"args": {name: {"value": value} for name, value in PARAMETERS.items()}})
    words |= {"env": ["/usr/bin/env"], "interpreter": [sys.executable], "program": [program]}
    line = []
    for word in create_sweep_command(list(command)):
        line += words[word[2:-1]] if word.startswith("${") and word.endswith("}") else [word]
    return line


@pytest.mark.parametrize("macro", [macro for macro in MACROS if macro.startswith("args")])
def test_every_macro_is_filled_in_as_wandb_does(macro, monkeypatch):
    monkeypatch.setenv("WHERE", "/data")
    command = ["${env}", "${interpreter}", "-m", "${program}", "train", "data.root=${envvar:WHERE}/x", f"${{{macro}}}"]
    assert command_line(command, "panoptic", PARAMETERS) == line_of_wandb(command, "panoptic")


def test_macros_are_named_without_environment_variables():
    assert macros_in(["${env}", "a=${envvar:HOME}", "${args}"]) == ["env", "args"]


def test_a_command_of_the_package_is_found_behind_its_interpreter():
    composed = composition(["/usr/bin/env", "python", "-m", "panoptic", "train", "--config-dir", "mine", "seed=1"])
    assert (composed.command, composed.overrides, composed.config_dir) == ("train", ["seed=1"], "mine")
    assert composition(["/venv/bin/panoptic", "evaluate", "run=a"]).command == "evaluate"
    assert composition(["python", "other.py", "train", "seed=1"]) is None


def test_train_alone_is_told_its_run_folder(tmp_path):
    assert with_run_folder(["panoptic", "train"], tmp_path) == ["panoptic", "train", f"run={tmp_path}"]
    assert with_run_folder(["python", "other.py"], tmp_path) == ["python", "other.py"]


def test_hydra_reads_any_run_folder(tmp_path):
    for name in ("plain", "a b", "x=1,y=2", "it's", "[0]"):
        override = with_run_folder(["panoptic", "train"], tmp_path / name)[-1]
        parsed = OverridesParser.create().parse_override(override)
        assert parsed.value() == str(tmp_path / name)
