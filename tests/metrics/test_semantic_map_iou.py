"""The IoU of a semantic map, through the metric of panoptic maps."""

import math

import pytest
import torch
from drawn import draw

from panoptic.metrics import SemanticIoU
from panoptic.metrics.functional import as_panoptic_map
from panoptic.structures import Category

CATEGORIES = [Category(number, f"category {number}", is_thing=number == 1) for number in range(4)]


def test_the_iou_of_a_semantic_map_is_counted_pixel_by_pixel():
    semantic_map = torch.tensor([[0, 0, 1, 1, 2], [0, 1, 1, 2, 2]])
    # a: 0, b and c: 1, v: 2; '.' is void and dropped, the crowd keeps its category
    target = draw("aabb.", "aaccv", categories={"a": 0, "b": 1, "c": 1, "v": 2}, crowd="c")
    metric = SemanticIoU(CATEGORIES)
    metric.update(as_panoptic_map(semantic_map, num_categories=4), target)
    # 0: 3 of 4; 1: both 3 of 5 (one too many, one missed); 2: 1 of 2
    rows = metric.per_category()
    assert [row["iou"] for row in rows[:3]] == [3 / 4, 3 / 5, 1 / 2]
    assert math.isnan(rows[3]["iou"])
    assert metric.compute()["miou"].item() == pytest.approx((3 / 4 + 3 / 5 + 1 / 2) / 3)


def test_where_nothing_is_said_there_is_void():
    panoptic_map = as_panoptic_map(torch.tensor([[255, 3, 255]]), num_categories=4)
    assert panoptic_map.segment_ids.tolist() == [[0, 4, 0]]
    assert as_panoptic_map(torch.full((1, 2), 255), num_categories=4).segment_ids.tolist() == [[0, 0]]


def test_segments_are_the_categories():
    panoptic_map = as_panoptic_map(torch.tensor([[0, 3, 3]]), num_categories=4)
    assert panoptic_map.segment_ids.tolist() == [[1, 4, 4]]
    assert [(segment.id, segment.category_id) for segment in panoptic_map.segments] == [(1, 0), (2, 1), (3, 2), (4, 3)]


@pytest.mark.parametrize(
    ("values", "came"), [([[0, 4]], r"0\.\.4"), ([[-1, 2]], r"-1\.\.2"), ([[254, 1]], r"1\.\.254")]
)
def test_what_is_no_category_is_an_error(values, came):
    with pytest.raises(ValueError, match=rf"expected category ids 0\.\.3 in a semantic map, got {came}"):
        as_panoptic_map(torch.tensor(values), num_categories=4)
