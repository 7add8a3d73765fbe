"""`panoptic train`: compose, build, fit, report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from rich.console import Console

from panoptic.analysis.tables import quality_table
from panoptic.assembly import build_data, build_module, build_trainer, try_out
from panoptic.configuration import parse_overrides, resolved
from panoptic.data.datamodule import PanopticDataModule
from panoptic.run_folder import RUN_FOLDER_VARIABLE, create_run_folder, discard_unstarted, record_run
from panoptic.training.module import PanopticModule


def main(argv: Sequence[str]) -> int:
    """Train as configured; returns the exit status."""
    composed = parse_overrides("train", "Train a panoptic network; the run folder holds all that came of it.", argv)
    if composed is None:
        return 0
    config = resolved(composed)
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    data = build_data(config)
    module = build_module(config, data)
    try_out(module)
    folder = create_run_folder(config["run"], config["name"])
    try:
        _train(config, data, module, folder)
    except Exception:
        discard_unstarted(folder)
        raise
    finally:
        os.environ.pop(RUN_FOLDER_VARIABLE, None)  # another run of this process has its own
    return 0


def _train(config: dict[str, Any], data: PanopticDataModule, module: PanopticModule, folder: Path) -> None:
    """Fit, score the best checkpoint, and report."""
    trainer = build_trainer(config, folder)
    if trainer.is_global_zero:
        record_run(folder, config)
        for path in module.network.paths:
            print(getattr(path.backbone, "weights_report", "backbone: no report of its weights"))
    trainer.fit(module, datamodule=data)
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
