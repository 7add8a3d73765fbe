"""`panoptic train`: compose, build, fit, report."""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_lightning as pl
from rich.console import Console

from panoptic.analysis.tables import quality_table
from panoptic.assembly import build_data, build_module, build_trainer
from panoptic.configuration import parse_overrides, resolved
from panoptic.run_folder import create_run_folder, record_run


def main(argv: Sequence[str]) -> int:
    """Train as configured; returns the exit status."""
    composed = parse_overrides("train", "Train a panoptic network; the run folder holds all that came of it.", argv)
    if composed is None:
        return 0
    config = resolved(composed)
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    data = build_data(config)
    module = build_module(config, data)
    folder = create_run_folder(config["run"], config["name"])
    trainer = build_trainer(config, folder)
    if trainer.is_global_zero:
        record_run(folder, config)
        for path in module.network.paths:
            print(getattr(path.backbone, "weights_report", "backbone: no report of its weights"))
    trainer.fit(module, datamodule=data)
    trainer.validate(module, datamodule=data, ckpt_path=str(folder / "checkpoints" / "best.ckpt"), verbose=False)
    if trainer.is_global_zero:
        Console().print(quality_table(module.quality_values, title=f"{config['name']}: best checkpoint, val"))
        print(f"run folder: {folder}\npictures:   {folder / 'pictures'}")
    return 0
