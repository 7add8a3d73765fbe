"""A training from a resolved configuration: build, fit, score, report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from rich.console import Console

from panoptic.analysis.tables import quality_table
from panoptic.assembly import (
    build_data,
    build_module,
    build_trainer,
    check_balancing,
    check_monitor,
    start_report,
    try_out,
)
from panoptic.data.datamodule import PanopticDataModule
from panoptic.models.build import build_network
from panoptic.resume import ResumePoint, find_resume_point
from panoptic.run_folder import open_run_folder, record_run
from panoptic.training.module import PanopticModule
from panoptic.training.out_of_memory import saying_what_to_lower
from panoptic.training.stopping import StopRequest


def train(config: dict[str, Any], request: StopRequest) -> None:
    """Build everything, so that what does not fit fails before there is a folder; then run.

    Args:
        config: resolved.
        request: to stop, of this process.

    Raises:
        StoppedError: a signal ended the training.
    """
    point = find_resume_point(config)
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    data = build_data(config)
    # a run that goes on has its weights from its checkpoint, not from `init_from`, which may be gone
    resumed = None if point is None else build_network(config, data.categories, data.image_statistics)
    module = build_module(config, data, resumed)
    check_balancing(module, config)
    check_monitor(config["monitor"], try_out(module))
    own = None if point is None else point.path.parents[1]
    chosen = config["run"] or own
    exists = config["resume"] == "auto" or (own is not None and Path(str(chosen)).resolve() == own.resolve())
    with open_run_folder(chosen, config["name"], exists=exists) as folder:
        _run(config, data, module, folder, request, point)


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
