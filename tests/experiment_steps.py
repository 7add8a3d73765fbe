"""A few training steps of an experiment, on the CPU and without files."""

import pytorch_lightning as pl
import torch
from training.tiny_training import plain_trainer

from panoptic.assembly import build_data, build_module
from panoptic.configuration import load_config, resolved


def data_and_module(*words):
    """Built from a configuration without its warmup, from the same seed."""
    pl.seed_everything(0, verbose=False)
    config = resolved(load_config("train", ["scheduler.warmup_steps=0", *words]))
    data = build_data(config)
    return data, build_module(config, data)


def fit_steps(data, module, num_steps, *callbacks, **settings):
    """Train that many steps, with validations after epochs; returns the trainer."""
    settings = {"max_epochs": -1, "limit_val_batches": 1.0, **settings}
    trainer = plain_trainer(*callbacks, max_steps=num_steps, **settings)
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == num_steps
    return trainer


def check_two_steps(experiment, *overrides):
    """Every parameter moves, at the latest in the second step (behind residuals that begin at zero); there is a PQ."""
    tiny = ["data.train.length=4", "data.val.length=1", "data.batch_size=2", "data.num_workers=0"]
    data, module = data_and_module(f"experiment={experiment}", *tiny, *overrides)
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    trainer = fit_steps(data, module, 2)
    assert torch.isfinite(trainer.callback_metrics["val_pq"])
    still = [name for name, parameter in module.named_parameters() if torch.equal(parameter, before[name])]
    assert not still, f"{still} did not move"
