"""Ctrl-C, SIGTERM and the preemption signal of SLURM: end between two steps, with a checkpoint to go on from."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from panoptic.training.checkpointing import is_between_steps, save_between_batches
from panoptic.training.processes import max_over_processes

PREEMPTION_SIGNAL = signal.SIGUSR1
"""What `sbatch --signal=USR1@120` sends before the time is over."""


class StoppedError(Exception):
    """Training ended because of a signal.

    Args:
        number: of the signal.
        step: optimizer steps that were made.
        checkpoint: what a resume goes on from, None if there is none yet.
        is_first: whether this is the first process of the run, which speaks for all to the outside.
    """

    def __init__(self, number: int, step: int, checkpoint: Path | None, *, is_first: bool) -> None:
        where = "there is no checkpoint yet" if checkpoint is None else f"resume=auto goes on from {checkpoint}"
        super().__init__(f"stopped by {signal.Signals(number).name} at step {step}; {where}")
        self.number = number
        self.is_first = is_first


class StopRequest:
    """Notes SIGINT, SIGTERM and SIGUSR1 within a `with` block; a second SIGINT interrupts at once.

    Attributes:
        number: of the first signal, 0 before.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.getsignal(number) for number in self._signals}
        self.install()
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def _signals(self) -> tuple[int, ...]:
        return signal.SIGINT, signal.SIGTERM, PREEMPTION_SIGNAL

    def install(self) -> None:
        """Take the signals over; Lightning's own handlers would save in the middle of a step."""
        for number in self._signals:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        signal.signal(signal.SIGINT, signal.default_int_handler)


class StopBetweenSteps(Checkpoint):
    """Ends training at the next step's begin once any process has got a signal, and saves `last.ckpt`.

    Args:
        request: of this process.
        folder: of the checkpoints.
    """

    def __init__(self, request: StopRequest, folder: Path) -> None:
        self.request = request
        self.folder = folder

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning has set its handlers just before."""
        self.request.install()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Between two steps; at the begin of an epoch `last.ckpt` is there already."""
        number = self._agreed(trainer)
        if number and is_between_steps(trainer, batch_idx):
            save_between_batches(trainer, self.folder / "last.ckpt")
        if number and batch_idx % trainer.accumulate_grad_batches == 0:
            self._stop(trainer, number)

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """A single process need not wait for the end of validation; several have unequal shares of it."""
        if trainer.world_size == 1 and self.request.number:
            self._stop(trainer, self.request.number)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """`last.ckpt` has just been written."""
        number = self._agreed(trainer)
        if number:
            self._stop(trainer, number)

    def _agreed(self, trainer: pl.Trainer) -> int:
        """The signal that any process has got; 0 if none has."""
        if trainer.world_size == 1:
            return self.request.number
        number = torch.tensor(self.request.number, device=trainer.strategy.root_device)
        return int(max_over_processes(number))  # device sync: at every step of several processes, as Lightning's own

    def _stop(self, trainer: pl.Trainer, number: int) -> None:
        there = sorted(self.folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
        latest = [path for path in there if path.name != "best.ckpt"]
        checkpoint = latest[-1] if latest else None
        raise StoppedError(number, trainer.global_step, checkpoint, is_first=trainer.is_global_zero)


def requeue() -> None:
    """Ask SLURM to start this job again.

    Raises:
        OSError: `scontrol` is missing or refuses.
    """
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"scontrol requeue {job} failed with status {done.returncode}: {done.stderr.strip()}")
