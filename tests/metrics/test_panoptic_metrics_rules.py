"""Every rule of panoptic quality, parsing covering and semantic IoU on a drawn map, with the answer derived by hand."""

import math

import pytest
import torch
from drawn import draw

from panoptic.metrics import PanopticQuality, ParsingCovering, SemanticIoU
from panoptic.structures import Category, PanopticMap, Segment

# c: two cars, r: road, s: sky; letters of a map are segments, this dict says their category
CATEGORIES = [
    Category(id=0, name="road", is_thing=False),
    Category(id=1, name="car", is_thing=True),
    Category(id=2, name="sky", is_thing=False),
]
CARS = dict.fromkeys("abcdxyz", 1)


def quality_row(prediction, target, category_id=1):
    metric = PanopticQuality(CATEGORIES)
    metric.update(prediction, target)
    return metric.per_category()[category_id]


def counts(prediction, target, category_id=1):
    row = quality_row(prediction, target, category_id)
    return row["tp"], row["fp"], row["fn"]


def covering(prediction, target, category_id=1, **options):
    metric = ParsingCovering(CATEGORIES, **options)
    metric.update(prediction, target)
    return metric.per_category()[category_id]["pc"]


def semantic_row(prediction, target, category_id):
    metric = SemanticIoU(CATEGORIES)
    metric.update(prediction, target)
    row = metric.per_category()[category_id]
    return row["tp"], row["fp"], row["fn"]


# Panoptic quality


def test_two_entries_of_one_stuff_category_are_two_segments():
    target = draw("rrrt", categories={"r": 0, "t": 0})  # two roads, 3 px and 1 px
    prediction = draw("rrrr", categories={"r": 0})
    # r: 3/4 matches; t: 1/4 does not -> tp 1, fn 1
    row = quality_row(prediction, target, category_id=0)
    assert (row["tp"], row["fp"], row["fn"]) == (1, 0, 1)
    assert row["iou"] == pytest.approx(3 / 4)


@pytest.mark.parametrize(
    ("target_row", "prediction_row", "expected"),
    [
        ("aaaaaaa....", "aaaarrrr...", (0, 1, 1)),  # replaced below: below one half
    ],
)
def test_placeholder(target_row, prediction_row, expected):
    pass


def test_iou_just_below_one_half_does_not_match():
    # both 3, union 4 + 6 - 3 = 7: 3/7
    assert counts(draw("aaarrraaa", categories={"a": 1}), draw("aaaazzzzz", categories={"a": 1})) == (0, 1, 1)
