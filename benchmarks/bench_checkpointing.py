"""What writing checkpoints costs, as a share of the training time.

Run with `python benchmarks/bench_checkpointing.py`; two minutes. Trains some steps with a checkpoint every few of them,
written as `panoptic train` writes them, and compares the median of a save with that of a step: the difference between
a training with and one without checkpoints is lost in that between two trainings. `checkpoint_every` is one save per so
many steps; an epoch of the synthetic scenes adds up to three: before its last step, at its end, and the best one.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import pytorch_lightning as pl
from rich.console import Console
from rich.table import Table

from panoptic.assembly import build_data, build_module, build_trainer
from panoptic.configuration import load_config, resolved

STEPS, EVERY = 24, 4
BAR = 0.02
"""Share of the training time that checkpoints may take."""

NETWORKS = {
    "test_resnet": ["experiment=deeperlab_scenes"],
    "resnet50": ["experiment=deeperlab_scenes", "backbone.name=resnet50", "data.train.size=[64,64]"],
}


class StepTimes(pl.Callback):
    """Keeps the seconds of each step; appended to the callbacks, it starts after a checkpoint is written."""

    def __init__(self):
        self.seconds = []

    def on_train_batch_start(self, *_):
        """The batch is there, and what callbacks do before it is done."""
        self.start = time.perf_counter()

    def on_train_batch_end(self, *_):
        """The optimizer has stepped."""
        self.seconds.append(time.perf_counter() - self.start)


def measure(folder, overrides):
    """(median seconds of a step, of a save, MB of a checkpoint, steps per epoch, steps between checkpoints)."""
    config = resolved(load_config("train", [*overrides, "pictures=0", "data.num_workers=0"]))
    per_epoch, every = config["data"]["train"]["length"] // config["data"]["batch_size"], config["checkpoint_every"]
    config["checkpoint_every"] = EVERY
    config["trainer"] |= {"limit_train_batches": STEPS, "max_epochs": 1, "limit_val_batches": 0}
    config["trainer"]["enable_progress_bar"] = False
    config["scheduler"]["warmup_steps"] = 0
    data = build_data(config)
    module = build_module(config, data)
    trainer = build_trainer(config, folder)
    times, saves, save = StepTimes(), [], trainer.save_checkpoint

    def timed_save(*arguments, **keywords):
        start = time.perf_counter()
        save(*arguments, **keywords)
        saves.append(time.perf_counter() - start)

    trainer.save_checkpoint = timed_save
    trainer.callbacks.append(times)
    trainer.fit(module, datamodule=data)
    megabytes = (folder / "checkpoints" / "last.ckpt").stat().st_size / 1e6
    return statistics.median(times.seconds), statistics.median(saves), megabytes, per_epoch, every


def main():
    """Print the shares per network and whether they pass; the exit status is 1 if one does not."""
    headings = ("network", "step ms", "save ms", "MB", "every N", "+ epochs", "bar", "")
    table = Table(*headings, title="checkpoints: share of training time")
    passed = True
    for name, overrides in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            step, save, megabytes, per_epoch, every = measure(Path(folder), overrides)
        regular, most = save / (every * step), save / (every * step) + 3 * save / (per_epoch * step)
        passed &= most < BAR
        verdict = "[green]pass" if most < BAR else "[red]fail"
        numbers = (f"{1000 * step:.0f}", f"{1000 * save:.0f}", f"{megabytes:.1f}")
        table.add_row(name, *numbers, f"{regular:.2%}", f"{most:.2%}", f"< {BAR:.0%}", verdict)
    Console().print(table)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
