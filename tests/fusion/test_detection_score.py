import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles.merging import merge
from top_down_scenes import (
    ALL,
    CATEGORIES,
    STUFF,
    check_table,
    detections_from,
    drawn_map,
    drawn_mask,
    logits_of,
    picked,
    random_scene,
    same_result,
    shown_by,
)

from panoptic.fusion.detection_score import fuse_detection_score
from panoptic.fusion.masks import full_masks, paste_masks
from panoptic.structures import Category, Detections, Segment

SKY_AND_GRASS = drawn_map("0000000", "0000000", "0003333", "3333333", "3333333")


def fuse(masks, category_ids, scores, semantic_map=SKY_AND_GRASS, **options):
    outputs = {
        "semantic": logits_of(semantic_map),
        "instances": detections_from(masks, category_ids, scores, tuple(semantic_map.shape)),
    }
    return fuse_detection_score(outputs, CATEGORIES, **(ALL | options))


def block(top, left, bottom, right, size=(5, 7)):
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def test_the_higher_score_is_on_top_and_stuff_fills_what_is_left():
    car = drawn_mask(".......", ".......", "####...", "####...", ".......")
    person = drawn_mask(".......", ".......", "..###..", "..###..", "..###..")  # half of it is on the car
    result = fuse([person, car], [4, 1], [0.6, 0.75])
    assert result.panoptic_map.segments == (
        Segment(1, 1, score=0.75, area=8),
        Segment(2, 4, score=pytest.approx(0.6), area=5),
        Segment(3, 0, area=14),
        Segment(4, 3, area=8),
    )
    expected = drawn_map("3333333", "3333333", "1111244", "1111244", "4422244")
    assert torch.equal(result.panoptic_map.segment_ids, expected)
    assert torch.equal(result.semantic_map, SKY_AND_GRASS)


@pytest.mark.parametrize(("covered", "stays"), [(1, True), (2, True), (3, False)])
def test_an_instance_needs_half_of_its_mask_free(covered, stays):
    result = fuse([block(0, 0, 2, 3), block(0, 3 - covered, 1, 7 - covered)], [1, 4], [0.9, 0.8])
    assert (shown_by(result)[0, 3][0] == 4) is stays  # its first free pixel


@pytest.mark.parametrize(("threshold", "stays"), [(0.0, True), (0.25, True), (0.26, False), (1.0, False)])
def test_the_free_part_that_is_needed_is_an_option(threshold, stays):
    result = fuse([block(0, 0, 2, 3), block(0, 0, 1, 4)], [1, 4], [0.9, 0.8], overlap_threshold=threshold)
    assert (4 in [segment.category_id for segment in result.panoptic_map.segments]) is stays


def test_a_dropped_instance_leaves_its_pixels_to_the_next():
    masks = [block(0, 0, 1, 4), block(0, 1, 1, 6), block(0, 4, 1, 6)]  # the second has 2 of 5 pixels free
    assert shown_by(fuse(masks, [1, 2, 4], [0.9, 0.8, 0.7]))[0, 4] == (4, 0.7)


@pytest.mark.parametrize("seed", range(12))
def test_equals_the_paper_one_pixel_at_a_time(seed):
    size = (17, 23)
    logits, masks, category_ids, scores = random_scene(seed, size, 3 * (seed % 5))
    outputs = {"semantic": logits, "instances": detections_from(masks, category_ids, scores, size)}
    result = fuse_detection_score(outputs, CATEGORIES, score_threshold=0.2, min_area=7, overlap_threshold=0.6)
    order = [n for n in sorted(range(len(scores)), key=lambda n: -scores[n]) if scores[n] >= 0.2]
    stuff_map = np.array(STUFF)[logits[STUFF].argmax(0).numpy()]
    shown, stay = merge(
        [masks[n].numpy() for n in order],
        [category_ids[n] for n in order],
        stuff_map,
        overlap_threshold=0.6,
        min_area=7,
    )
    expected = {
        (y, x): (pixel[0], None if pixel[1] < 0 else round(float(np.float32(scores[order[pixel[1]]])), 5))
        for y, row in enumerate(shown)
        for x, pixel in enumerate(row)
        if pixel is not None
    }
    assert shown_by(result) == expected
    check_table(result.panoptic_map)
    assert sum(segment.score is not None for segment in result.panoptic_map.segments) == len(stay)


