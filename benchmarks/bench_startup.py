"""Seconds until the commands answer, and until `panoptic train` has made its first step.

Run with `python benchmarks/bench_startup.py`; about a minute. Each command runs in a process of its own, the fastest of
three counts: what makes it slower is the machine's other work, or files that are not in memory yet. Seconds of
computing are those of all processes of a command together; other work hardly changes them.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

REPEATS = 3
SWEEP = Path(__file__).parents[1] / "sweeps" / "lambda_grid.yaml"
PANOPTIC = [sys.executable, "-m", "panoptic"]
TRAIN = [
    sys.executable,
    __file__,
    "train",
    "experiment=deeperlab_scenes",
    "pictures=0",
    "trainer.limit_val_batches=0",
]
BARS = {
    "panoptic --help": (1.0, [*PANOPTIC, "--help"]),
    "panoptic sweep --dry-run": (3.0, [*PANOPTIC, "sweep", str(SWEEP), "--dry-run"]),
    "panoptic train, first step": (15.0, TRAIN),
}
"""{what: (seconds it may take, command)}."""


def train_one_step(arguments):
    """`panoptic train` in this process, which ends after the first step."""
    from panoptic.__main__ import main
    from panoptic.training.module import PanopticModule

    with tempfile.TemporaryDirectory() as folder:

        def end(self, outputs, batch, batch_idx):
            raise SystemExit(0)

        PanopticModule.on_train_batch_end = end
        return main([*arguments, f"run={folder}/run"])


def seconds_of(command):
    """(by the clock, of computing) of a command that must end as it should."""
    start, before = time.perf_counter(), _computed()
    status = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if status.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{status.stderr}")
    return time.perf_counter() - start, _computed() - before


def _computed():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main():
    """Print the seconds and whether each passes; the exit status is 1 if one does not."""
    table = Table("command", "seconds", "computing", "bar", "", title=f"start-up, fastest of {REPEATS}")
    passed = True
    for name, (bar, command) in BARS.items():
        seconds, computing = min(seconds_of(command) for _ in range(REPEATS))
        passed &= seconds < bar
        verdict = "[green]pass" if seconds < bar else "[red]fail"
        table.add_row(name, f"{seconds:.2f}", f"{computing:.2f}", f"< {bar:.0f}", verdict)
    Console().print(table)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(train_one_step(sys.argv[1:]) if sys.argv[1:] else main())
