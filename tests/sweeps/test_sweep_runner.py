"""Running trials of the stub program."""

import json
import threading
import time
from pathlib import Path

import pytest
from sweep_makers import run_stub, stub_sweep

from panoptic.sweeps import runner as runner_module
from panoptic.sweeps.ledger import Ledger
from panoptic.sweeps.runner import Runner
from panoptic.sweeps.trial_process import processes_of

pytestmark = pytest.mark.slow


def test_every_trial_of_a_grid_is_run_once_with_its_metrics(tmp_path):
    trials, _ = run_stub(tmp_path, {"x": [1, 2], "seed": [0, 1], "epochs": [2]}, runner={"jobs": 2})
    assert sorted((t.parameters["x"], t.parameters["seed"]) for t in trials) == [(1, 0), (1, 1), (2, 0), (2, 1)]
    for trial in trials:
        x = trial.parameters["x"]
        assert (trial.state, trial.attempt) == ("done", 1)
        assert trial.history == [x, x + 1]
        assert trial.metrics == {"epoch": 1.0, "train_loss": 0.5, "val_pq": x + 1, "val_pc": 10 * x}
        assert (tmp_path / "out" / "trials" / f"{trial.id:04d}" / "log.txt").is_file()


def test_a_crash_is_recorded_with_its_last_lines_and_the_rest_goes_on(tmp_path):
    trials, _ = run_stub(tmp_path, {"x": [1, 2], "end": ["crash", "well"]})
    assert sorted((t.parameters["end"], t.state) for t in trials) == [("crash", "failed")] * 2 + [("well", "done")] * 2
    error = next(trial.error for trial in trials if trial.state == "failed")
    assert error.startswith("exit status 1; the end of ")
    assert "Traceback" in error
    assert error.splitlines()[-1].startswith("RuntimeError: stub crashed at ")


def test_equal_failures_in_a_row_end_the_sweep_with_their_error(tmp_path):
    with pytest.raises(
        ValueError, match=r"3 trials in a row failed alike, the last one, 3, with exit status 1(.|\n)*x=3"
    ):
        run_stub(tmp_path, {"x": [1, 2, 3, 4, 5], "end": ["crash"]})
    trials = Ledger(tmp_path / "out").trials()
    assert [trial.state for trial in trials] == ["failed"] * 3


def test_a_success_between_them_makes_failures_not_in_a_row(tmp_path):
    # trials in the order of the grid: crash 1, well 1, crash 2, ..
    parameters = {"x": [1, 2, 3, 4], "end": ["crash", "well"]}
    trials, _ = run_stub(tmp_path, parameters, runner={"max_failures": 5})
    assert sum(trial.state == "failed" for trial in trials) == 4


def test_a_trial_without_the_metric_has_failed(tmp_path):
    trials, _ = run_stub(tmp_path, {"x": [1], "end": ["silent"]})
    assert trials[0].state == "failed"
    assert "exit status 0, but" in trials[0].error
    assert "has no val_pq" in trials[0].error


def test_a_program_that_is_missing_is_a_failed_trial(tmp_path):
    trials, _ = run_stub(tmp_path, {"x": [1]}, command=["/nowhere/program", "${args}"])
    assert trials[0].error.startswith("could not be started: ")


def test_the_run_folder_of_the_sweep_itself_does_not_reach_its_trials(tmp_path, monkeypatch):
    monkeypatch.setenv("PANOPTIC_RUN_FOLDER", "/elsewhere")
    monkeypatch.setenv("OTHER", "1")
    run_stub(tmp_path, {"x": [1]}, runner={"leave_out": ("PANOPTIC_RUN_FOLDER",)})
    names = json.loads((tmp_path / "out" / "trials" / "0001" / "run" / "environment.json").read_text())
    assert "PANOPTIC_RUN_FOLDER" not in names
    assert "OTHER" in names


def test_the_target_ends_the_sweep(tmp_path):
    metric = {"name": "val_pq", "goal": "maximize", "target": 2.0}
    trials, _ = run_stub(tmp_path, {"x": [1, 2, 3]}, metric=metric)
    assert [trial.parameters["x"] for trial in trials] == [1, 2]


def test_random_search_is_the_same_in_every_folder(tmp_path):
    drawn = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        changes = {"method": "random", "parameters": {"x": {"min": 0.0, "max": 1.0}}}
        trials, _ = run_stub(tmp_path / name, {}, runner={"max_trials": 3}, **changes)
        drawn.append([trial.parameters["x"] for trial in trials])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 3


def test_bayes_runs_on_failed_and_finished_trials(tmp_path):
    changes = {"method": "bayes", "parameters": {"x": {"min": 0.0, "max": 9.0}, "end": {"values": ["well", "crash"]}}}
    trials, _ = run_stub(tmp_path, {}, runner={"max_trials": 5, "max_failures": 9}, **changes)
    assert len({trial.parameters["x"] for trial in trials}) == 5
    assert {trial.state for trial in trials} <= {"done", "failed"}


def test_hyperband_ends_the_trials_that_fall_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(runner_module, "POLL_SECONDS", 0.05)
    # x = 9 runs first and sets the thresholds; x = 1 is below the best third after two epochs of twenty
    changes = {"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 3}}
    trials, _ = run_stub(tmp_path, {"x": [9, 1], "epochs": [20], "seconds": [0.1]}, runner={}, **changes)
    assert [(trial.parameters["x"], trial.state) for trial in trials] == [(9, "done"), (1, "stopped")]
    assert 1 < len(trials[1].history) < 20


def interrupted(folder, parameters, *, times=1):
    """Run a sweep in a thread and interrupt it when its first trial runs; returns trials and seconds until the end."""
    sweep = stub_sweep(folder, parameters)
    ledger = Ledger(folder / "out")
    ledger.adopt(sweep.deciding, sweep.path)
    runner = Runner(sweep, ledger, folder / "out", report=lambda line: None)
    begun = []

    def interrupt():
        while not list((folder / "out").rglob("environment.json")):
            time.sleep(0.02)
        begun.append(time.monotonic())
        for _ in range(times):
            runner.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    runner.run()
    seconds = time.monotonic() - begun[0]
    thread.join()
    trials = ledger.trials()
    ledger.close()
    return trials, seconds


def test_an_interrupted_sweep_gives_its_trial_back_and_goes_on(tmp_path):
    trials, _ = interrupted(tmp_path, {"x": [1, 2], "seconds": [1.0]})
    assert [trial.state for trial in trials] == ["pending"]
    assert processes_of(tmp_path / "out" / "trials" / "0001") == []
    trials, _ = run_stub(tmp_path, {"x": [1, 2], "seconds": [1.0]})
    assert [(trial.state, trial.attempt, trial.history) for trial in trials] == [("done", 2, [1.0]), ("done", 1, [2.0])]


def test_a_trial_that_does_not_end_is_killed_at_the_second_interrupt(tmp_path):
    trials, seconds = interrupted(tmp_path, {"x": [1], "seconds": [60], "end": ["deaf"]}, times=2)
    assert [trial.state for trial in trials] == ["pending"]
    assert seconds < runner_module.END_SECONDS / 2


def test_a_trial_that_does_not_end_is_killed_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(runner_module, "END_SECONDS", 0.5)
    trials, seconds = interrupted(tmp_path, {"x": [1], "seconds": [60], "end": ["deaf"]})
    assert [trial.state for trial in trials] == ["pending"]
    assert seconds > 0.5
    assert processes_of(Path(tmp_path / "out" / "trials" / "0001")) == []
