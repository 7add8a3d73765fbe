"""When and how checkpoints are written, and what they hold beside Lightning's own: all that an exact resume needs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO

from panoptic.training.metrics_file import MetricsFile

_STEP_STREAM = 2
"""Spawn key of the randomness of steps; 0 and 1 are those of the data's order and augmentation."""


class WholeFileIO(TorchCheckpointIO):
    """A checkpoint's file is the old one or the new one, never half of one, whenever the process is killed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write beside the file, then take its name.

        Raises:
            OSError: it cannot be written, as on a full disk; what was there before is unharmed.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except (OSError, RuntimeError) as error:  # torch's writer turns an OSError into a RuntimeError
            part.unlink(missing_ok=True)
            raise OSError(
                f"could not write the checkpoint {path}: {error.__context__ or error}; is the disk full? "
                "Earlier checkpoints are unharmed: make room and go on with resume=auto"
            ) from error


def save_between_batches(trainer: pl.Trainer, path: Path) -> None:
    """Save in `on_train_batch_start`: Lightning counts the batch that is about to begin, the saved state must not."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    counts: tuple[Any, Any] = (progress.total, progress.current)
    for count in counts:
        count.ready -= 1
    trainer.save_checkpoint(path, weights_only=False)
    for count in counts:
        count.ready += 1


def is_between_steps(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether no gradients are held when batch `batch_idx` of an epoch begins, and a batch came before it."""
    return batch_idx > 0 and batch_idx % trainer.accumulate_grad_batches == 0


class StepCheckpoints(Checkpoint):
    """Writes `step_<n>.ckpt` every so many optimizer steps, and before the last step of an epoch.

    The latter, because validation may take long, and a run that is killed within goes on from before.

    Args:
        folder: of the checkpoints.
        every: optimizer steps.
        keep: so many are kept; none once training has ended, because `last.ckpt` holds its end.
    """

    def __init__(self, folder: Path, *, every: int, keep: int = 2) -> None:
        if every < 1:
            raise ValueError(f"expected checkpoint_every of at least 1 step, got {every}")
        self.folder = folder
        self.every = every
        self.keep = keep
        self._last = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count from here on."""
        self._last = trainer.global_step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save the state between two steps."""
        if not is_between_steps(trainer, batch_idx) or trainer.global_step == self._last:
            return
        is_last = batch_idx + trainer.accumulate_grad_batches >= trainer.num_training_batches
        if not is_last and trainer.global_step - self._last < self.every:
            return
        self._last = trainer.global_step
        save_between_batches(trainer, self.folder / f"step_{self._last:08d}.ckpt")
        self._remove(trainer, keep=self.keep)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make room."""
        if (self.folder / "last.ckpt").is_file():
            self._remove(trainer, keep=0)

    def _remove(self, trainer: pl.Trainer, keep: int) -> None:
        if trainer.is_global_zero:
            paths = sorted(self.folder.glob("step_*.ckpt"))
            for path in paths[: len(paths) - keep]:
                path.unlink()


class LoggerPositions(pl.Callback):
    """Keeps in `checkpoint["loggers"]` how far each logger has come: rows of `metrics.csv`, id of the W&B run."""

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Only the first process has loggers."""
        positions: dict[str, Any] = {}
        checkpoint["loggers"] = positions
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                positions["rows"] = logger.num_rows
            elif isinstance(logger, WandbLogger):
                positions["wandb_id"] = logger.version


class SeedSteps(pl.Callback):
    """Seeds torch before every batch by (seed, epoch, batch, rank), so that no step depends on where a run began.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed all devices."""
        key = (_STEP_STREAM, trainer.current_epoch, batch_idx, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(self.seed, spawn_key=key).generate_state(1, np.uint64)[0]))