@pytest.mark.parametrize("size", [(31, 40), (11, 9)])
def test_masks_and_logits_are_brought_to_the_size_of_the_result_first(size):
    logits, masks, category_ids, scores = random_scene(1, (17, 23), 6)
    detections = detections_from(masks, category_ids, scores)
    result = fuse_detection_score({"semantic": logits, "instances": detections}, CATEGORIES, size=size, **ALL)
    large = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
    pasted = full_masks(paste_masks(detections, size))
    expected = fuse_detection_score(
        {"semantic": large, "instances": detections_from(list(pasted), category_ids, scores)}, CATEGORIES, **ALL
    )
    assert result.panoptic_map.size == size
    assert same_result(result, expected)
    assert torch.equal(result.instances.masks, pasted)


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_detections_changes_nothing_even_where_scores_are_equal(seed):
    logits, masks, category_ids, _ = random_scene(seed, (17, 23), 12)
    detections = detections_from(masks, category_ids, [0.5, 0.75, 0.5, 0.5] * 3)
    order = np.random.default_rng(seed).permutation(12).tolist()
    one, other = (
        fuse_detection_score({"semantic": logits, "instances": found}, CATEGORIES, **ALL)
        for found in (detections, picked(detections, order))
    )
    assert same_result(one, other)


def test_of_two_detections_with_the_same_mask_and_score_one_stays():
    result = fuse([block(1, 1, 3, 4)] * 2, [4, 2], [0.5, 0.5])
    assert [s.category_id for s in result.panoptic_map.segments if s.score is not None] == [2]
    assert len(result.instances.scores) == 2


@pytest.mark.parametrize(("threshold", "kept"), [(0.25, 3), (0.5, 2), (0.51, 1), (0.76, 0)])
def test_detections_take_part_from_the_score_threshold_on(threshold, kept):
    masks = [block(0, 2 * n, 1, 2 * n + 2) for n in range(3)]
    result = fuse(masks, [1, 1, 1], [0.5, 0.25, 0.75], score_threshold=threshold)
    found = [s.score for s in result.panoptic_map.segments if s.score is not None]
    assert found == [0.75, 0.5, 0.25][:kept]
    assert result.instances.scores.tolist() == [0.5, 0.25, 0.75]


@pytest.mark.parametrize("most", [0, 2, 3, 100])
def test_the_best_detections_take_part_up_to_their_largest_number(most):
    masks = [block(0, 2 * n, 1, 2 * n + 2) for n in range(3)]
    result = fuse(masks, [1, 1, 1], [0.5, 0.25, 0.75], max_instances=most)
    assert [s.score for s in result.panoptic_map.segments if s.score is not None] == [0.75, 0.5, 0.25][:most]


@pytest.mark.parametrize(("min_area", "is_kept"), [(5, True), (6, True), (7, False)])
def test_areas_of_stuff_connect_at_corners_and_small_ones_are_void(min_area, is_kept):
    semantic_map = drawn_map("3300000", "3300000", "0033000", "0000000", "0000000")
    result = fuse([], [], [], semantic_map, min_area=min_area)
    assert bool((result.panoptic_map.segment_ids[semantic_map == 3] > 0).all()) is is_kept
    assert (result.panoptic_map.segment_ids[semantic_map == 0] > 0).all()
    check_table(result.panoptic_map)


def test_an_instance_may_cut_stuff_into_areas_one_of_which_is_small():
    result = fuse([block(0, 2, 5, 4)], [1], [0.9], torch.zeros(5, 7), min_area=11)  # 10 pixels at the left, 15 right
    assert torch.equal(result.panoptic_map.segment_ids, drawn_map(*["0011222"] * 5))


def test_things_are_never_void_by_their_area_nor_shown_without_a_detection():
    semantic_map = drawn_map("1111111", "1111111", "0001111", "3333333", "3333333")
    result = fuse([block(0, 0, 1, 1)], [4], [0.9], semantic_map, min_area=7)
    assert {s.category_id for s in result.panoptic_map.segments} <= {0, 3, 4}
    assert shown_by(result)[0, 0][0] == 4


def test_stuff_is_the_best_of_stuff_where_a_thing_is_more_probable():
    logits = torch.zeros(len(CATEGORIES), 2, 3)
    logits[1], logits[3], logits[0] = 5.0, 2.0, 1.0
    outputs = {"semantic": logits, "instances": detections_from([], [], [], (2, 3))}
    result = fuse_detection_score(outputs, CATEGORIES, min_area=0)
    assert result.panoptic_map.segments == (Segment(1, 3, area=6),)
    assert (result.semantic_map == 1).all()


def test_categories_without_stuff_leave_void():
    categories = tuple(Category(n, str(n), is_thing=True) for n in range(2))
    mask = block(1, 1, 3, 4)
    outputs = {"semantic": torch.randn(2, 5, 7), "instances": detections_from([mask], [1], [0.9])}
    result = fuse_detection_score(outputs, categories, min_area=0)
    assert torch.equal(result.panoptic_map.segment_ids, mask.long())


