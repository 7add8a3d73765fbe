"""Mask R-CNN alone, from configuration: it trains, and its masks are scored."""

import pytest
import torch
from tiny_training import data_and_module, plain_trainer

from panoptic.assembly import try_out

ALONE = [
    "heads=mask_rcnn_small",
    "decoder=fpn_small",
    "backbone.output_stride=32",
    "fusion=instances",
    "+fusion.score_threshold=0.05",
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained():
    """The module before and after an epoch of two steps, and the trainer."""
    data, module = data_and_module(*ALONE)
    try_out(module)
    before = {name: value.clone() for name, value in module.network.named_parameters()}
    trainer = plain_trainer(limit_val_batches=2)
    trainer.fit(module, datamodule=data)
    return before, module, trainer


def test_a_step_moves_every_parameter(trained):
    before, module, _ = trained
    unmoved = [name for name, value in module.network.named_parameters() if torch.equal(value, before[name])]
    assert not unmoved


def test_its_losses_and_its_mask_ap_are_logged(trained):
    _, module, trainer = trained
    terms = ("rpn_objectness", "rpn_box", "class", "box", "mask")
    assert module.network.loss_names == [f"instances_{term}" for term in terms]
    for name in module.network.loss_names:
        assert trainer.callback_metrics[f"train_{name}"].isfinite()
        assert trainer.callback_metrics[f"val_{name}"].isfinite()
    assert 0 <= trainer.callback_metrics["val_mask_ap"] <= 100
