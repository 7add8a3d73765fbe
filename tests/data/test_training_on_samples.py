"""Ten training steps and a validation on real photographs, for each data set of DeepLabv3."""

import math
import os
from pathlib import Path

import pytest
from experiment_steps import data_and_module, fit_steps

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("PANOPTIC_SAMPLES" not in os.environ, reason="PANOPTIC_SAMPLES is not set"),
]

VOC = "voc2012_style/VOCdevkit/VOC2012"
SEMANTIC = "experiment=deeplabv3_scenes"
SMALL = ["data.train_transform.size=[65,81]", "data.eval_transform.longest_side=160"]
SMALL += ["data.batch_size=1", "data.num_workers=0"]


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
    root = f"data.root={Path(os.environ['PANOPTIC_SAMPLES']) / folder}"
    data, module = data_and_module(*words, root, *SMALL)
    trainer = fit_steps(data, module, 10, check_val_every_n_epoch=100)
    assert math.isfinite(trainer.callback_metrics["train_loss"])
    trainer.validate(module, datamodule=data, verbose=False)
    assert 0 <= module.quality_values["miou"] <= 1
