"""Where parts meet: from a resolved configuration to data, module, loggers and trainer. Used by the commands alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from panoptic.data.datamodule import PanopticDataModule
from panoptic.instantiation import build
from panoptic.library_messages import leave_out_untrue_messages
from panoptic.models.build import build_network
from panoptic.models.network import image_outputs
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


@torch.no_grad()
def try_out(module: PanopticModule) -> None:
    """Fuse the outputs of one small image, so that parts which do not fit fail before training.

    Raises:
        ValueError: the fusion lacks an output, or does not know an argument of its configuration.
    """
    size = module.network.size_rule.pad(64, 64)
    training = module.network.training
    outputs, _ = module.network.eval()(torch.zeros(1, 3, *size, dtype=torch.uint8), [size])
    module.network.train(training)
    try:
        module.fusion(image_outputs(outputs, 0, size), module.categories)
    except (KeyError, TypeError) as error:
        message = error.args[0] if error.args else error
        raise ValueError(
            f"heads {sorted(outputs)} and fusion do not fit: {message}; choose heads= and fusion="
        ) from error


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
