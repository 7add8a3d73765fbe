"""Small sweeps of the stub program."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import yaml

from panoptic.sweeps.ledger import Ledger
from panoptic.sweeps.runner import Runner
from panoptic.sweeps.sweep_file import SweepFile, read_sweep_file

STUB = Path(__file__).parent / "stub_program.py"

TINY = ["backbone.name=test_resnet", "data.train.length=16", "data.val.length=3", "data.train.size=[48,64]"]
TINY += ["data.num_workers=0", "trainer.max_epochs=1", "scheduler.warmup_steps=0", "pictures=0"]
"""Overrides that make a training of `experiment=deeperlab_scenes` one of seconds."""


def compose_nothing(command, overrides, config_dir):
    raise AssertionError("the stub is not a command of the package")


def write_sweep(path, values, /, **changes):
    config = {
        "program": str(STUB),
        "command": ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"],
        "method": "grid",
        "metric": {"name": "val_pq", "goal": "maximize"},
        "parameters": {name: {"values": choices} for name, choices in values.items()},
    }
    path.write_text(yaml.safe_dump({key: value for key, value in (config | changes).items() if value is not None}))
    return path


def stub_sweep(folder, values, /, **changes) -> SweepFile:
    return read_sweep_file(write_sweep(folder / "stub.yaml", values, **changes), compose_nothing)


def run_stub(folder, values, /, *, runner=None, **changes):
    """Run a sweep of the stub in a folder; returns the trials and the reported lines."""
    sweep = stub_sweep(folder, values, **changes)
    ledger, lines = Ledger(folder / "out"), []
    try:
        ledger.adopt(sweep.deciding, sweep.path)
        Runner(sweep, ledger, folder / "out", report=lines.append, **(runner or {})).run()
    finally:
        trials = ledger.trials()
        ledger.close()
    return trials, lines


def train_sweep(path, values, *words):
    """A sweep file of tiny trainings."""
    command = ["${env}", "${interpreter}", "-m", "${program}", "train", "experiment=deeperlab_scenes", *TINY, *words]
    return write_sweep(path, values, program="panoptic", command=[*command, "${args_no_hyphens}"])


def start(path, folder, *options):
    """`panoptic sweep` as a process of its own."""
    command = [sys.executable, "-m", "panoptic", "sweep", str(path), "--folder", str(folder), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def column(folder, query):
    """The first column of a query; nothing where the sweep has not made its tables yet."""
    if not (folder / "ledger.sqlite").is_file():
        return []
    database = sqlite3.connect(folder / "ledger.sqlite", timeout=60)
    try:
        return [row[0] for row in database.execute(query)]
    except sqlite3.OperationalError:
        return []
    finally:
        database.close()
