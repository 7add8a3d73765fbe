"""Sweeps of real trainings, with images as small as they may be."""

import csv
import os
import signal
import time

import pytest
from sweep_makers import column, start, train_sweep

from panoptic.__main__ import main
from panoptic.run_folder import RUN_FOLDER_VARIABLE
from panoptic.sweeps.ledger import read_ledger

pytestmark = pytest.mark.slow


@pytest.mark.very_slow
def test_a_training_that_was_given_back_ends_like_one_that_was_not(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(RUN_FOLDER_VARIABLE, str(tmp_path / "leaked"))
    words = ["data.train.length=64", "trainer.max_epochs=2", "checkpoint_every=1", "data.num_workers=1"]
    path, folder = train_sweep(tmp_path / "tiny.yaml", {"trainer.log_every_n_steps": [3, 4]}, *words), tmp_path / "out"
    process = start(path, folder)
    while not list(folder.glob("trials/0001/run/checkpoints/step_*.ckpt")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert main(["sweep", str(path), "--folder", str(folder)]) == 0, capsys.readouterr().out
    assert "stopped by SIGTERM at step" in (folder / "trials" / "0001" / "log.txt").read_text()
    assert "going on from step" in (folder / "trials" / "0001" / "log_2.txt").read_text()
    given_back, other = read_ledger(folder)[2]
    assert (given_back.state, given_back.attempt, other.state, other.attempt) == ("done", 2, "done", 1)
    assert given_back.history == other.history
    assert len(other.history) == 3  # two epochs, and the best checkpoint
    quality = {name: value for name, value in other.metrics.items() if name.startswith("val_")}
    assert quality == {name: given_back.metrics[name] for name in quality}
    assert not (tmp_path / "leaked").exists()
    assert os.environ[RUN_FOLDER_VARIABLE] == str(tmp_path / "leaked")
    capsys.readouterr()
    assert main(["table", str(folder)]) == 0
    assert "trainer.log_every_n_steps=4  1" in capsys.readouterr().out


def test_a_trial_of_two_processes_is_one_trial_with_one_log(tmp_path, capsys):
    words = ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp"]
    path, folder = train_sweep(tmp_path / "ddp.yaml", {"seed": [0]}, *words), tmp_path / "out"
    assert main(["sweep", str(path), "--folder", str(folder)]) == 0, capsys.readouterr().out
    (trial,) = read_ledger(folder)[2]
    log = (folder / "trials" / "0001" / "log.txt").read_text()
    assert (trial.state, trial.attempt) == ("done", 1)
    assert column(folder, "SELECT state FROM events") == ["running", "done"]
    assert "MEMBER: 2/2" in log  # there were two processes
    assert [entry.name for entry in folder.glob("trials/*/run*")] == ["run"]
    with (folder / "trials" / "0001" / "run" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val_pq"]]
    assert len(rows) == len(trial.history) == 2  # the epoch's validation and that of the best checkpoint
