"""The process of a trial, and the metrics file that it writes."""

import os
import subprocess
import sys
import time

import pytest

from panoptic.sweeps.ledger import Trial
from panoptic.sweeps.metrics_file import last_values, read_metrics
from panoptic.sweeps.trial_process import FOLDER_VARIABLE, TrialProcess, kill_processes_of, kind_of_error, processes_of

TRIAL = Trial(1, "running", {}, 1)


def started(folder, code, *, attempt=1, **environment):
    trial = Trial(1, "running", {}, attempt)
    return TrialProcess(trial, [sys.executable, "-c", code], folder, leave_out=["SECRET"], extra=environment)


def status_of(process):
    while (status := process.exit_status()) is None:
        time.sleep(0.01)
    return status


def test_the_log_has_both_streams_and_the_environment_is_changed(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    code = "import os, sys; print('SECRET' in os.environ, os.environ['MORE']); sys.exit('bad end')"
    process = started(tmp_path, code, MORE="2")
    assert status_of(process) == 1
    assert process.log.read_text().split("\n")[:2] in (["False 2", "bad end"], ["bad end", "False 2"])
    assert process.error(1).splitlines()[-1] in ("bad end", "False 2")


def test_a_later_attempt_keeps_the_files_of_the_one_before(tmp_path):
    first, second = started(tmp_path, "print(1)"), None
    status_of(first)
    second = started(tmp_path, "print(2)", attempt=2)
    status_of(second)
    assert (first.log.read_text(), second.log.read_text()) == ("1\n", "2\n")
    assert (first.metrics_file, second.metrics_file) == (tmp_path / "run/metrics.csv", tmp_path / "run_2/metrics.csv")


def test_panoptic_train_has_one_run_folder_for_all_attempts(tmp_path):
    program = tmp_path / "panoptic"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    for attempt, log in ((1, "log.txt"), (2, "log_2.txt")):
        process = TrialProcess(Trial(1, "running", {}, attempt), [str(program), "train", "seed=1"], tmp_path)
        status_of(process)
        assert process.metrics_file == tmp_path / "run" / "metrics.csv"
        assert (tmp_path / log).read_text() == f"train seed=1 run={tmp_path / 'run'} resume=auto\n"


def test_only_the_first_process_of_a_trial_is_asked_to_end(tmp_path):
    code = """if True:
        import signal, subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), sys.exit(40 + (child.poll() is None))))
        print("ready", flush=True)
        time.sleep(60)
    """
    process = started(tmp_path, code)
    while process.log.read_text() != "ready\n":
        time.sleep(0.01)
    process.ask_to_end()
    assert status_of(process) == 41  # its child was still there
    assert processes_of(tmp_path) == []


def test_an_error_names_the_signal(tmp_path):
    process = started(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert process.error(status_of(process)).startswith("killed by SIGKILL; the end of ")


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        (
            ["panoptic train: no such file a", "(PANOPTIC_TRACEBACK=1 shows the traceback)"],
            "panoptic train: no such file a",
        ),
        (["CommError: refused", "\x1b[1;34mwandb\x1b[0m: Find logs at: run-a0vq8a6u", ""], "CommError: refused"),
        (["CommError: refused", "wandb: Find logs at: run-a0vq8a6u"], "CommError: refused"),
        (["wandb: ERROR no key"], "wandb: ERROR no key"),
    ],
)
def test_an_error_ends_with_its_own_last_line(tmp_path, lines, last):
    process = started(tmp_path, f"import sys; sys.exit({chr(10).join(lines)!r})")
    assert process.error(status_of(process)).splitlines()[-1] == last


def test_what_a_trial_leaves_running_is_ended_with_it(tmp_path):
    process = started(tmp_path, "import subprocess; subprocess.Popen(['sleep', '60'], start_new_session=True)")
    status_of(process)
    assert processes_of(tmp_path) == []


def test_what_a_dead_sweep_left_running_is_ended_before_the_next_attempt(tmp_path):
    orphan = subprocess.Popen(
        ["sleep", "60"], env=os.environ | {FOLDER_VARIABLE: str(tmp_path)}, start_new_session=True
    )
    other = subprocess.Popen(
        ["sleep", "60"], env=os.environ | {FOLDER_VARIABLE: f"{tmp_path}2"}, start_new_session=True
    )
    try:
        time.sleep(0.2)  # until both have become sleep
        process = started(tmp_path, "import time; time.sleep(60)", attempt=2)
        assert orphan.wait(10) == -9
        assert (process.exit_status(), other.poll()) == (None, None)
        process.ask_to_end()
        assert status_of(process) == -15
    finally:
        other.kill()
        other.wait()


def test_a_process_that_does_not_end_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("panoptic.sweeps.trial_process.processes_of", lambda folder: [2**22 + 1])  # no such process
    with pytest.raises(OSError, match=r"processes \[4194305\] of the trial in .* do not end"):
        kill_processes_of(tmp_path, seconds=0.05)


def test_errors_of_different_trials_are_alike_but_for_folder_and_numbers(tmp_path):
    first = kind_of_error(f"exit status 1\nValueError: {tmp_path}/1 has 17 images", tmp_path / "1")
    assert first == kind_of_error(f"exit status 1\nValueError: {tmp_path}/2 has 3 images", tmp_path / "2")
    assert first != kind_of_error("exit status 1\nKeyError: 3", tmp_path / "2")


def test_a_metrics_file_is_read_while_it_is_written(tmp_path):
    path = tmp_path / "metrics.csv"
    assert read_metrics(path) == []
    path.write_text("epoch,train_loss,val_pq\n0,2.5,\n0,,11.0\n1,,nan\n1,,12.")
    rows = read_metrics(path)
    assert rows[:2] == [{"epoch": 0.0, "train_loss": 2.5}, {"epoch": 0.0, "val_pq": 11.0}]
    assert len(rows) == 3
    assert str(last_values(rows)) == "{'epoch': 1.0, 'train_loss': 2.5, 'val_pq': nan}"


@pytest.mark.parametrize("text", ["", "epoch,val_pq", "epoch,val_pq\n", "epoch,val_pq\n1", "epoch,val_pq\n,\n"])
def test_a_metrics_file_without_values_has_none(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    assert last_values(read_metrics(tmp_path / "metrics.csv")) == {}
