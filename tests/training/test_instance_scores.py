"""Mask AP and the IoU of the semantic map in validations: there when the fusion returns instances."""

import math
from functools import partial

import pytest
import torch
from drawn import draw
from tiny_training import data_and_module, plain_trainer

from panoptic.metrics import MaskAveragePrecision
from panoptic.structures import Category, FusionResult, Instances
from panoptic.training.instance_scores import InstanceScores

pytestmark = pytest.mark.slow

SEMANTIC = ["heads=semantic", "fusion=semantic"]
CATEGORIES = [Category(0, "road", is_thing=False), Category(1, "car", is_thing=True)]


def semantic_map_of(panoptic_map):
    """Category ids; 0 on void, where nothing is counted."""
    semantic_map = torch.zeros(panoptic_map.size, dtype=torch.int64)
    for segment in panoptic_map.segments:
        semantic_map[panoptic_map.segment_ids == segment.id] = segment.category_id
    return semantic_map


def things_of(panoptic_map, categories):
    things = [s for s in panoptic_map.segments if categories[s.category_id].is_thing and not s.is_crowd]
    masks = [panoptic_map.segment_ids == segment.id for segment in things]
    return instances_of(masks, [segment.category_id for segment in things], panoptic_map.size)


def instances_of(masks, category_ids, size):
    count = len(masks)
    return Instances(
        category_ids=torch.tensor(category_ids, dtype=torch.int64),
        masks=torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.bool),
        boxes=torch.zeros(count, 4),
        scores=torch.linspace(1, 0.5, count),
        is_crowd=torch.zeros(count, dtype=torch.bool),
    )


def next_truth(samples, outputs, categories, *, size, chosen):
    """A fusion that knows the truth: its map, and what `chosen` makes of the sample as instances."""
    sample = next(samples)
    assert sample.panoptic_map.size == size
    return FusionResult(sample.panoptic_map, semantic_map_of(sample.panoptic_map), chosen(sample, categories))


def own(sample, categories):
    keep = ~sample.instances.is_crowd
    found = sample.instances
    return instances_of(list(found.masks[keep]), found.category_ids[keep].tolist(), sample.size)


def of_the_map(sample, categories):
    return things_of(sample.panoptic_map, categories)


def none(sample, categories):
    return None


def validate(chosen, *overrides, resized=False):
    """The logged values, the module, and the samples that the fusion saw."""
    data, module = data_and_module(*SEMANTIC, "data.val.length=6", "data.val.difficulty=hard", *overrides)
    samples = [data.val[index] for index in range(6)]
    if resized:
        samples = [data.eval_transform(sample) for sample in samples]
    module.fusion = partial(next_truth, iter(samples), chosen=chosen)
    trainer = plain_trainer(limit_val_batches=None)
    trainer.validate(module, datamodule=data, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}, module, samples


def test_a_fusion_without_instances_has_no_mask_ap():
    logged, module, _ = validate(none)
    assert logged["val_pq"] == pytest.approx(100)
    assert not [name for name in logged if "mask_ap" in name or "semantic_map" in name]
    assert "mask_ap" not in module.category_rows()[0]


def test_perfect_instances_and_semantic_map_have_a_hundred_percent():
    logged, module, _ = validate(own)
    names = ("val_mask_ap", "val_mask_ap50", "val_semantic_map_miou")
    assert [logged[name] for name in names] == pytest.approx([100] * 3)
    assert [module.quality_values[name.removeprefix("val_")] for name in names] == pytest.approx([1] * 3)
    rows = module.category_rows()
    found = [row for row in rows if not math.isnan(row["mask_ap"])]
    assert {row["name"] for row in found} >= {"person", "car"}
    assert all(row["mask_ap"] == row["mask_ap50"] == row["semantic_map_iou"] == pytest.approx(1) for row in found)
    assert all(math.isnan(row["mask_ap"]) for row in rows if not row["is_thing"])


def test_targets_are_the_own_overlapping_instances():
    logged, module, samples = validate(of_the_map)
    by_hand = MaskAveragePrecision(module.categories)
    for sample in samples:
        by_hand.update(of_the_map(sample, module.categories), sample.instances)
    values = by_hand.compute()
    assert 0.1 < values["mask_ap"] < 0.99
    assert logged["val_mask_ap"] == pytest.approx(100 * values["mask_ap"])
    assert logged["val_mask_ap50"] == pytest.approx(100 * values["mask_ap50"])


def test_scoring_at_the_networks_size_takes_the_resized_instances():
    logged, _, samples = validate(own, "+data.eval_transform.longest_side=40", "evaluate.size=network", resized=True)
    assert samples[0].size == (30, 40)
    assert logged["val_mask_ap"] == pytest.approx(100)


def test_without_own_instances_those_of_the_map_are_targets():
    target = draw("rra", "bba", categories={"r": 0, "a": 1, "b": 1})
    scores = InstanceScores(CATEGORIES)
    result = FusionResult(target, semantic_map_of(target), things_of(target, CATEGORIES))
    scores.update(result, target, None)
    assert scores.compute() == {"mask_ap": 1.0, "mask_ap50": 1.0, "semantic_map_miou": 1.0}
    scores.reset()
    assert scores.compute() == {}
    assert scores.joined([{"name": "road"}, {"name": "car"}]) == [{"name": "road"}, {"name": "car"}]


def test_the_semantic_map_is_scored_and_not_the_panoptic_one():
    target = draw("rra", "rba", categories={"r": 0, "a": 1, "b": 1})
    refined = torch.tensor([[0, 0, 1], [1, 1, 1]])
    scores = InstanceScores(CATEGORIES)
    scores.update(FusionResult(target, refined, things_of(target, CATEGORIES)), target, None)
    # road: 2 of 3, car: 3 of 4
    rows = scores.joined([{"name": "road"}, {"name": "car"}])
    assert [row["semantic_map_iou"] for row in rows] == [2 / 3, 3 / 4]
    assert scores.compute()["semantic_map_miou"] == pytest.approx((2 / 3 + 3 / 4) / 2)


def test_a_validation_forgets_the_last_one():
    _, module, samples = validate(own)
    images = module.instance_scores.mask_ap.num_images
    module.on_validation_epoch_start()
    assert (images, module.instance_scores.mask_ap.num_images) == (len(samples), 0)


def test_checkpoints_hold_nothing_of_it():
    _, module, _ = validate(own)
    assert not [name for name in module.state_dict() if "instance_scores" in name]
