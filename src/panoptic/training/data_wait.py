"""How much of a training went by waiting for data."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only


class DataWait(pl.Callback):
    """Measures the time from the end of a training batch, or the start of an epoch, to the start of the next batch.

    Put it first among the callbacks, so that what others do when a batch starts is no wait. The first batch after a
    validation within an epoch is left out: the loader fetched it meanwhile, and checkpoints are written before it.
    On a GPU, which computes on while the loop waits, the share is an upper bound.

    Attributes:
        waited: seconds of this process between batches, in this call of `fit`.
        trained: seconds of this process within batches.
    """

    def __init__(self) -> None:
        self.waited = 0.0
        self.trained = 0.0
        self._wait_began: float | None = None
        self._batch_began = 0.0

    @property
    def share(self) -> float:
        """Of the training time, in [0, 1]; 0 before the first batch has ended."""
        total = self.waited + self.trained
        return self.waited / total if total else 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure this training alone."""
        self.waited = self.trained = 0.0
        self._wait_began = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The wait for the first batch begins."""
        self._wait_began = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The batch is there."""
        self._batch_began = time.perf_counter()
        if self._wait_began is not None:
            self.waited += self._batch_began - self._wait_began

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The wait for the next batch begins."""
        self._wait_began = time.perf_counter()
        self.trained += self._wait_began - self._batch_began

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validation is no wait."""
        self._wait_began = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print and log the share of the process that waited longest."""
        shares: Any = pl_module.all_gather(torch.tensor(self.share, device=pl_module.device))
        _report(trainer, float(shares.max()))


@rank_zero_only
def _report(trainer: pl.Trainer, share: float) -> None:
    advice = "; raise data.num_workers" if share >= 0.05 else ""
    print(f"waiting for data: {100 * share:.1f} % of the training time{advice}")
    for logger in trainer.loggers:
        logger.log_metrics({"data_wait": share}, step=trainer.global_step)
