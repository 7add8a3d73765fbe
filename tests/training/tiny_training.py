"""Data, module and trainer of a training that takes a second."""

import pytorch_lightning as pl

from panoptic.assembly import build_data, build_module
from panoptic.configuration import load_config, resolved

TINY = [
    "backbone.name=test_resnet",
    "decoder.filters=16",
    "keypoints.radius=6.0",
    "data.train.length=4",
    "data.val.length=3",
    "data.train.size=[48,64]",
    "data.batch_size=2",
    "data.num_workers=0",
    "trainer.max_epochs=1",
]


def compose(*overrides):
    return resolved(load_config("train", [*TINY, *overrides]))


def data_and_module(*overrides, loss_weights=None):
    """Built from configuration, its `loss_weights` replaced if others are given."""
    pl.seed_everything(0, verbose=False)
    config = compose(*overrides)
    if loss_weights is not None:
        config["loss_weights"] = loss_weights
    data = build_data(config)
    return data, build_module(config, data)


def plain_trainer(*callbacks, **settings):
    """One that writes nothing."""
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
        **{"max_epochs": 1, "limit_val_batches": 0, "num_sanity_val_steps": 0, **settings},
    )
