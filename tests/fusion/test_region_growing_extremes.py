"""Images and detections at the edge of what the region growing meets."""

import math

import pytest
import torch
from top_down_scenes import (
    CATEGORIES,
    check_refined,
    detections_from,
    drawn_map,
    drawn_mask,
    grow_regions,
    logits_of,
    random_scene,
    same_result,
)

from panoptic.fusion.region_growing import fuse_region_growing
from panoptic.structures import Segment

SKY, CAR, TRUCK = range(3)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (13, 1), (5, 7)])
@pytest.mark.parametrize("category_id", [SKY, CAR])
def test_an_image_of_one_category_and_no_detections(size, category_id):
    result = grow_regions(torch.full(size, category_id), [], [], [])
    score = pytest.approx(float(logits_of(torch.full(size, category_id)).softmax(0).amax()), rel=1e-5)
    expected = Segment(1, category_id, score=score if category_id == CAR else None, area=size[0] * size[1])
    assert result.panoptic_map.segments == (expected,)
    check_refined(result)


def test_detections_without_foreground_vanish():
    result = grow_regions(drawn_map("0033", "0033"), [torch.ones(2, 4, dtype=torch.bool)], [CAR], [0.9])
    assert len(result.instances.scores) == 0
    assert result.instances.masks.shape == (0, 2, 4)
    check_refined(result)


def test_of_two_detections_with_the_same_mask_and_score_one_stays():
    semantic_map = drawn_map("0110", "0110")
    mask = drawn_mask(".##.", ".##.")
    result = grow_regions(semantic_map, [mask, mask], [TRUCK, CAR], [0.5, 0.5])
    assert result.instances.category_ids.tolist() == [CAR]
    check_refined(result)


def test_a_mask_without_pixels_grows_nowhere():
    semantic_map = drawn_map("0110000", "0110000", "3333333")
    result = grow_regions(semantic_map, [torch.zeros(3, 7, dtype=torch.bool)], [CAR], [0.9], min_area=5)
    assert len(result.instances.scores) == 0


@pytest.mark.parametrize("size", [(1, 1), (90, 130)])
def test_a_thousand_detections_make_a_valid_result(size):
    logits, masks, category_ids, scores = random_scene(1, size, 1000, cell=20)
    outputs = {"semantic": logits, "instances": detections_from(masks, category_ids, scores, size)}
    check_refined(fuse_region_growing(outputs, CATEGORIES, min_area=0))


@pytest.mark.parametrize("num_threads", [2, 3])
def test_the_number_of_threads_changes_nothing(num_threads):
    logits, masks, category_ids, scores = random_scene(5, (61, 83), 20, cell=7)
    outputs = {"semantic": logits, "instances": detections_from(masks, category_ids, scores)}
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, num_threads):
            torch.set_num_threads(threads)
            results.append(fuse_region_growing(outputs, CATEGORIES, min_area=4))
    finally:
        torch.set_num_threads(before)
    assert same_result(*results)
    assert torch.equal(results[0].instances.masks, results[1].instances.masks)
    assert torch.equal(results[0].instances.boxes, results[1].instances.boxes)
    assert len(results[0].instances.scores) > 20


def test_outputs_are_left_alone():
    logits, masks, category_ids, scores = random_scene(6, (17, 23), 5)
    detections = detections_from(masks, category_ids, scores)
    before = logits.clone(), [mask.clone() for mask in detections.masks]
    fuse_region_growing({"semantic": logits, "instances": detections}, CATEGORIES)
    assert torch.equal(logits, before[0])
    assert all(torch.equal(one, other) for one, other in zip(detections.masks, before[1], strict=True))


def test_a_missing_output_is_named():
    with pytest.raises(KeyError, match=r"expected an output 'semantic', got \['instances'\]; add its head"):
        fuse_region_growing({"instances": detections_from([], [], [], (3, 4))}, CATEGORIES)


def test_logits_that_are_not_finite_are_refused():
    logits = logits_of(drawn_map("0110"))
    logits[3, 0, 2] = math.nan
    with pytest.raises(ValueError, match="expected finite values in semantic, got nan or infinity; the network has di"):
        fuse_region_growing({"semantic": logits, "instances": detections_from([], [], [], (1, 4))}, CATEGORIES)


def test_a_negative_min_area_is_refused():
    with pytest.raises(ValueError, match="expected min_area of at least 0, got -1"):
        grow_regions(drawn_map("0110"), [], [], [], min_area=-1)
