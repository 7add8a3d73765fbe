"""`panoptic train`: compose, build, fit, report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from rich.console import Console

from panoptic.analysis.tables import quality_table
from panoptic.assembly import build_data, build_module, build_trainer, start_report, try_out
from panoptic.configuration import parse_overrides, resolved
from panoptic.data.datamodule import PanopticDataModule
from panoptic.resume import ResumePoint, find_resume_point
from panoptic.run_folder import discard_unstarted, open_run_folder, record_run
from panoptic.training.module import PanopticModule
from panoptic.training.out_of_memory import saying_what_to_lower
from panoptic.training.stopping import PREEMPTION_SIGNAL, StoppedError, StopRequest, requeue


def main(argv: Sequence[str]) -> int:
    """Train as configured; returns the exit status."""
    composed = parse_overrides("train", "Train a panoptic network; the run folder holds all that came of it.", argv)
    if composed is None:
        return 0
    config = resolved(composed)
    try:
        with StopRequest() as request:
            _train(config, request)
    except StoppedError as stopped:
        return _after_stop(stopped)
    return 0


def _train(config: dict[str, Any], request: StopRequest) -> None:
    """Build everything, so that what does not fit fails before there is a folder; then run."""
    point = find_resume_point(config)
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    data = build_data(config)
    module = build_module(config, data)
    try_out(module)
    own = None if point is None else point.path.parents[1]
    chosen = config["run"] or own
    exists = config["resume"] == "auto" or (own is not None and Path(str(chosen)).resolve() == own.resolve())
    with open_run_folder(chosen, config["name"], exists=exists) as folder:
        try:
            _run(config, data, module, folder, request, point)
        except Exception:
            discard_unstarted(folder)
            raise


def _run(
    config: dict[str, Any],
    data: PanopticDataModule,
    module: PanopticModule,
    folder: Path,
    request: StopRequest,
    point: ResumePoint | None,
) -> None:
    """Fit, score the best checkpoint, and report."""
    trainer = build_trainer(config, folder, request, point)
    if trainer.is_global_zero:
        record_run(folder, config, from_step=0 if point is None else point.global_step)
        for path in module.network.paths:
            print(getattr(path.backbone, "weights_report", "backbone: no report of its weights"))
        for part in start_report(config, module):
            Console().print(part, soft_wrap=True)
        if point is not None:
            print(f"going on from step {point.global_step}, {point.path}")
    with saying_what_to_lower(config, trainer.world_size):
        trainer.fit(module, datamodule=data, ckpt_path=None if point is None else str(point.path))
    best = folder / "checkpoints" / "best.ckpt"
    if best.is_file():
        trainer.validate(module, datamodule=data, ckpt_path=str(best), verbose=False)
    if not trainer.is_global_zero:
        return
    if best.is_file():
        Console().print(quality_table(module.quality_values, title=f"{config['name']}: best checkpoint, val"))
    else:
        print("no validation took place, so there is no best checkpoint; see trainer.check_val_every_n_epoch")
    print(f"run folder: {folder}\npictures:   {folder / 'pictures'}")


def _after_stop(stopped: StoppedError) -> int:
    """Say where to go on; a job that SLURM preempts asks to be started again."""
    is_first = os.environ.get("SLURM_PROCID", "0") == "0"
    print(stopped)
    if stopped.number == PREEMPTION_SIGNAL and "SLURM_JOB_ID" in os.environ:
        if is_first:
            requeue()
        return 0
    return 128 + stopped.number
