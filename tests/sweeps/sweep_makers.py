"""Small sweeps of the stub program."""

from pathlib import Path

import yaml

from panoptic.sweeps.ledger import Ledger
from panoptic.sweeps.runner import Runner
from panoptic.sweeps.sweep_file import SweepFile, read_sweep_file

STUB = Path(__file__).parent / "stub_program.py"


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
