"""Mask AP of a validation over processes counts every image once, also where a process has none."""

import pytest
import torch
import torch.distributed as dist
from drawn import draw

from panoptic.data.samplers import EvalSampler
from panoptic.structures import Category, FusionResult, Instances
from panoptic.training.instance_scores import InstanceScores

CATEGORIES = [Category(0, "road", is_thing=False), Category(1, "car", is_thing=True)]


def score(num_images, with_instances):
    """Values and rows after this process's share of the images."""
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    scores = InstanceScores(CATEGORIES)
    for number in EvalSampler(num_images, rank, world_size).indices:
        target = draw("rraa", "bbaa", "bbrr", categories={"r": 0, "a": 1, "b": 1})
        ids = target.segment_ids
        masks = torch.stack([ids == 1, ids == 2]).roll(number % 2, dims=2)
        found = Instances(
            torch.ones(2).long(), masks, torch.zeros(2, 4), torch.tensor([0.9, 0.3]), torch.zeros(2).bool()
        )
        semantic_map = (ids < 3 + number % 2).long()
        scores.update(FusionResult(target, semantic_map, found if with_instances else None), target, None)
    return scores.compute(), scores.joined([{"name": "road"}, {"name": "car"}])


@pytest.mark.slow
@pytest.mark.parametrize("num_images", [5, 1])
def test_the_numbers_are_those_of_one_process(gloo, num_images):
    values, rows = score(num_images, True)
    assert 0 < values["mask_ap"] <= 1
    for got_values, got_rows in gloo.run(3, score, num_images, True):
        assert got_values == pytest.approx(values)
        assert got_rows[1] == pytest.approx(rows[1])


@pytest.mark.slow
def test_no_process_has_numbers_without_instances(gloo):
    assert gloo.run(3, score, 2, False) == [({}, [{"name": "road"}, {"name": "car"}])] * 3
