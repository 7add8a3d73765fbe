"""Trainings of three steps with everything noted on which one process and several have to agree."""

from dataclasses import dataclass, field

import pytorch_lightning as pl
import torch.distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from panoptic.assembly import build_data, build_module
from panoptic.configuration import load_config, resolved
from panoptic.training.processes import ShareStatistics

STEPS = 3
GLOBAL_BATCH = 6  # 1, 2 and 3 divide it
TINY = [
    "data=scenes",
    f"data.train.length={STEPS * GLOBAL_BATCH}",
    "data.train.size=[48,64]",
    f"data.batch_size={GLOBAL_BATCH}",
    "data.num_workers=0",
    "scheduler.warmup_steps=0",
]


def compose(*overrides):
    return resolved(load_config("train", [*overrides[:1], *TINY, *overrides[1:]]))


def data_and_module(*overrides):
    """The same weights for everyone."""
    pl.seed_everything(0, verbose=False)
    config = compose(*overrides)
    data = build_data(config)
    return data, build_module(config, data)


class FrozenStatistics(pl.Callback):
    """Batch norm with the statistics it started with: those of a batch depend on how it is split."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        for module in pl_module.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


@dataclass
class Record:
    """What one process saw.

    Args:
        local_losses: {name: loss of this process's images} of every step.
        logged: {name: what the log says} of every step.
        gradients: {parameter: gradient after they were exchanged, before clipping} of every step.
        parameters: at the end.
    """

    local_losses: list = field(default_factory=list)
    logged: list = field(default_factory=list)
    gradients: list = field(default_factory=list)
    parameters: dict = field(default_factory=dict)


class Recorder(pl.Callback):
    """Fills a record."""

    def __init__(self):
        self.record = Record()

    def on_before_backward(self, trainer, pl_module, loss):
        losses = {f"train_{name}": value.item() for name, value in pl_module.step_record.losses.items()}
        self.record.local_losses.append({"train_loss": loss.item(), **losses})

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.record.gradients.append({name: p.grad.clone() for name, p in pl_module.named_parameters()})

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.record.logged.append(numbers(trainer.callback_metrics, ("train_", "weight_")))

    def on_validation_epoch_end(self, trainer, pl_module):
        self.record.parameters = {name: p.detach().clone() for name, p in pl_module.named_parameters()}


def numbers(metrics, prefixes):
    return {name: float(value) for name, value in metrics.items() if name.startswith(prefixes)}


def trainer_of(module, callbacks, **settings):
    """One that writes nothing, of this process alone or of the group that it is in."""
    world_size = dist.get_world_size() if dist.is_initialized() else 1
    return pl.Trainer(
        accelerator="cpu",
        devices=world_size,
        gradient_clip_val=module.config["trainer"]["gradient_clip_val"],
        callbacks=callbacks,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **{"strategy": "ddp" if world_size > 1 else "auto", **settings},
    )


def train_frozen(*overrides):
    """The record of three steps and a validation, in fp64 and with batch norm's statistics frozen."""
    data, module = data_and_module(*overrides)
    module.network.double()
    recorder = Recorder()
    trainer_of(module, [FrozenStatistics(), ShareStatistics(), recorder]).fit(module, datamodule=data)
    return recorder.record
