"""Two hundred trainings by a sweep that is killed ten times: every trial ends once, and as if nothing had happened."""

import csv
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from sweep_makers import TINY, column, start, write_sweep

from panoptic.sweeps.ledger import read_ledger
from panoptic.sweeps.trial_process import FOLDER_VARIABLE

pytestmark = pytest.mark.very_slow

HERE = Path(__file__).parent
PROGRAM = [sys.executable, str(HERE / "forked" / "panoptic")]
TRAIN = ["train", "experiment=deeperlab_scenes", *TINY, "data.train.length=32", "checkpoint_every=1"]
TRIALS, KILLS = 200, 10


@pytest.fixture
def fork_server(tmp_path, monkeypatch):
    """One process that has imported everything; sweeps find it in the environment."""
    path = tmp_path / "socket"
    process = subprocess.Popen([sys.executable, str(HERE / "fork_server.py"), str(path)])
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.1)
    monkeypatch.setenv("FORK_SERVER", str(path))
    yield
    process.kill()
    process.wait()


def killed_at_random(path, folder, times):
    """Kill the sweep when it has started some more trials, again and again; returns the trials that ran then."""
    started, hit = "SELECT trial FROM events WHERE state = 'running'", []
    for _ in range(KILLS):
        wait_for = len(column(folder, started)) + times.randint(3, TRIALS // KILLS - 4)
        process = start(path, folder, "--jobs", "2")
        while len(column(folder, started)) < wait_for:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        time.sleep(times.uniform(0.0, 3.0))
        process.kill()
        process.communicate()
        hit += column(folder, "SELECT id FROM trials WHERE state = 'running'")
    return hit


def quality(path):
    """The last row of a metrics.csv that has a quality."""
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row["val_pq"]]
    return len(rows), {name: value for name, value in rows[-1].items() if name.startswith("val_")}


def test_two_hundred_trainings_end_once_though_the_sweep_is_killed_ten_times(tmp_path, fork_server):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    command = [*PROGRAM, *TRAIN, "${args_no_hyphens}"]
    path = write_sweep(tmp_path / "many.yaml", {"seed": list(range(TRIALS))}, program="panoptic", command=command)
    folder, begin = tmp_path / "out", time.monotonic()
    hit = killed_at_random(path, folder, random.Random(seed))
    process = start(path, folder, "--jobs", "2")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    trials = read_ledger(folder)[2]
    attempts = [trial.attempt for trial in trials]
    print(f"{len(trials)} trials, {KILLS} kills that met {len(hit)} running trials, {sum(attempts)} attempts, "
          f"at most {max(attempts)} of a trial, {time.monotonic() - begin:.0f} s")  # fmt: skip
    assert [trial.parameters["seed"] for trial in trials] == list(range(TRIALS))
    assert {trial.state for trial in trials} == {"done"}
    assert sorted(column(folder, "SELECT trial FROM events WHERE state = 'done'")) == list(range(1, TRIALS + 1))
    assert sorted(column(folder, "SELECT trial FROM events WHERE state = 'running'")) == sorted(
        trial.id for trial in trials for _ in range(trial.attempt)
    )
    assert column(folder, "PRAGMA integrity_check") == ["ok"]
    assert len(hit) >= KILLS
    assert sum(attempts) >= TRIALS + KILLS
    for trial in trials:
        run = folder / "trials" / f"{trial.id:04d}" / "run"
        assert yaml.safe_load((run / "config.yaml").read_text())["seed"] == trial.parameters["seed"]
        rows, values = quality(run / "metrics.csv")
        assert rows == len(trial.history) == 2  # the epoch's validation and that of the best checkpoint
        assert float(values["val_pq"]) == trial.metrics["val_pq"]
    logs = [path.read_text() for path in folder.glob("trials/*/log_*.txt")]
    gone_on = sum("going on from step" in log for log in logs)
    print(f"{gone_on} of {len(logs)} later attempts went on from a checkpoint")
    assert gone_on > 0
    for number in hit[:5]:  # as without a kill
        again = tmp_path / f"again_{number}"
        environment = os.environ | {FOLDER_VARIABLE: str(again)}
        subprocess.run([*PROGRAM, *TRAIN, f"seed={number - 1}", f"run={again}"], check=True, env=environment)
        assert quality(again / "metrics.csv") == quality(folder / "trials" / f"{number:04d}" / "run" / "metrics.csv")
