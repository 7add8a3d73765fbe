"""Telemetry of task gradients: several processes write what one does, and train as without it."""

import csv
import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch
from recorded_training import GLOBAL_BATCH, FrozenStatistics, data_and_module, trainer_of

from panoptic.training.gradient_telemetry import GradientTelemetry

pytestmark = pytest.mark.slow

STEPS = 2
ROUNDING = 1e-5
"""The network computes in fp64 here, its losses and the measured gradients are fp32."""


def train_measured(level, *overrides):
    """The rows that a process wrote in its steps, and its parameters; the level "off" is no telemetry."""
    data, module = data_and_module(*overrides, f"data.train.length={STEPS * GLOBAL_BATCH}", "data.val.length=1")
    module.network.double()
    with tempfile.TemporaryDirectory() as folder:
        callbacks = [FrozenStatistics(), *([] if level == "off" else [GradientTelemetry(1, level)])]
        settings = {"default_root_dir": folder, "limit_val_batches": 0}
        trainer_of(module, callbacks, **settings).fit(module, datamodule=data)
        path = Path(folder) / "gradients.csv"
        rows = list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []
    return rows, {name: value.detach().clone() for name, value in module.named_parameters()}


@cache
def in_one_process(experiment, level):
    return train_measured(level, f"experiment={experiment}")[0]


@cache
def in_processes(gloo, num_processes, experiment, level):
    return gloo.run(num_processes, train_measured, level, f"experiment={experiment}")


often = pytest.mark.very_slow


@pytest.mark.parametrize(
    ("experiment", "level", "num_tasks", "num_processes"),
    [
        ("deeperlab_scenes", None, 5, 2),
        pytest.param("deeperlab_scenes", None, 5, 3, marks=often),
        pytest.param("oanet_scenes", "c5", 3, 2, marks=often),
        ("oanet_scenes", "c5", 3, 3),
    ],
)
def test_processes_write_what_one_does(gloo, experiment, level, num_tasks, num_processes):
    expected = in_one_process(experiment, level)
    assert [row["step"] for row in expected[::num_tasks]] == [str(step) for step in range(STEPS)]
    (rows, _), *others = in_processes(gloo, num_processes, experiment, level)
    assert all(other == [] for other, _ in others)
    assert len(rows) == len(expected)
    for found, row in zip(rows, expected, strict=True):
        assert [name for name in row if row[name]] == [name for name in found if found[name]]
        assert found["task"] == row["task"]
        cosines = {name: float(value) for name, value in row.items() if name.startswith("cosine") and value}
        assert {name: float(found[name]) for name in cosines} == pytest.approx(cosines, abs=ROUNDING)
        for name in ("step", "loss", "weight", "gradient_norm", "gradient_mean_abs"):
            assert bool(found[name]) == bool(row[name])
            if row[name]:
                assert float(found[name]) == pytest.approx(float(row[name]), rel=ROUNDING), (row["task"], name)


def test_two_processes_train_as_without_it(gloo):
    (_, plain), _ = in_processes(gloo, 2, "deeperlab_scenes", "off")
    for _, watched in in_processes(gloo, 2, "deeperlab_scenes", None):
        assert all(torch.equal(watched[name], value) for name, value in plain.items())
