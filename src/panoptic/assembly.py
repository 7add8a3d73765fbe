"""Where parts meet: from a resolved configuration to data, module, loggers and trainer. Used by the commands alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from panoptic.analysis.model_summary import model_table, summarize_parts
from panoptic.data.datamodule import PanopticDataModule
from panoptic.inference.networks import try_fusion
from panoptic.inference.test_time import TestTime
from panoptic.instantiation import build
from panoptic.library_messages import leave_out_untrue_messages
from panoptic.models.build import build_network
from panoptic.models.initialization import initialize_from
from panoptic.models.joined import Network
from panoptic.resume import ResumePoint
from panoptic.structures import FusionResult
from panoptic.training.callbacks import CategoryScores, CategoryTables, Pictures
from panoptic.training.checkpointing import LoggerPositions, SeedSteps, StepCheckpoints, WholeFileIO
from panoptic.training.data_wait import DataWait
from panoptic.training.lr_scaling import with_scaled_rate
from panoptic.training.metrics_file import MetricsFile
from panoptic.training.module import PanopticModule
from panoptic.training.processes import ShareStatistics
from panoptic.training.profilers import profiler_of
from panoptic.training.schedules import end_of_training, images_per_step
from panoptic.training.stopping import StopBetweenSteps, StopRequest

MONITORS = ("val_pq", "val_pc", "val_miou")
MONITORS_OF_INSTANCES = ("val_mask_ap", "val_mask_ap50", "val_semantic_map_miou")
"""Scores that the best checkpoint may be the best of; these where the fusion returns instances."""


def build_data(config: Mapping[str, Any]) -> PanopticDataModule:
    """The data module of the node `data`; its `root` only serves the paths that are written with it."""
    node = {key: value for key, value in config["data"].items() if key != "root"}
    data: PanopticDataModule = build(node, seed=config["seed"])
    return data


def build_module(config: Mapping[str, Any], data: PanopticDataModule, network: Network | None = None) -> PanopticModule:
    """Network, fusion, balancing and schedule around the data's categories; connects the data to the network.

    Args:
        config: resolved.
        data: whose categories and statistics are used.
        network: with weights; None makes that of the configuration, with the weights that `init_from` names.
    """
    if network is None:
        network = build_network(config, data.categories, data.image_statistics)
        if config.get("init_from") is not None:
            rank_zero_only(print)(initialize_from(network, config["init_from"]))
    data.connect(network.encoders, network.size_rule)
    return PanopticModule(
        network,
        build(config["fusion"]),
        build(config["balancing"], losses_of_heads=network.losses_of_heads),
        categories=data.categories,
        statistics=data.image_statistics,
        optimizer=build(with_scaled_rate(config["optimizer"], rate_factor(config))),
        scheduler=_scheduler(config),
        loss_weights=config["loss_weights"],
        config=config,
        score_at=config["evaluate"]["size"],
        perfect_heads=config["evaluate"].get("perfect", ()),
        infer=_inference(config["evaluate"], network),
    )


def _inference(options: Mapping[str, Any], network: Network) -> TestTime:
    """How validation looks at images, by the node `evaluate`; raises ValueError where the network cannot do so."""
    infer = TestTime.of(options)
    infer.check(network)
    if infer.averages and infer.head in options.get("perfect", ()):
        raise ValueError(
            f"perfect=[{infer.head}] puts the ground truth in place of what scales and flip average; "
            "leave one of them out"
        )
    return infer


def rate_factor(config: Mapping[str, Any]) -> float:
    """What `lr_scaling` multiplies the learning rate with; 1 for a run from before there was a choice."""
    return float(build(config["lr_scaling"])(images_per_step(config))) if "lr_scaling" in config else 1.0


def _scheduler(config: Mapping[str, Any]) -> Any:
    """The schedule; one whose configuration has a length in images is told how many a step has."""
    schedule = build(config["scheduler"])
    if any(str(key).endswith("_images") and value is not None for key, value in (config["scheduler"] or {}).items()):
        return partial(schedule, images_per_step=images_per_step(config))
    return schedule


def start_report(config: Mapping[str, Any], module: PanopticModule) -> Iterator[Any]:
    """What the first process shows before training: a table of the network, learning rate and length of training."""
    network = module.network
    parts: dict[str, torch.nn.Module] = {}
    for number, path in enumerate(network.paths):
        name = f" {number + 1}" if number else ""
        if all(path.backbone is not part for part in parts.values()):
            parts[f"backbone{name}"] = path.backbone
        parts |= {f"decoder{name}": path.decoder, **path.named_heads()}
    size = network.size_rule.pad(*(config["data"].get("train_transform", {}).get("size") or (512, 512)))
    rows, reason = summarize_parts(network, parts, torch.zeros(1, 3, *size, dtype=torch.uint8, device="meta"), [size])
    yield model_table(rows, size, reason)
    factor = rate_factor(config)
    if "lr" in config["optimizer"]:
        rule = config["lr_scaling"]["_target_"].rpartition(".")[2]
        yield (
            f"learning rate: {config['optimizer']['lr']:g} x {factor:.4g} = {config['optimizer']['lr'] * factor:.4g} "
            f"(lr_scaling={rule}, {images_per_step(config)} images per step)"
        )
    if config["max_images"] is not None:
        yield f"training ends after {end_of_training(config)['max_steps']} steps, {config['max_images']} images"


def check_balancing(module: PanopticModule, config: Mapping[str, Any]) -> None:
    """Refuse a strategy that this network or this way of training cannot have.

    Raises:
        ValueError: it compares gradients on shared features and there are none, or is not exact when gradients are
            accumulated and `balancing.per_micro_batch` does not accept this.
    """
    balancer = module.balancer
    if balancer.needs_shared and not module.network.shares_features:
        raise ValueError(
            f"balancing {balancer.identity['strategy']} compares gradients on features that heads share, but no two "
            f"heads of {list(module.network.heads)} read the same; choose a strategy that needs losses alone, such as "
            "balancing=uncertainty, or another sharing="
        )
    batches = int((config["trainer"] or {}).get("accumulate_grad_batches") or 1)
    if batches > 1 and not (balancer.exact_when_accumulated or balancer.per_micro_batch):
        raise ValueError(
            f"balancing {balancer.identity['strategy']} is not exact with trainer.accumulate_grad_batches={batches}: "
            "its weights are not linear in the batches' losses. Accept weights of each batch apart with "
            "balancing.per_micro_batch=true, or choose a larger data.batch_size without accumulation"
        )


def try_out(module: PanopticModule) -> FusionResult:
    """Fuse the outputs of one small image before training; errors as `try_fusion`."""
    return try_fusion(module.network, module.fusion, module.categories, module.infer)


def check_monitor(score: str, result: FusionResult) -> None:
    """Raise ValueError if validations of a fusion that returns such a result have no such score."""
    known = MONITORS if result.instances is None else MONITORS + MONITORS_OF_INSTANCES
    if score not in known:
        raise ValueError(f"expected monitor to be one of {', '.join(known)} with this fusion, got {score!r}")


def build_trainer(
    config: Mapping[str, Any], folder: Path, request: StopRequest | None = None, point: ResumePoint | None = None
) -> pl.Trainer:
    """A trainer that writes metrics, checkpoints and pictures into the run's folder.

    Args:
        config: resolved.
        folder: of the run.
        request: to stop, of this process.
        point: where the run goes on.
    """
    leave_out_untrue_messages()
    checkpoints = folder / "checkpoints"
    kept: dict[str, Any] = {"dirpath": checkpoints, "enable_version_counter": False}
    callbacks = [
        DataWait(),  # first, so that what others do at the start of a batch is no wait
        SeedSteps(config["seed"]),
        LoggerPositions(),
        Pictures(folder / "pictures", count=config["pictures"]),
        CategoryTables(),
        *([CategoryScores(config["logged_categories"])] if config["logged_categories"] else []),
        *[build(node) for node in (config["callbacks"] or {}).values()],
        ShareStatistics(),  # after a moving average has put its weights in place
        ModelCheckpoint(filename="best", monitor=config["monitor"], mode="max", **kept),
        ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **kept),
        StepCheckpoints(checkpoints, every=config["checkpoint_every"]),
        StopBetweenSteps(request or StopRequest(), checkpoints),
    ]
    trainer: pl.Trainer = build(
        {**config["trainer"], **end_of_training(config), "precision": precision(config["trainer"]["precision"])},
        profiler=profiler_of(config["trainer"]["profiler"], folder / "profile"),
        callbacks=callbacks,
        logger=[_logger(node, folder, point) for node in config["logger"].values()],
        plugins=[WholeFileIO()],
        default_root_dir=str(folder),
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    for logger in trainer.loggers:
        logger.log_hyperparams(dict(config))
    return trainer


def _logger(node: Mapping[str, Any], folder: Path, point: ResumePoint | None) -> Logger:
    """The logger of a node, where the checkpoint left it: its rows, its W&B run, its steps."""
    make = build(node)
    goes_on = point is not None and point.path.parents[1].resolve() == folder  # else it begins files of its own
    found = point.loggers if point is not None and goes_on else {}
    position: dict[str, Any] = {}
    if issubclass(make.func, MetricsFile):
        position = {"rows": found.get("rows", 0)}
    elif issubclass(make.func, WandbLogger) and "wandb_id" in found and "WANDB_RUN_ID" not in os.environ:
        position = {"id": found["wandb_id"], "resume": "allow"}  # within a W&B agent the run is the agent's
    elif issubclass(make.func, TensorBoardLogger) and point is not None and goes_on:
        position = {"purge_step": point.global_step}
    logger: Logger = make(save_dir=str(folder), **position)
    return logger


def precision(choice: str) -> Any:
    """The choice "auto" is bf16-mixed on GPUs that have it, else 32-true; other choices are Lightning's own."""
    if choice != "auto":
        return choice
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"
