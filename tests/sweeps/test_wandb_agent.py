"""Sweep files under W&B's own agent, with a stand-in for its server: the agent's code makes and starts the command."""

import multiprocessing
import os
import sys
from pathlib import Path

import pytest
import wandb
import yaml
from sweep_makers import TINY
from wandb import wandb_agent
from wandb.apis.public import sweeps as server
from wandb_records import read_records

from panoptic.configuration import config_folder
from panoptic.sweeps.command import MACROS, command_line
from panoptic.sweeps.engine import planned

FILES = sorted((config_folder().parent / "sweeps").glob("*.yaml"))
PARAMETERS = {"b.c": 0.5, "flag": True, "off": False, "name": "star", "size": [48, 64]}


@pytest.fixture
def agent(monkeypatch, tmp_path):
    """An agent that has read no sweep yet; its changes of the environment end with the test."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_DIR", "WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(name, str(tmp_path) if name == "WANDB_DIR" else "sweep1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(wandb_agent.Agent, "POLL_INTERVAL", 0.2)
    monkeypatch.setattr(wandb, "Api", object)
    return wandb_agent.Agent(object(), multiprocessing.Queue(), sweep_id="sweep1")


def order(program, parameters):
    """What the server sends to an agent for a trial."""
    args = {name: {"value": value} for name, value in parameters.items()}
    return {"type": "run", "id": "1", "run_id": "trial1", "program": program, "args": args}


def line_of_wandb(agent, command, program, parameters, monkeypatch):
    """The command line that the agent starts; its `python` is that of the path, ours is the running one."""
    started = []
    monkeypatch.setattr(wandb_agent, "AgentProcess", lambda command, **_: started.append(command) or object.__new__(_P))
    agent._sweep_command = list(command)
    response = agent._process_command(order(program, parameters))
    assert "exception" not in response, response
    return [sys.executable if word == "python" else word for word in started[0]]


class _P:
    """A process that the agent may keep a time at."""


@pytest.mark.parametrize("macro", [macro for macro in MACROS if macro.startswith("args")])
def test_every_macro_is_filled_in_as_the_agent_does(agent, macro, monkeypatch):
    monkeypatch.setenv("WHERE", "/data")
    command = ["${env}", "${interpreter}", "-m", "${program}", "train", "data.root=${envvar:WHERE}/x", f"${{{macro}}}"]
    theirs = line_of_wandb(agent, command, "panoptic", PARAMETERS, monkeypatch)
    assert command_line(command, "panoptic", PARAMETERS) == theirs


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_trial_of_the_repository_has_the_command_line_of_the_agent(agent, path, monkeypatch):
    config = yaml.safe_load(path.read_text())
    for parameters in planned(config, 99):
        theirs = line_of_wandb(agent, config["command"], config["program"], parameters, monkeypatch)
        assert command_line(config["command"], config["program"], parameters) == theirs


@pytest.mark.slow
def test_the_agent_runs_a_trial_that_reports_its_parameters_and_its_quality(agent, monkeypatch, tmp_path):
    config = yaml.safe_load((config_folder().parent / "sweeps" / "deeperlab_table6_keypoint_graph.yaml").read_text())
    parameters = planned(config, 99)[-1] | {"loss_weights.semantic_cross_entropy": 2.0}
    sent = config | {"command": [*config["command"], *TINY, "logger.wandb.mode=offline", "run=out"]}
    statuses = []

    def heartbeat(api, agent_id, metrics, run_states):
        statuses.append(dict(run_states))
        if len(statuses) == 1:
            return [order(config["program"], parameters)]
        return [] if run_states else [{"type": "exit"}]

    monkeypatch.setattr(server, "_sweep_with_runs", lambda *_: {"config": yaml.safe_dump(sent)})
    monkeypatch.setattr(server, "_register_agent", lambda *_, **__: {"id": "agent1"})
    monkeypatch.setattr(server, "_agent_heartbeat", heartbeat)
    agent.run()
    assert {"trial1": True} in statuses
    assert agent._failed == 0
    (file,) = (tmp_path / "out").rglob("*.wandb")
    found = list(read_records(file))
    assert [record.run.run_id for record in found if record.HasField("run")] == ["trial1"]
    given = {
        item.key: yaml.safe_load(item.value_json) for r in found for item in r.run.config.update if not item.nested_key
    }
    assert parameters.items() <= given.items()
    logged = {item.key or ".".join(item.nested_key) for r in found for item in r.history.item}
    assert config["metric"]["name"] in logged