def test_categories_without_things_need_no_detections():
    categories = tuple(Category(n, str(n), is_thing=False) for n in range(2))
    outputs = {"semantic": torch.randn(2, 5, 7), "instances": detections_from([], [], [], (5, 7))}
    result = fuse_detection_score(outputs, categories, min_area=0)
    assert (result.panoptic_map.segment_ids > 0).all()
    assert len(result.instances.scores) == 0


def test_a_mask_without_pixels_is_dropped():
    nothing = torch.zeros(5, 7, dtype=torch.bool)
    result = fuse([nothing, block(0, 0, 2, 2)], [1, 4], [0.9, 0.8], overlap_threshold=0.0)
    assert [s.category_id for s in result.panoptic_map.segments if s.score is not None] == [4]
    assert result.instances.masks.sum((1, 2)).tolist() == [0, 4]


@pytest.mark.parametrize("size", [(1, 1), (90, 130)])
def test_a_thousand_detections_make_a_valid_map(size):
    logits, masks, category_ids, scores = random_scene(0, size, 1000)
    outputs = {"semantic": logits, "instances": detections_from(masks, category_ids, scores, size)}
    result = fuse_detection_score(outputs, CATEGORIES, max_instances=1000, **ALL)
    check_table(result.panoptic_map)
    assert (result.panoptic_map.segment_ids > 0).all()
    assert len(result.instances.scores) == 1000


def test_outputs_are_left_alone_and_all_detections_come_back_as_they_were_pasted():
    logits, masks, category_ids, scores = random_scene(2, (17, 23), 5)
    detections = detections_from(masks, category_ids, scores)
    before = logits.clone(), detections.boxes.clone(), [mask.clone() for mask in detections.masks]
    result = fuse_detection_score({"semantic": logits, "instances": detections}, CATEGORIES)
    assert torch.equal(logits, before[0])
    assert torch.equal(detections.boxes, before[1])
    assert all(torch.equal(one, other) for one, other in zip(detections.masks, before[2], strict=True))
    assert torch.equal(result.instances.masks, torch.stack(masks))
    assert torch.equal(result.instances.boxes, detections.boxes)
    assert result.instances.category_ids.tolist() == category_ids
    assert not result.instances.is_crowd.any()


def test_a_missing_output_is_named():
    with pytest.raises(KeyError, match=r"expected an output 'instances', got \['semantic'\]; add its head"):
        fuse_detection_score({"semantic": logits_of(SKY_AND_GRASS)}, CATEGORIES)


def test_instances_of_another_kind_are_refused():
    outputs = {"semantic": logits_of(SKY_AND_GRASS), "instances": torch.zeros(3, 4)}
    with pytest.raises(TypeError, match="expected instances as Detections, got Tensor; pass one image's outputs"):
        fuse_detection_score(outputs, CATEGORIES)


@pytest.mark.parametrize("category_id", [0, 3, 7, -1])
def test_detections_of_what_is_no_thing_are_refused(category_id):
    with pytest.raises(
        ValueError, match=rf"expected detections of things \[1, .*\], got category ids \[{category_id}\]"
    ):
        fuse([block(0, 0, 2, 2)], [category_id], [0.9])


def test_detections_of_an_image_of_another_size_need_the_size_of_the_result():
    outputs = {
        "semantic": logits_of(SKY_AND_GRASS),
        "instances": detections_from([block(0, 0, 2, 2, (10, 14))], [1], [0.9]),
    }
    with pytest.raises(
        ValueError, match="in an image of 5x7 like the semantic logits, got 10x14; pass the size of the"
    ):
        fuse_detection_score(outputs, CATEGORIES)
    assert fuse_detection_score(outputs, CATEGORIES, size=(5, 7)).panoptic_map.segments[0].area == 1


def test_boxes_that_are_not_finite_are_refused():
    boxes = torch.tensor([[1, 2, float("nan"), 4]])
    found = Detections(torch.tensor([1]), boxes, torch.ones(1), torch.ones(1, 2, 2), (5, 7))
    with pytest.raises(ValueError, match="expected finite values in instances"):
        fuse_detection_score({"semantic": logits_of(SKY_AND_GRASS), "instances": found}, CATEGORIES)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("overlap_threshold", -0.1, r"expected an overlap_threshold in \[0, 1\], got -0.1"),
        ("overlap_threshold", 1.1, r"expected an overlap_threshold in \[0, 1\], got 1.1"),
        ("min_area", -1, "expected min_area of at least 0, got -1"),
        ("max_instances", -1, "expected max_instances of at least 0, got -1"),
    ],
)
def test_a_constant_out_of_its_range_is_refused(option, value, message):
    with pytest.raises(ValueError, match=message):
        fuse([block(0, 0, 2, 2)], [1], [0.9], **{option: value})
