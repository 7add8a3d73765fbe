"""A sweep that is killed again and again, and the command from end to end."""

import random
import signal
import time

import pytest
from sweep_makers import column, start, stub_sweep, write_sweep

from panoptic.__main__ import main
from panoptic.sweep import _progress
from panoptic.sweeps.ledger import Ledger, read_ledger
from panoptic.sweeps.runner import Runner

pytestmark = pytest.mark.slow


def test_every_trial_ends_once_however_often_the_sweep_is_killed(tmp_path):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    times = random.Random(seed)
    path = write_sweep(tmp_path / "stub.yaml", {"x": list(range(10)), "seed": [0, 1, 2], "seconds": [0.4], "long": [0]})
    folder, starts = tmp_path / "out", "SELECT trial FROM events WHERE state = 'running'"
    for _ in range(5):
        before = len(column(folder, starts))
        process = start(path, folder, "--jobs", "2")
        while len(column(folder, starts)) < before + 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        time.sleep(times.uniform(0.0, 1.5))
        process.kill()
        process.communicate()
    process = start(path, folder, "--jobs", "2")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    trials = read_ledger(folder)[2]
    grid = [(x, seed) for x in range(10) for seed in range(3)]
    assert sorted((trial.parameters["x"], trial.parameters["seed"]) for trial in trials) == grid
    # the stub fails where it runs twice at once; that none failed says that what was left running was ended first
    assert [(trial.state, trial.history) for trial in trials] == [("done", [trial.parameters["x"]]) for trial in trials]
    assert sum(trial.attempt for trial in trials) > 30  # the kills did hit running trials
    ends = column(folder, "SELECT trial FROM events WHERE state = 'done'")
    assert sorted(ends) == list(range(1, 31))


def test_two_processes_share_a_folder(tmp_path):
    path = write_sweep(tmp_path / "stub.yaml", {"x": list(range(6)), "seconds": [0.5]})
    both = [start(path, tmp_path / "out") for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    trials = read_ledger(tmp_path / "out")[2]
    assert [(trial.state, trial.attempt) for trial in trials] == [("done", 1)] * 6
    assert all("trial" in output for output in outputs)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_sweep_with_a_ledger_that_goes_on(tmp_path, number):
    path = write_sweep(tmp_path / "stub.yaml", {"x": [1, 2], "seconds": [3.0]})
    process = start(path, tmp_path / "out")
    while not list((tmp_path / "out").rglob("environment.json")):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "interrupted; the same command goes on" in output
    assert column(tmp_path / "out", "SELECT state FROM trials") == ["pending"]


def test_failed_trials_give_status_1_and_can_be_retried(tmp_path, capsys):
    arguments = ["sweep", str(write_sweep(tmp_path / "stub.yaml", {"x": [1], "end": ["silent"]}))]
    arguments += ["--folder", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "trial 1 failed: exit status 0, but" in capsys.readouterr().out
    assert main([*arguments, "--retry-failed"]) == 1
    assert "1 failed trials are run again" in capsys.readouterr().out
    assert read_ledger(tmp_path / "out")[2][0].attempt == 2


def test_a_dry_run_shows_the_trials_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_sweep(tmp_path / "stub.yaml", {"x": [1, 2], "seed": [0, 1, 2]})
    before = sorted(tmp_path.rglob("*"))
    assert main(["sweep", str(path), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["1", "seed=0", "x=1"]
    assert "6 trials in runs/stub; the first one runs" in out
    assert main(["sweep", str(path), "--dry-run", "--max-trials", "2"]) == 0
    assert "2 trials in" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


def test_a_search_without_end_needs_a_number_of_trials(tmp_path, capsys):
    path = write_sweep(tmp_path / "stub.yaml", {}, method="random", parameters={"x": {"min": 0.0, "max": 1.0}})
    assert main(["sweep", str(path)]) == 1
    assert "method random never ends by itself; pass --max-trials" in capsys.readouterr().err
    assert main(["sweep", str(path), "--dry-run", "--max-trials", "3"]) == 0


def test_another_file_in_the_same_folder_is_refused(tmp_path, capsys):
    folder = ["--folder", str(tmp_path / "out")]
    assert main(["sweep", str(write_sweep(tmp_path / "a.yaml", {"x": [1]})), *folder]) == 0
    assert main(["sweep", str(write_sweep(tmp_path / "b.yaml", {"x": [1, 2]})), *folder]) == 1
    assert "parameters.x.values is [1] there and [1, 2] in the file; choose another --folder" in capsys.readouterr().err


def test_time_left_is_the_mean_of_the_ended_trials_for_those_that_are_not(tmp_path):
    sweep = stub_sweep(tmp_path, {"x": [0, 1, 2, 3, 4, 5, 6]})
    ledger = Ledger(tmp_path / "out")
    for seconds, state in ((3600.0, "done"), (1800.0, "done"), (5.0, "failed")):
        trial = ledger.claim(lambda trials: {"x": len(trials)}, None)
        ledger.record(trial, state=state, ended=trial.started + seconds)
    runner = Runner(sweep, ledger, tmp_path / "out", jobs=2)
    # a failed one says nothing of the time: (3600 + 1800) / 2 = 2700 s; 7 - 3 trials, two at a time: 5400 s
    assert _progress(ledger, runner, None) == {"completed": 3, "text": "0 running, 1:30:00 left"}
    assert _progress(ledger, runner, 4)["text"] == "0 running, 0:22:30 left"
    ledger.close()
