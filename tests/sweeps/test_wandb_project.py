"""Trials read from W&B's server, with stand-ins for it that have no method which the real classes lack."""

from unittest.mock import create_autospec

import pytest
import wandb
import yaml
from wandb.apis.public import Project, Run, Sweep

from panoptic.configuration import config_folder
from panoptic.sweeps.wandb_project import read_project
from panoptic.table import main

FILE = config_folder().parent / "sweeps" / "deeperlab_table6_keypoint_graph.yaml"
PARAMETERS = {"keypoints": {"values": ["star", "rectangle"]}, "weight": {"values": [0.5, 1.0]}}
# star: 10 11 15, rectangle: 9 11 13; differences rectangle - star: -1 0 -2
PQ = {"star": [10, 11, 15], "rectangle": [9, 11, 13]}


def made_run(config, metrics, state="finished", number=1):
    run = create_autospec(Run, instance=True)
    run.config, run.summary_metrics, run.state, run.id = config, metrics, state, f"run{number}"
    return run


def made_sweep(name, runs=(), sweep_id="abc"):
    sweep = create_autospec(Sweep, instance=True)
    sweep.config, sweep.runs, sweep.id = {"name": name, "parameters": {}}, list(runs), sweep_id
    return sweep


@pytest.fixture
def serve(monkeypatch):
    """Make W&B's server hold these sweeps in the project me/panoptic."""

    def hold(*sweeps):
        api = create_autospec(wandb.Api, instance=True)
        project = create_autospec(Project, instance=True)
        project.sweeps.return_value = sweeps
        api.project.side_effect = lambda name, entity: {("panoptic", "me"): project}[name, entity]
        api.sweep.side_effect = {f"me/panoptic/{sweep.id}": sweep for sweep in sweeps}.__getitem__
        monkeypatch.setattr(wandb, "Api", lambda: api)
        return api

    return hold


def test_runs_become_trials(serve):
    given = {"keypoints": "star", "weight": 1, "other": {"nested": 2}}
    metrics = {"val_pq": 20.5, "epoch": 3, "val_pc": "NaN", "picture": {"_type": "image"}, "name": "a", "flag": True}
    states = ["finished", "running", "failed", "crashed", "killed", "pending", "preempting", "preempted"]
    serve(made_sweep("s", [made_run(given, metrics, state) for state in states]))
    trials = read_project("me/panoptic/abc", "s", PARAMETERS)
    assert [trial.id for trial in trials] == list(range(1, 9))
    assert [trial.state for trial in trials] == [
        *("done", "running", "failed", "failed", "stopped", "pending", "pending", "pending")
    ]
    assert str(trials[0].parameters) == "{'keypoints': 'star', 'weight': 1.0}"  # 1.0 as in the file
    assert str(trials[0].metrics) == "{'val_pq': 20.5, 'epoch': 3.0, 'val_pc': nan}"


def test_the_sweep_is_found_by_its_name(serve):
    serve(made_sweep("other"), made_sweep("s", [made_run({"keypoints": "star", "weight": 0.5}, {})], sweep_id="def"))
    assert len(read_project("me/panoptic", "s", PARAMETERS)) == 1


@pytest.mark.parametrize("path", ["panoptic", "a/b/c/d", "me//abc", "me/panoptic/"])
def test_a_path_of_another_form_is_refused(path):
    with pytest.raises(ValueError, match=f"expected --wandb entity/project or entity/project/sweep, got '{path}'"):
        read_project(path, "s", PARAMETERS)


@pytest.mark.parametrize(
    ("sweeps", "message"),
    [
        ([("a", "1"), ("b", "2")], r"me/panoptic has no sweep with the name s; there are \['a', 'b'\]"),
        ([("s", "1"), ("s", "2")], "2 sweeps with the name s; choose one of me/panoptic/1, me/panoptic/2"),
    ],
)
def test_a_name_that_is_not_there_once_is_refused(serve, sweeps, message):
    serve(*[made_sweep(name, sweep_id=sweep_id) for name, sweep_id in sweeps])
    with pytest.raises(ValueError, match=message):
        read_project("me/panoptic", "s", PARAMETERS)


@pytest.mark.parametrize(
    ("config", "state", "message"),
    [
        ({"weight": 1}, "finished", "run run1 has no parameter keypoints; it is a trial of another sweep file"),
        ({"keypoints": "star", "weight": 1}, "lost", "run run1 has the unknown state 'lost'; expected one of"),
    ],
)
def test_a_run_that_is_no_trial_is_named(serve, config, state, message):
    serve(made_sweep("s", [made_run(config, {}, state)]))
    with pytest.raises(ValueError, match=message):
        read_project("me/panoptic/abc", "s", PARAMETERS)


@pytest.mark.parametrize("error", [wandb.errors.CommError("HTTP 404"), wandb.errors.UsageError("HTTP 404")])
def test_an_error_of_the_server_says_what_to_do(serve, error):
    serve().sweep.side_effect = error
    with pytest.raises(ValueError, match="cannot read me/panoptic/abc from W&B: HTTP 404; log in with wandb login, or"):
        read_project("me/panoptic/abc", "s", PARAMETERS)


def test_nobody_logged_in_is_an_error(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="cannot read me/panoptic/abc from W&B: No API key configured"):
        read_project("me/panoptic/abc", "s", PARAMETERS)


@pytest.mark.slow
def test_a_server_that_cannot_be_reached_is_an_error(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(wandb.Api, "_HTTP_TIMEOUT", 2)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(ValueError, match=r"cannot read me/panoptic/abc from W&B: .* http://127.0.0.1:9"):
        read_project("me/panoptic/abc", "s", PARAMETERS)


def test_the_table_of_a_project_is_that_of_the_ledger(serve, capsys):
    runs = [
        made_run({"keypoints": graph, "seed": seed}, {"val_pq": value, "val_pc": 2 * value})
        for graph, values in PQ.items()
        for seed, value in enumerate(values)
    ]
    serve(made_sweep(yaml.safe_load(FILE.read_text())["name"], runs))
    assert main([str(FILE), "--wandb", "me/panoptic", "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    assert "| Star | 3 | 12.00 ± 2.65 | 24.07 | 24.00 ± 5.29 | 48.23 |" in out
    assert "| Rectangle | 3 | -1.00 [-3.48, +1.48] | -0.53 |" in out


@pytest.mark.parametrize("arguments", [["runs/x"], [str(FILE), "--folder", "x"]])
def test_a_table_of_wandb_needs_the_sweep_file(arguments):
    with pytest.raises(ValueError, match=r"--wandb takes a sweep file and no --folder, got .*; pass sweeps/<name>"):
        main([*arguments, "--wandb", "me/panoptic"])
