"""A training that is killed anywhere and resumed ends as the uninterrupted one does, to the bit."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from killed_training import SMALL, differences, end_of, train, train_until

from panoptic.configuration import config_folder

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

often = pytest.mark.very_slow
PLACES = [
    ("forward", 1),  # before any checkpoint: the run begins anew
    ("forward", 4),
    pytest.param("forward", 6, marks=often),
    pytest.param("step done", 2, marks=often),
    ("step done", 5),
    pytest.param("step done", 9, marks=often),
    ("validation", 2),
    pytest.param("validation done", 1, marks=often),
    pytest.param("validation", 5, marks=often),
    pytest.param("writing", 1, marks=often),
    ("writing", 2),
    pytest.param("writing", 4, marks=often),
    pytest.param("written", 1, marks=often),
    pytest.param("written", 2, marks=often),
    ("written", 3),
    pytest.param("written", 4, marks=often),
]


@pytest.mark.parametrize(("place", "count"), PLACES)
def test_killed_anywhere(tmp_path, whole, place, count):
    train_until(place, count, tmp_path / "run")
    assert train(tmp_path / "run", "resume=auto") == 0
    assert differences(end_of(tmp_path / "run"), whole) == []


def test_the_comparison_sees_another_seed(uninterrupted, whole):
    found = differences(uninterrupted("seed=1"), whole)
    assert "/metrics" in {path[: len("/metrics")] for path in found}
    assert {f"/last/state_dict/{name}" for name in whole["last"]["state_dict"] if name.endswith("weight")} <= set(found)


def parts(group):
    return [f"{group}={path.stem}" for path in sorted((config_folder() / group).glob("*.yaml"))]


def balancers():
    """Every strategy; tests/balancing goes on with the state of each in every `make test`."""
    short = "experiment=deeperlab_scenes data=scenes scheduler.warmup_steps=2 trainer.check_val_every_n_epoch=1"
    chosen = {"balancing=famo", "balancing=pcgrad", "balancing=uncertainty"}
    return [
        pytest.param(f"{short} {choice}", id=choice, marks=[] if choice in chosen else often)
        for choice in parts("balancing")
    ]


def experiments():
    short = "data=scenes scheduler.warmup_steps=2 trainer.check_val_every_n_epoch=1"
    names = sorted(path.stem for path in (config_folder() / "experiment").glob("*.yaml"))
    small = [name for name in names if "{name: test_" in (config_folder() / "experiment" / f"{name}.yaml").read_text()]
    assert "deeperlab_scenes" in small
    return [  # those of other data sets differ from these by sizes, on the scenes that all have here
        pytest.param(f"experiment={name} {short}", id=name, marks=[] if name.endswith("_scenes") else often)
        for name in small
    ]


@pytest.mark.parametrize(
    "override",
    [
        *parts("scheduler"),
        *parts("optimizer"),
        *balancers(),
        "data.num_workers=1",
        "trainer.accumulate_grad_batches=2",
        "callbacks=moving_average",
        "trainer.val_check_interval=2",
        *experiments(),
    ],
)
def test_every_part_goes_on_where_it_was(tmp_path, uninterrupted, override):
    overrides = override.split()
    train_until("forward", 9, tmp_path / "run", *overrides)
    assert train(tmp_path / "run", "resume=auto", *overrides) == 0
    assert differences(end_of(tmp_path / "run"), uninterrupted(*overrides)) == []


def test_killed_again_and_again(tmp_path, whole):
    for place, count in (("step done", 3), ("written", 2), ("validation", 1), ("forward", 3)):
        train_until(place, count, tmp_path / "run", "resume=auto")
    assert train(tmp_path / "run", "resume=auto") == 0
    assert differences(end_of(tmp_path / "run"), whole) == []


def test_a_finished_run_stays_as_it_is(tmp_path, whole):
    assert train(tmp_path / "run") == 0
    assert train(tmp_path / "run", "resume=auto") == 0
    assert differences(end_of(tmp_path / "run"), whole) == []


def test_randomness_within_the_network_goes_on(tmp_path, whole, monkeypatch):
    from panoptic.models.decoders.aspp import BilinearDecoder

    forward = BilinearDecoder.forward

    def with_dropout(self, levels, image_sizes):
        features = forward(self, levels, image_sizes)
        return {name: torch.nn.functional.dropout(f, 0.3, self.training) for name, f in features.items()}

    monkeypatch.setattr(BilinearDecoder, "forward", with_dropout)
    assert train(tmp_path / "whole") == 0
    train_until("forward", 4, tmp_path / "run")
    assert train(tmp_path / "run", "resume=auto") == 0
    assert differences(end_of(tmp_path / "run"), end_of(tmp_path / "whole")) == []
    assert differences(end_of(tmp_path / "run"), whole) != []


def command(folder):
    overrides = [*SMALL, "data.num_workers=1", "resume=auto", f"run={folder}"]
    return [sys.executable, "-m", "panoptic", "train", *overrides]


def kill_after(folder, seconds):
    """Start the command, and kill it so many seconds after its first row; whether it had ended before."""
    with (folder.parent / "log.txt").open("a") as log:
        process = subprocess.Popen(command(folder), stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
    rows = (folder / "metrics.csv").stat().st_size if (folder / "metrics.csv").is_file() else 0
    while process.poll() is None:
        if (folder / "metrics.csv").is_file() and (folder / "metrics.csv").stat().st_size != rows:
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
            process.wait()
            return False
        time.sleep(0.01)
    assert process.returncode == 0, (folder.parent / "log.txt").read_text()
    return True


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.very_slow)])
def test_a_killed_process(tmp_path, uninterrupted, kills):
    generator = random.Random(kills)
    for _ in range(kills):
        kill_after(tmp_path / "run", generator.uniform(0, 1))
    assert train(tmp_path / "run", "data.num_workers=1", "resume=auto") == 0
    assert differences(end_of(tmp_path / "run"), uninterrupted("data.num_workers=1")) == []
