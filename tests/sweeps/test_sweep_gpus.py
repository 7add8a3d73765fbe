"""GPUs are dealt out to trials that run side by side."""

import json

import pytest
from sweep_makers import run_stub

from panoptic.sweeps import runner as runner_module
from panoptic.sweeps.gpus import DEVICES_VARIABLE, dealt, visible_gpus


def nvidia_smi(folder, monkeypatch, script):
    """A program of that name, alone on the path."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv(DEVICES_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("value", "gpus"),
    [("2,0", ["2", "0"]), (" GPU-8a , MIG-1 ", ["GPU-8a", "MIG-1"]), ("", []), ("-1", []), ("0,-1,1", ["0"])],
)
def test_visible_are_those_that_the_environment_lists(monkeypatch, value, gpus):
    monkeypatch.setenv(DEVICES_VARIABLE, value)
    assert visible_gpus() == gpus


def test_without_a_list_all_of_the_machine_are_visible(tmp_path, monkeypatch):
    lines = "GPU 0: NVIDIA A (UUID: GPU-1)\\n  MIG 1g Device 0: (UUID: MIG-1)\\nGPU 1: NVIDIA A (UUID: GPU-2)"
    nvidia_smi(tmp_path, monkeypatch, f"printf '{lines}\\n'")
    assert visible_gpus() == ["0", "1"]
    (tmp_path / "nvidia-smi").unlink()
    assert visible_gpus() == []


def test_a_driver_that_does_not_answer_is_an_error(tmp_path, monkeypatch):
    nvidia_smi(tmp_path, monkeypatch, "echo 'Driver/library version mismatch'; exit 18")
    with pytest.raises(OSError, match="nvidia-smi cannot list the GPUs: Driver/library version mismatch; set CUDA_VIS"):
        visible_gpus()


@pytest.mark.parametrize(
    ("gpus", "jobs", "shares"),
    [
        ("0123", 2, ["0,2", "1,3"]),
        ("01234", 2, ["0,2,4", "1,3"]),
        ("01", 2, ["0", "1"]),
        ("01", 5, ["0", "1", "0", "1", "0"]),
        ("012", 1, [None]),
        ("", 3, [None, None, None]),
    ],
)
def test_gpus_are_dealt_like_cards(gpus, jobs, shares):
    assert dealt(list(gpus), jobs) == shares


def seen(folder, trial):
    return json.loads((folder / "out" / "trials" / f"{trial.id:04d}" / "run" / "environment.json").read_text())


@pytest.mark.slow
def test_trials_side_by_side_have_gpus_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(runner_module, "POLL_SECONDS", 0.05)
    monkeypatch.setenv(DEVICES_VARIABLE, "3,5,7")
    trials, _ = run_stub(tmp_path, {"x": [1, 2, 3, 4, 5, 6], "seconds": [0.5]}, runner={"jobs": 2})
    devices = [seen(tmp_path, trial)[DEVICES_VARIABLE] for trial in trials]
    assert set(devices) == {"3,7", "5"}
    for one in range(6):
        for other in range(one):
            overlaps = trials[one].started < trials[other].ended and trials[other].started < trials[one].ended
            assert not (overlaps and devices[one] == devices[other])
    assert any(trials[one].started < trials[one - 1].ended for one in range(1, 6))  # some did run side by side


@pytest.mark.slow
def test_a_trial_alone_has_all_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv(DEVICES_VARIABLE, "3,5,7")
    trials, _ = run_stub(tmp_path, {"x": [1]})
    assert seen(tmp_path, trials[0])[DEVICES_VARIABLE] == "3,5,7"
