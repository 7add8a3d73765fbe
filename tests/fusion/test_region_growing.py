import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles.region_growing import fuse as fuse_slowly
from top_down_scenes import (
    CATEGORIES,
    check_refined,
    detections_from,
    drawn_map,
    drawn_mask,
    grow_regions,
    logits_of,
    picked,
    random_scene,
    same_result,
    shown_by,
)

from panoptic.fusion.masks import full_masks, paste_masks
from panoptic.fusion.region_growing import category_groups, fuse_region_growing
from panoptic.structures import Category

SKY, CAR, TRUCK, GRASS, PERSON, TIE, BALL = range(7)


def owners_of(result):
    """(H, W) of segment ids."""
    return result.panoptic_map.segment_ids.tolist()


def test_figure_2():
    """A car half taken for a truck under a mask that is off by a pixel and cropped, and a person nobody detected."""
    semantic_map = drawn_map(
        "000000000",
        "011122000",
        "011122044",
        "033333344",
        "333333344",
    )
    car = drawn_mask(".........", "..####...", "..####...", "..####...", ".........")
    result = grow_regions(semantic_map, [car], [CAR], [0.75])
    assert (
        owners_of(result)
        == drawn_map(
            "333333333",
            "311111333",
            "311111322",
            "344444422",
            "444444422",
        ).tolist()
    )
    assert [(s.category_id, s.area) for s in result.panoptic_map.segments] == [
        (CAR, 10),
        (PERSON, 6),
        (SKY, 16),
        (GRASS, 13),
    ]
    assert result.panoptic_map.segments[0].score == 0.75
    assert torch.equal(result.semantic_map == CAR, (semantic_map == CAR) | (semantic_map == TRUCK))
    check_refined(result)


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_paper_one_pixel_at_a_time(seed):
    size = (15, 22)
    logits, masks, category_ids, scores = random_scene(seed, size, 2 * (seed % 5), cell=2 + seed % 4)
    min_area = (0, 1, 4, 9)[seed % 4]
    outputs = {"semantic": logits, "instances": detections_from(masks, category_ids, scores, size)}
    result = fuse_region_growing(outputs, CATEGORIES, min_area=min_area)
    owners, refined, regions = fuse_slowly(
        logits.double().softmax(0).numpy(),
        [mask.numpy() for mask in masks],
        category_ids,
        scores,
        groups=[category.group for category in CATEGORIES],
        is_thing=[category.is_thing for category in CATEGORIES],
        min_area=min_area,
    )
    shown = {}
    for pixel, (kind, number) in owners.items():
        if kind == "stuff":
            shown[pixel] = (number, None)
        elif kind == "detection":
            shown[pixel] = (category_ids[number], round(float(np.float32(scores[number])), 5))
        else:
            shown[pixel] = (regions[number][0], pytest.approx(regions[number][1], rel=1e-4, abs=1e-5))
    assert shown_by(result) == shown
    assert np.array_equal(result.semantic_map.numpy(), refined)
    num_detections = len({number for kind, number in owners.values() if kind == "detection"})
    assert len(result.instances.scores) == num_detections + len(regions)
    check_refined(result)


def test_a_mask_is_deleted_where_pixels_are_background_or_of_another_group():
    semantic_map = drawn_map("0112244", "0112244", "3333344")
    result = grow_regions(semantic_map, [torch.ones(3, 7, dtype=torch.bool)], [TRUCK], [0.9], min_area=100)
    assert torch.equal(result.instances.masks[0], (semantic_map == CAR) | (semantic_map == TRUCK))
    assert (result.panoptic_map.segment_ids[semantic_map == PERSON] == 0).all()
    assert torch.equal(result.semantic_map == PERSON, semantic_map == PERSON)


def test_things_without_a_group_are_groups_of_their_own():
    semantic_map = drawn_map("5566", "5566")
    result = grow_regions(semantic_map, [torch.ones(2, 4, dtype=torch.bool)], [TIE], [0.9], min_area=100)
    assert torch.equal(result.instances.masks[0], semantic_map == TIE)


def test_groups_are_numbered_and_stuff_has_none_even_if_it_is_in_one():
    categories = [
        Category(0, "road", False, "vehicle"),
        Category(1, "car", True, "vehicle"),
        Category(2, "cup", True),
        Category(3, "truck", True, "vehicle"),
        Category(4, "fork", True),
        Category(5, "rider", True, "human"),
    ]
    assert category_groups(categories).tolist() == [0, 1, 2, 1, 3, 4]


def test_where_masks_overlap_the_higher_score_has_the_pixel_if_its_group_is_right():
    semantic_map = drawn_map("1111444")
    masks = [drawn_mask("###...."), drawn_mask(".#####."), drawn_mask("...####")]
    result = grow_regions(semantic_map, masks, [CAR, PERSON, TRUCK], [0.25, 0.75, 0.5])
    # The person's mask has no right to the car's pixels, and the truck's none to the person's.
    assert owners_of(result) == [[3, 3, 3, 2, 1, 1, 1]]
    assert [s.score for s in result.panoptic_map.segments] == [0.75, 0.5, 0.25]


def test_filling_follows_the_group_and_not_the_straight_line():
    semantic_map = drawn_map(
        "1111111",
        "1000001",
        "1033301",
        "1000001",
        "1110111",
    )
    left = drawn_mask(".......", ".......", ".......", "#......", ".......")
    right = drawn_mask(".......", ".......", ".......", "......#", ".......")
    result = grow_regions(semantic_map, [left, right], [CAR, TRUCK], [0.5, 0.75])
    # The way along the first row has 11 pixels between both masks: its middle one, as near to both, goes to the higher
    # score.
    expected = drawn_map("2221111", "2333331", "2344431", "2333331", "2223111")
    assert owners_of(result) == expected.tolist()


