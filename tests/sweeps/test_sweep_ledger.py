"""The ledger: who owns a trial, and when another process may take it."""

import json
import subprocess
import sys

import pytest

from panoptic.sweeps.ledger import Ledger, read_ledger

DECIDING = {"method": "grid", "parameters": {"x": {"values": [1, 2]}, "seed": {"values": [0]}}}


def draw(trials):
    return {"x": len(trials)} if len(trials) < 3 else None


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(tmp_path)
    yield opened
    opened.close()


def test_trials_are_drawn_one_after_the_other_until_there_are_none(ledger):
    taken = [ledger.claim(draw, None) for _ in range(4)]
    assert [trial and (trial.id, trial.parameters, trial.state, trial.attempt) for trial in taken] == [
        (1, {"x": 0}, "running", 1),
        (2, {"x": 1}, "running", 1),
        (3, {"x": 2}, "running", 1),
        None,
    ]


def test_max_trials_counts_all_trials_of_the_folder(ledger):
    first = ledger.claim(draw, 2)
    ledger.record(first, state="failed", error="no")
    assert ledger.claim(draw, 2).id == 2
    assert ledger.claim(draw, 2) is None


def test_a_running_trial_of_a_living_process_is_left_alone(ledger, tmp_path):
    ledger.claim(draw, None)
    other = Ledger(tmp_path)
    assert other.claim(draw, None).id == 2
    other.close()


def test_a_trial_of_a_killed_process_is_taken_again(ledger, tmp_path):
    code = f"""if True:
        import os, signal
        from pathlib import Path
        from panoptic.sweeps.ledger import Ledger
        ledger = Ledger(Path({str(tmp_path)!r}))
        ledger.claim(lambda trials: {{"x": 7}}, None)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert ledger.trials()[0].state == "running"
    again = ledger.claim(draw, None)
    assert (again.id, again.parameters, again.attempt) == (1, {"x": 7}, 2)


def test_an_attempt_that_was_taken_away_cannot_write_any_more(ledger, tmp_path):
    other = Ledger(tmp_path)
    lost = other.claim(draw, None)
    other.close()
    again = ledger.claim(draw, None)
    assert again.id == lost.id
    other = Ledger(tmp_path)
    assert not other.record(lost, state="done", metrics={"val_pq": 1.0})
    assert ledger.record(again, state="done", metrics={"val_pq": 2.0}, history=[2.0])
    assert not ledger.record(again, state="failed")
    other.close()
    assert [(trial.state, trial.metrics, trial.history) for trial in ledger.trials()] == [
        ("done", {"val_pq": 2.0}, [2.0])
    ]


def test_a_pending_trial_comes_before_new_ones(ledger):
    first, second = ledger.claim(draw, None), ledger.claim(draw, None)
    ledger.record(first, state="pending")
    assert ledger.claim(draw, None).id == first.id
    assert second.id == 2


def test_failed_trials_can_be_taken_again(ledger):
    first = ledger.claim(draw, 1)
    ledger.record(first, state="failed", error="no")
    assert ledger.claim(draw, 1) is None
    assert ledger.retry_failed() == 1
    again = ledger.claim(draw, 1)
    assert (again.id, again.attempt, again.error) == (1, 2, None)


def test_an_error_of_the_engine_leaves_the_ledger_usable(ledger):
    def fail(trials):
        raise ValueError("no more points")

    with pytest.raises(ValueError, match="no more points"):
        ledger.claim(fail, None)
    assert ledger.claim(draw, None).id == 1


def test_another_sweep_in_the_same_folder_is_refused_with_what_differs(ledger, tmp_path):
    ledger.adopt(DECIDING, tmp_path / "a.yaml")
    ledger.adopt(DECIDING, tmp_path / "a.yaml")
    other = json.loads(json.dumps(DECIDING))
    other["parameters"]["x"]["values"] = [1, 3]
    del other["parameters"]["seed"]
    message = (
        r"another sweep, .*a.yaml: parameters.x.values is \[1, 2\] there and \[1, 3\] in the file; parameters.seed is"
    )
    with pytest.raises(ValueError, match=message):
        ledger.adopt(other, tmp_path / "b.yaml")
    assert read_ledger(tmp_path)[:2] == (DECIDING, tmp_path / "a.yaml")


def test_a_ledger_of_another_version_is_refused(ledger, tmp_path):
    ledger.adopt(DECIDING, tmp_path / "a.yaml")
    ledger._database.execute("UPDATE sweep SET value = '99' WHERE key = 'version'")
    with pytest.raises(ValueError, match="has version 99, expected 1; use a new --folder"):
        ledger.adopt(DECIDING, tmp_path / "a.yaml")


def test_a_folder_without_ledger_or_sweep_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not the folder of a sweep: it has no ledger.sqlite"):
        read_ledger(tmp_path)
    Ledger(tmp_path).close()
    with pytest.raises(ValueError, match=r"has no sweep yet; run panoptic sweep"):
        read_ledger(tmp_path)


def test_a_file_that_is_no_ledger_is_named(tmp_path):
    (tmp_path / "ledger.sqlite").write_text("no database " * 100)
    for open_it in (read_ledger, Ledger):
        with pytest.raises(ValueError, match=r"ledger.sqlite cannot be read as a ledger: file is not a database"):
            open_it(tmp_path)
