"""Ten training steps and a validation on real photographs, for each data set of DeepLabv3."""

import math
import os
from pathlib import Path

import pytest
import pytorch_lightning as pl

from panoptic.assembly import build_data, build_module
from panoptic.configuration import load_config, resolved

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("PANOPTIC_SAMPLES" not in os.environ, reason="PANOPTIC_SAMPLES is not set"),
]

VOC = "voc2012_style/VOCdevkit/VOC2012"
SEMANTIC = "experiment=deeplabv3_scenes"
SMALL = ["data.train_transform.size=[65,81]", "data.eval_transform.longest_side=160", "data.num_workers=0"]


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        (VOC, [SEMANTIC, "data=voc", "data.train.split=train"]),
        (VOC, ["experiment=deeperlab_scenes", "backbone.name=test_resnet", "data=voc_panoptic"]),
        ("cityscapes", [SEMANTIC, "data=cityscapes_semantic", "data.train.split=val"]),
    ],
    ids=["voc", "voc_panoptic", "cityscapes_semantic"],
)
def test_real_photographs_train_and_validate(folder, words):
    pl.seed_everything(0, verbose=False)
    root = f"data.root={Path(os.environ['PANOPTIC_SAMPLES']) / folder}"
    config = resolved(load_config("train", [*words, root, *SMALL, "data.batch_size=1", "scheduler.warmup_steps=0"]))
    data = build_data(config)
    module = build_module(config, data)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=10,
        check_val_every_n_epoch=100,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 10
    assert math.isfinite(trainer.callback_metrics["train_loss"])
    trainer.validate(module, datamodule=data, verbose=False)
    assert 0 <= module.quality_values["miou"] <= 1
