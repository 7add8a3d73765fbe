"""Signals in a real training: it ends between two steps, says where, and a resume ends as if nothing had happened."""

import os
import signal
import stat

import pytest
from killed_training import differences, end_of, train

from panoptic.checkpoints import read_checkpoint
from panoptic.training.module import PanopticModule

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def train_with_signal(monkeypatch, folder, number, *overrides, place="training_step", count=7):
    """The exit status; the process gets the signal when a method is called for the `count`-th time."""
    original, calls = getattr(PanopticModule, place), []

    def with_signal(self, *arguments):
        calls.append(place)
        if len(calls) == count:
            os.kill(os.getpid(), number)
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(PanopticModule, place, with_signal)
        return train(folder, *overrides)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_run_between_two_steps(tmp_path, monkeypatch, capsys, whole, number):
    handler = signal.getsignal(number)
    assert train_with_signal(monkeypatch, tmp_path / "run", number) == 128 + number
    assert signal.getsignal(number) == handler
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    said = f"stopped by {signal.Signals(number).name} at step 7; resume=auto goes on from {last}"
    assert said in capsys.readouterr().out
    assert read_checkpoint(last)["global_step"] == 7
    assert train(tmp_path / "run", "resume=auto") == 0
    assert differences(end_of(tmp_path / "run"), whole) == []


def test_gradients_are_not_cut_off_from_their_step(tmp_path, monkeypatch):
    overrides = ["trainer.accumulate_grad_batches=2"]
    assert train(tmp_path / "whole", *overrides) == 0
    assert train_with_signal(monkeypatch, tmp_path / "run", signal.SIGTERM, *overrides, count=6) == 143
    # 5 batches an epoch: the sixth begins the second epoch, and its step ends with the seventh
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 4
    assert train(tmp_path / "run", "resume=auto", *overrides) == 0
    assert differences(end_of(tmp_path / "run"), end_of(tmp_path / "whole")) == []


@pytest.mark.parametrize("overrides", [[], ["callbacks=moving_average"]], ids=["weights", "averaged weights"])
def test_a_signal_in_validation_loses_at_most_one_step(tmp_path, monkeypatch, capsys, overrides):
    assert train(tmp_path / "whole", *overrides) == 0
    arguments = {"place": "validation_step", "count": 2}
    assert train_with_signal(monkeypatch, tmp_path / "run", signal.SIGINT, *overrides, **arguments) == 130
    newest = tmp_path / "run" / "checkpoints" / "step_00000004.ckpt"
    assert f"stopped by SIGINT at step 5; resume=auto goes on from {newest}" in capsys.readouterr().out
    assert train(tmp_path / "run", "resume=auto", *overrides) == 0
    assert differences(end_of(tmp_path / "run"), end_of(tmp_path / "whole")) == []


def test_a_signal_before_the_first_checkpoint(tmp_path, monkeypatch, capsys, whole):
    def early(self, *arguments):
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(PanopticModule, "on_train_start", early)
        assert train(tmp_path / "run") == 143
    assert "stopped by SIGTERM at step 0; there is no checkpoint yet" in capsys.readouterr().out
    assert train(tmp_path / "run", "resume=auto") == 0
    assert differences(end_of(tmp_path / "run"), whole) == []


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """As within a job of SLURM, with a stand-in for its `scontrol`; the file that gets its arguments."""
    called, folder = tmp_path / "called", tmp_path / "bin"
    folder.mkdir()
    scontrol = folder / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {called}\nexit ${{SCONTROL_STATUS:-0}}\n')
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    job = {"JOB_ID": "4711", "JOB_NAME": "train", "NTASKS": "1", "NODELIST": "localhost"}
    for name, value in {**job, "PROCID": "0", "LOCALID": "0", "NODEID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return called


@pytest.mark.parametrize("array", [False, True])
def test_a_preempted_job_saves_asks_to_be_started_again_and_goes_on(tmp_path, monkeypatch, slurm, whole, array):
    if array:
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4700")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert train_with_signal(monkeypatch, tmp_path / "run", signal.SIGUSR1) == 0
    assert slurm.read_text() == ("requeue 4700_3\n" if array else "requeue 4711\n")
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    assert train(tmp_path / "run", "resume=auto") == 0
    assert differences(end_of(tmp_path / "run"), whole) == []


def test_a_job_that_cannot_be_started_again_says_so(tmp_path, monkeypatch, capsys, slurm):
    monkeypatch.setenv("SCONTROL_STATUS", "1")
    assert train_with_signal(monkeypatch, tmp_path / "run", signal.SIGUSR1) == 1
    assert "scontrol requeue 4711 failed with status 1" in capsys.readouterr().err


def test_the_folder_of_a_job_is_named_after_it(tmp_path, monkeypatch, slurm):
    from killed_training import SMALL

    from panoptic.__main__ import main

    monkeypatch.chdir(tmp_path)
    assert main(["train", *SMALL, "trainer.max_epochs=1"]) == 0
    assert (tmp_path / "runs" / "train-4711" / "checkpoints" / "last.ckpt").is_file()
