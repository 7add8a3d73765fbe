"""Instances alone, without a semantic head."""

import pytest
import torch
from top_down_scenes import CATEGORIES, detections_from, drawn_mask, logits_of, random_scene

from panoptic.fusion.detection_score import fuse_detection_score
from panoptic.fusion.instances import fuse_instances
from panoptic.structures import Detections


def test_the_better_instance_is_on_top_and_the_rest_is_void():
    car = drawn_mask("##....", "##....", "##....")
    person = drawn_mask("......", ".###..", ".###..")
    result = fuse_instances({"instances": detections_from([car, person], [1, 4], [0.6, 0.9])}, CATEGORIES)
    # the person, 6 px, takes 2 of the 6 px of the car, which keeps more than half
    assert result.panoptic_map.segment_ids.tolist() == [[2, 2, 0, 0, 0, 0], [2, 1, 1, 1, 0, 0], [2, 1, 1, 1, 0, 0]]
    assert [(s.category_id, s.area) for s in result.panoptic_map.segments] == [(4, 6), (1, 4)]
    assert [s.score for s in result.panoptic_map.segments] == pytest.approx([0.9, 0.6])
    assert result.semantic_map.tolist() == [[1, 1] + [255] * 4, *[[1, 4, 4, 4, 255, 255]] * 2]
    assert result.semantic_map.dtype == torch.int64
    assert torch.equal(result.instances.masks, torch.stack([car, person]))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [None, (31, 60)])
def test_instances_are_those_of_merging_by_detection_score(seed, size):
    _, masks, category_ids, scores = random_scene(seed, (23, 34), 12)
    detections = detections_from(masks, category_ids, scores, (23, 34))
    logits = logits_of(torch.zeros(23, 34))
    alone = fuse_instances({"instances": detections}, CATEGORIES, size=size, score_threshold=0.3)
    beside = fuse_detection_score(
        {"semantic": logits, "instances": detections}, CATEGORIES, size=size, score_threshold=0.3, min_area=0
    )
    things = [s for s in beside.panoptic_map.segments if CATEGORIES[s.category_id].is_thing]
    assert len(things) > 2
    assert list(alone.panoptic_map.segments) == things
    ids = beside.panoptic_map.segment_ids
    assert torch.equal(alone.panoptic_map.segment_ids, torch.where(ids <= len(things), ids, 0))
    assert torch.equal(alone.instances.masks, beside.instances.masks)


def test_without_detections_everything_is_void():
    nothing = Detections(
        torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, 5, 5), (4, 7)
    )
    result = fuse_instances({"instances": nothing}, CATEGORIES, size=(8, 9))
    assert result.panoptic_map.size == (8, 9)
    assert not result.panoptic_map.segment_ids.any()
    assert result.panoptic_map.segments == ()
    assert (result.semantic_map == 255).all()
    assert result.instances.masks.shape == (0, 8, 9)


def test_a_missing_output_is_named():
    with pytest.raises(KeyError, match="expected an output 'instances', got"):
        fuse_instances({"semantic": torch.zeros(7, 4, 5)}, CATEGORIES)
