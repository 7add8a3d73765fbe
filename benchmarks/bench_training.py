"""A training step of `PanopticModule` under Lightning against the same network's bare step, turn by turn.

Run with `python benchmarks/bench_training.py`; about a minute. The bare step is what a loop by hand would do: forward,
losses, backward, clipping, optimizer step. What Lightning's step does beside it is measured: weights of losses, the
record for callbacks, logging, the schedule, hooks.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from panoptic.assembly import build_data, build_module, build_trainer
from panoptic.configuration import load_config, resolved

STEPS = 60
BAR = 1.15
"""A step may take this many times the bare one."""


class BareSteps(pl.Callback):
    """After each training step, one by hand; keeps the seconds of both."""

    def __init__(self, learning_rate: float, clip: float) -> None:
        self.learning_rate, self.clip = learning_rate, clip
        self.ours: list[float] = []
        self.bare: list[float] = []
        self.start: float | None = None

    def on_fit_start(self, trainer, pl_module):
        """An optimizer of its own over the same parameters."""
        self.optimizer = torch.optim.AdamW(pl_module.parameters(), lr=self.learning_rate)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """Called last: from the end of one bare step to here is one step of ours, loop included."""
        begin = time.perf_counter()
        if self.start is not None:
            self.ours.append(begin - self.start)
        self._step(pl_module.network, batch)
        self.start = time.perf_counter()
        self.bare.append(self.start - begin)

    def _step(self, network, batch):
        self.optimizer.zero_grad()
        outputs, features = network(batch.images, batch.image_sizes)
        sum(network.losses(outputs, features, batch).values()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), self.clip)
        self.optimizer.step()


def measure(folder, overrides):
    """Seconds of our steps and of bare ones, without the first five, which warm up."""
    config = resolved(
        load_config("train", ["experiment=deeperlab_scenes", "trainer.max_epochs=1", "pictures=0", *overrides])
    )
    data = build_data(config)
    module = build_module(config, data)
    batches = [batch for _, batch in zip(range(4), data.train_dataloader(), strict=False)]
    config["trainer"] |= {"limit_val_batches": 0, "enable_progress_bar": False}
    trainer = build_trainer(config, folder)
    bare = BareSteps(config["optimizer"]["lr"], config["trainer"]["gradient_clip_val"])
    trainer.callbacks.append(bare)
    data.train_dataloader = lambda: DataLoader(batches * (STEPS // 4), batch_size=None)
    trainer.fit(module, datamodule=data)
    return bare.ours[5:], bare.bare[5:]


def main():
    """Print the ratio per backbone and whether it passes; the exit status is 1 if one does not."""
    table = Table("network", "step (ms)", "bare (ms)", "ratio", "quartiles", "bar", "", title="training step, batch 8")
    passed = True
    for backbone in ("test_resnet", "resnet10t"):
        with tempfile.TemporaryDirectory() as folder:
            ours, bare = measure(Path(folder), [f"backbone.name={backbone}", "data.num_workers=0"])
        ratios = [a / b for a, b in zip(ours, bare[1:], strict=False)]
        lower, ratio, upper = statistics.quantiles(ratios, n=4)
        passed &= ratio <= BAR
        verdict = "[green]pass" if ratio <= BAR else "[red]fail"
        times = (f"{1000 * statistics.median(seconds):.0f}" for seconds in (ours, bare))
        table.add_row(backbone, *times, f"{ratio:.2f}", f"{lower:.2f} to {upper:.2f}", f"<= {BAR:.2f}", verdict)
    Console().print(table)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