def test_a_pixel_beside_an_instance_of_another_group_does_not_take_it():
    semantic_map = drawn_map("4411", "4411")
    result = grow_regions(semantic_map, [drawn_mask("##..", "##..")], [PERSON], [0.9], min_area=0)
    assert [(s.category_id, s.area) for s in result.panoptic_map.segments] == [(PERSON, 4), (CAR, 4)]
    assert result.panoptic_map.segments[1].score == pytest.approx(
        float(logits_of(semantic_map).softmax(0)[CAR, 0, 2]), rel=1e-5
    )


def test_growth_passes_the_sides_of_pixels_and_not_their_corners():
    semantic_map = drawn_map("110", "001", "011")
    result = grow_regions(semantic_map, [drawn_mask("#..", "...", "...")], [CAR], [0.9])
    assert owners_of(result) == [[1, 1, 3], [3, 3, 2], [3, 2, 2]]


@pytest.mark.parametrize(("scores", "winner"), [([0.5, 0.75], TRUCK), ([0.75, 0.5], CAR), ([0.5, 0.5], CAR)])
def test_ties_go_to_the_higher_score_and_then_to_the_lower_category(scores, winner):
    semantic_map = drawn_map("1111111")
    for flip in (False, True):
        masks = [drawn_mask("#......"), drawn_mask("......#")]
        result = grow_regions(semantic_map, masks[::-1] if flip else masks, [CAR, TRUCK], scores)
        assert int(result.semantic_map[0, 3]) == winner
        assert sorted(s.area for s in result.panoptic_map.segments) == [3, 4]


@pytest.mark.parametrize("seed", range(6))
def test_the_order_of_detections_changes_nothing_even_where_scores_are_equal(seed):
    logits, masks, category_ids, _ = random_scene(seed, (31, 43), 12, cell=9)
    detections = detections_from(masks, category_ids, [0.5, 0.75, 0.5, 0.5] * 3)
    order = np.random.default_rng(seed).permutation(12).tolist()
    one, other = (
        fuse_region_growing({"semantic": logits, "instances": found}, CATEGORIES, min_area=3)
        for found in (detections, picked(detections, order))
    )
    assert same_result(one, other)
    assert torch.equal(one.instances.masks, other.instances.masks)


@pytest.mark.parametrize(("min_area", "is_instance"), [(0, True), (3, True), (4, True), (5, False)])
def test_left_over_regions_become_instances_from_min_area_on(min_area, is_instance):
    semantic_map = drawn_map("0011000", "0011000", "3333333")
    result = grow_regions(semantic_map, [], [], [], min_area=min_area)
    assert len(result.instances.scores) == int(is_instance)
    assert torch.equal(result.panoptic_map.segment_ids == 0, (semantic_map == CAR) & (not is_instance))
    assert torch.equal(result.semantic_map, semantic_map)
    check_refined(result)


def test_left_over_regions_are_of_one_category_and_connected_at_sides():
    semantic_map = drawn_map("11220", "11220", "00001", "00000")
    result = grow_regions(semantic_map, [], [], [])
    assert [(s.category_id, s.area) for s in result.panoptic_map.segments] == [
        (CAR, 4),
        (TRUCK, 4),
        (CAR, 1),
        (SKY, 11),
    ]


def test_the_score_of_a_new_instance_is_the_mean_probability_of_its_category():
    logits = torch.randn(len(CATEGORIES), 4, 6, generator=torch.Generator().manual_seed(0))
    logits[GRASS] = 9.0
    logits[PERSON, 1:3, 1:5] = 10 + torch.rand(2, 4, generator=torch.Generator().manual_seed(1))
    outputs = {"semantic": logits, "instances": detections_from([], [], [], (4, 6))}
    result = fuse_region_growing(outputs, CATEGORIES, min_area=8)
    expected = logits.double().softmax(0)[PERSON, 1:3, 1:5].mean()
    assert result.panoptic_map.segments[0].score == pytest.approx(float(expected), rel=1e-5)
    assert result.panoptic_map.segments[0].area == 8


@pytest.mark.parametrize(("threshold", "kept"), [(0.5, [0.75, 0.5]), (0.51, [0.75]), (0.76, [])])
def test_detections_take_part_from_the_score_threshold_on(threshold, kept):
    semantic_map = drawn_map("1101100", "1101100", "3333333")
    masks = [drawn_mask("##.....", "##.....", "......."), drawn_mask("...##..", "...##..", ".......")]
    result = grow_regions(semantic_map, masks, [CAR, CAR], [0.5, 0.75], min_area=5, score_threshold=threshold)
    assert result.instances.scores.tolist() == kept


@pytest.mark.parametrize("size", [(29, 40), (11, 9)])
def test_masks_and_logits_are_brought_to_the_size_of_the_result_first(size):
    logits, masks, category_ids, scores = random_scene(3, (17, 23), 5, cell=6)
    detections = detections_from(masks, category_ids, scores)
    outputs = {"semantic": logits, "instances": detections}
    result = fuse_region_growing(outputs, CATEGORIES, size=size, min_area=5)
    large = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
    pasted = list(full_masks(paste_masks(detections, size)))
    expected = fuse_region_growing(
        {"semantic": large, "instances": detections_from(pasted, category_ids, scores)}, CATEGORIES, min_area=5
    )
    assert result.panoptic_map.size == size
    assert torch.equal(result.panoptic_map.segment_ids, expected.panoptic_map.segment_ids)
    assert torch.equal(result.semantic_map, expected.semantic_map)
    assert torch.equal(result.instances.masks, expected.instances.masks)
    assert result.instances.scores.tolist() == pytest.approx(expected.instances.scores.tolist(), rel=1e-4)
