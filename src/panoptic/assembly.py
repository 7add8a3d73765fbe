"""Where parts meet: from a resolved configuration to data, module, loggers and trainer. Used by the commands alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from panoptic.configuration import build
from panoptic.data.datamodule import PanopticDataModule
from panoptic.library_messages import leave_out_untrue_messages
from panoptic.models.build import build_network
from panoptic.training.callbacks import CategoryTables, KeepOnInterrupt, Pictures
from panoptic.training.module import PanopticModule


def build_data(config: Mapping[str, Any]) -> PanopticDataModule:
    """The data module of the node `data`; its `root` only serves the paths that are written with it."""
    node = {key: value for key, value in config["data"].items() if key != "root"}
    data: PanopticDataModule = build(node, seed=config["seed"])
    return data


def build_module(config: Mapping[str, Any], data: PanopticDataModule) -> PanopticModule:
    """Network, fusion, balancing and schedule around the data's categories; connects the data to the network."""
    network = build_network(config, data.categories, data.image_statistics)
    data.connect(network.encoders, network.size_rule)
    return PanopticModule(
        network,
        build(config["fusion"]),
        build(config["balancing"]),
        categories=data.categories,
        statistics=data.image_statistics,
        optimizer=build(config["optimizer"]),
        scheduler=build(config["scheduler"]),
        loss_weights=config["loss_weights"],
        config=config,
        score_at=config["evaluate"]["size"],
    )


def build_trainer(config: Mapping[str, Any], folder: Path) -> pl.Trainer:
    """A trainer that writes metrics, checkpoints and pictures into the run's folder."""
    leave_out_untrue_messages()
    kept: dict[str, Any] = {"dirpath": folder / "checkpoints", "enable_version_counter": False}
    best = ModelCheckpoint(filename="best", monitor="val_pq", mode="max", **kept)
    last = ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **kept)
    pictures = Pictures(folder / "pictures", count=config["pictures"])
    own = [build(node) for node in (config["callbacks"] or {}).values()]
    trainer: pl.Trainer = build(
        {**config["trainer"], "precision": precision(config["trainer"]["precision"])},
        callbacks=[best, last, pictures, CategoryTables(), KeepOnInterrupt(folder / "checkpoints" / "last.ckpt"), *own],
        logger=[build(node)(save_dir=str(folder)) for node in config["logger"].values()],
        default_root_dir=str(folder),
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    for logger in trainer.loggers:
        if not isinstance(logger, CSVLogger):  # beside its file lies config.yaml already
            logger.log_hyperparams(dict(config))
    return trainer


def precision(choice: str) -> Any:
    """The choice "auto" is bf16-mixed on GPUs that have it, else 32-true; other choices are Lightning's own."""
    if choice != "auto":
        return choice
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"
