"""Two training steps and a validation of an experiment on scenes."""

import pytorch_lightning as pl
import torch

from panoptic.assembly import build_data, build_module
from panoptic.configuration import load_config, resolved


def check_two_steps(experiment, *overrides):
    """Every parameter moves, at the latest in the second step (behind residuals that begin at zero); there is a PQ."""
    pl.seed_everything(0, verbose=False)
    tiny = ["data.train.length=4", "data.val.length=1", "data.batch_size=2", "data.num_workers=0"]
    words = [f"experiment={experiment}", *tiny, "scheduler.warmup_steps=0", *overrides]
    config = resolved(load_config("train", words))
    data = build_data(config)
    module = build_module(config, data)
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=2,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 2
    assert torch.isfinite(trainer.callback_metrics["val_pq"])
    still = [name for name, parameter in module.named_parameters() if torch.equal(parameter, before[name])]
    assert not still, f"{still} did not move"
