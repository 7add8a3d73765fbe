"""What is read in the command line of a trial, and what is added to it; test_wandb_agent.py compares it with W&B's."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from panoptic.sweeps.command import composition, macros_in, resumes, trial_line


def test_macros_are_named_without_environment_variables():
    assert macros_in(["${env}", "a=${envvar:HOME}", "${args}"]) == ["env", "args"]


def test_a_command_of_the_package_is_found_behind_its_interpreter():
    composed = composition(["/usr/bin/env", "python", "-m", "panoptic", "train", "--config-dir", "mine", "seed=1"])
    assert (composed.command, composed.overrides, composed.config_dir) == ("train", ["seed=1"], "mine")
    assert composition(["/venv/bin/panoptic", "evaluate", "run=a"]).command == "evaluate"
    assert composition(["python", "other.py", "train", "seed=1"]) is None


def test_train_alone_is_told_its_run_folder_and_to_go_on_in_it(tmp_path):
    line = ["panoptic", "train", "logger=csv"]
    assert trial_line(line, tmp_path) == [*line, f"run={tmp_path}", "resume=auto"]
    assert resumes(line)
    for other in (["python", "other.py"], ["panoptic", "evaluate", "run=a"]):
        assert trial_line(other, tmp_path) == other
        assert not resumes(other)


@pytest.mark.parametrize(
    ("words", "variable", "mode"),
    [
        ([], None, ["logger.wandb.mode=offline"]),
        ([], "online", ["logger.wandb.mode=online"]),
        (["logger.wandb.mode=disabled"], "online", []),
    ],
)
def test_wandb_needs_no_server_unless_it_is_asked_for(tmp_path, monkeypatch, words, variable, mode):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if variable is not None:
        monkeypatch.setenv("WANDB_MODE", variable)
    line = ["panoptic", "train", "logger=wandb", *words]
    assert trial_line(line, tmp_path) == [*line, f"run={tmp_path}", "resume=auto", *mode]


def test_hydra_reads_any_run_folder(tmp_path):
    for name in ("plain", "a b", "x=1,y=2", "it's", "[0]"):
        override = trial_line(["panoptic", "train"], tmp_path / name)[2]
        parsed = OverridesParser.create().parse_override(override)
        assert parsed.value() == str(tmp_path / name)
