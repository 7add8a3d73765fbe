"""Evaluation batches carry the data set's own instances as they were, beside what the network sees."""

import pytest
import torch
from noise_data import Noise, datamodule

from panoptic.data.scenes import CATEGORIES, Scenes
from panoptic.data.transforms import EvalTransform

SCENES = Scenes("val", 3, (48, 64), "hard")


def scenes_module(**settings):
    return datamodule(train=Noise(6, CATEGORIES), val=SCENES, **settings)


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_they_are_untouched_by_the_transform(num_workers):
    module = scenes_module(num_workers=num_workers)
    module.eval_transform = EvalTransform(40)
    for number, batch in enumerate(module.val_dataloader()):
        ((truth,), expected) = batch.truth_instances, SCENES[number].instances
        assert torch.equal(truth.masks, expected.masks)
        assert truth.category_ids.tolist() == expected.category_ids.tolist()
        assert truth.is_crowd.tolist() == expected.is_crowd.tolist()
        assert batch.truths[0].size == truth.masks.shape[1:] == (48, 64)
        assert batch.samples[0].instances.masks.shape[1:] == (30, 40)


def test_data_without_own_instances_has_none():
    batches = list(datamodule().val_dataloader())
    assert [batch.truth_instances for batch in batches] == [[None]] * 7


def test_training_batches_and_those_of_a_process_without_images_carry_none():
    module = scenes_module()
    assert next(iter(module.train_dataloader())).truth_instances == []
    module.trainer = type("Trainer", (), {"global_rank": 3, "world_size": 4})()
    (batch,) = module.val_dataloader()
    assert batch.truth_instances == []
