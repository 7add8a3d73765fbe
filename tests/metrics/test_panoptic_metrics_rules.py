"""Every rule of panoptic quality, parsing covering and semantic IoU on a drawn map, with the answer derived by hand."""

import pytest
import torch
from drawn import draw

from panoptic.metrics import PanopticQuality, ParsingCovering, SemanticIoU
from panoptic.structures import Category, PanopticMap, Segment

CATEGORIES = [
    Category(id=0, name="road", is_thing=False),
    Category(id=1, name="car", is_thing=True),
    Category(id=2, name="sky", is_thing=False),
]
# letters of the drawings: a, b, c, d, x, y are cars, r and t are road, s is sky
KINDS = dict.fromkeys("abcdxy", 1) | dict.fromkeys("rt", 0) | {"s": 2}


def picture(*rows, crowd=""):
    return draw(*rows, categories=KINDS, crowd=crowd)


def quality(prediction, target, category_id=1):
    metric = PanopticQuality(CATEGORIES)
    metric.update(prediction, target)
    return metric.per_category()[category_id]


def matches(prediction, target, category_id=1):
    row = quality(prediction, target, category_id)
    return row["tp"], row["fp"], row["fn"]


def covering(predictions, targets, category_id=1, **options):
    metric = ParsingCovering(CATEGORIES, **options)
    metric.update(predictions, targets)
    return metric.per_category()[category_id]["pc"]


def semantic_pixels(prediction, target, category_id):
    metric = SemanticIoU(CATEGORIES)
    metric.update(prediction, target)
    row = metric.per_category()[category_id]
    return row["tp"], row["fp"], row["fn"]


def row_of_pixels(car_start, car_end, other_category=0, length=2000):
    """One row of `length` pixels, a car from `car_start` up to `car_end`; the rest is road, or void for None."""
    segment_ids = torch.full((1, length), 0 if other_category is None else 9)
    segment_ids[:, car_start:car_end] = 4
    rest = [] if other_category is None else [Segment(9, other_category)]
    return PanopticMap(segment_ids, [Segment(4, 1), *rest])


# panoptic quality


def test_two_entries_of_one_stuff_category_are_two_segments():
    # r: 3 of the 4 predicted pixels, 3/4, matches; t: 1/4, does not
    row = quality(picture("rrrr"), picture("rrrt"), category_id=0)
    assert (row["tp"], row["fp"], row["fn"]) == (1, 0, 1)
    assert row["iou"] == pytest.approx(3 / 4)
    assert row["pq"] == pytest.approx((3 / 4) / (1 + 1 / 2))


@pytest.mark.parametrize(("both", "expected"), [(999, (0, 1, 1)), (1000, (0, 1, 1)), (1001, (1, 0, 0))])
def test_a_match_needs_an_iou_above_one_half(both, expected):
    # the target is all of the row, the prediction `both` pixels of it: IoU = both / 2000
    assert matches(row_of_pixels(0, both), row_of_pixels(0, 2000)) == expected


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ("raaaaaa", (0, 1, 1)),  # both 3, union 4 + 6 - 3 = 7
        ("raaaaar", (0, 1, 1)),  # both 3, union 4 + 5 - 3 = 6: one half is not a match
        ("raaaarr", (1, 0, 0)),  # both 3, union 4 + 4 - 3 = 5
    ],
)
def test_iou_around_one_half_with_pixels_outside_the_target(prediction, expected):
    assert matches(picture(prediction), picture("aaaarrr")) == expected


def test_another_category_does_not_match():
    assert matches(picture("sss"), picture("aaa"), category_id=1) == (0, 0, 1)
    assert matches(picture("sss"), picture("aaa"), category_id=2) == (0, 1, 0)


def test_void_in_the_target_leaves_the_union():
    # both 2, union 5 - 3 void = 2
    row = quality(picture("aaaaar"), picture("aa...r"))
    assert (row["tp"], row["fp"], row["fn"], row["iou"]) == (1, 0, 0, 1.0)


def test_crowd_in_the_target_stays_in_the_union():
    # both 2, union 5: no match; 3/5 of the prediction is on crowd of its category: no false positive
    assert matches(picture("aaaaar"), picture("aabbbr", crowd="b")) == (0, 0, 1)


def test_void_in_the_prediction_is_not_forgiven():
    # both 2, union 5
    assert matches(picture("aa...r"), picture("aaaaar")) == (0, 1, 1)


def test_a_target_segment_under_predicted_void_is_missed():
    assert matches(picture("......"), picture("aaaabb")) == (0, 0, 2)


@pytest.mark.parametrize(("void", "expected"), [(999, 1), (1000, 1), (1001, 0)])
def test_a_prediction_is_forgiven_when_more_than_half_is_on_void(void, expected):
    # the prediction is all of the row, the target road except for the first `void` pixels
    segment_ids = torch.full((1, 2000), 9)
    segment_ids[:, :void] = 0
    target = PanopticMap(segment_ids, [Segment(9, 0)])
    assert matches(row_of_pixels(0, 2000), target) == (0, expected, 0)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("brrr", 1),  # 1/4 on crowd
        ("bbrr", 1),  # 2/4: one half is not enough
        ("bbbr", 0),  # 3/4
        (".brr", 1),  # void and crowd together 2/4
        (".bbr", 0),  # void and crowd together 3/4
    ],
)
def test_crowd_of_the_same_category_forgives_like_void(target, expected):
    assert matches(picture("aaaa"), picture(target, crowd="b"))[1] == expected


def test_crowd_of_another_category_does_not_forgive():
    assert matches(picture("aaaa"), picture("sssr", crowd="s")) == (0, 1, 0)


def test_several_crowd_segments_of_one_category_forgive_together():
    # b and c: 2/6 each, 4/6 together
    assert matches(picture("aaaaaa"), picture("bbccrr", crowd="bc")) == (0, 0, 0)


def test_crowd_is_neither_found_nor_missed():
    target = picture("bbbr", crowd="b")
    assert matches(picture("bbbr"), target) == (0, 0, 0)
    assert matches(picture("rrrr"), target) == (0, 0, 0)


def test_a_table_entry_without_a_pixel_counts():
    empty = Segment(50, 1)
    full = picture("rrr")
    with_empty = PanopticMap(full.segment_ids, [*full.segments, empty])
    assert matches(full, with_empty) == (0, 0, 1)
    assert matches(with_empty, full) == (0, 1, 0)


def test_means_are_over_categories_and_not_over_things_and_stuff():
    metric = PanopticQuality(CATEGORIES)
    metric.update(picture("rrsss.", "rrsss."), picture("rrsssa", "rrsssa"))  # road 1, sky 1, car 0
    means = metric.compute()
    assert means["pq"] == pytest.approx(2 / 3)
    assert means["sq"] == pytest.approx(2 / 3)
    assert means["rq"] == pytest.approx(2 / 3)
    assert (means["pq_things"], means["pq_stuff"]) == (0, 1)


def test_a_category_without_any_segment_takes_no_part():
    metric = PanopticQuality(CATEGORIES)
    metric.update(picture("rrr"), picture("rrr"))
    means = metric.compute()
    assert means["pq"] == 1
    assert means["pq_things"].isnan()


# parsing covering


def test_void_and_crowd_of_the_target_are_dropped_from_both_maps():
    # of the predicted 6 pixels, one is on void and three on crowd: 2 remain, IoU 2/2
    assert covering(picture("aaaaaa"), picture("aa.bbb", crowd="b")) == 1


def test_covering_has_no_threshold_and_takes_the_best():
    # x 2/4, y 1/4
    assert covering(picture("xxyr"), picture("aaaa")) == pytest.approx(1 / 2)


def test_one_prediction_may_cover_several_targets():
    # a 2/6, b 4/6, by area: (2 * 2/6 + 4 * 4/6) / 6
    assert covering(picture("xxxxxx"), picture("aabbbb")) == pytest.approx((4 / 6 + 16 / 6) / 6)


def test_only_the_same_category_covers():
    assert covering(picture("ssss"), picture("aaaa")) == 0


def test_covering_is_weighted_by_area_over_all_images():
    targets = [picture("aaaa"), picture("bbrr", "rrrr")]
    predictions = [picture("aaaa"), picture("brrr", "rrrr")]
    # 4 px at IoU 1 and 2 px at IoU 1/2
    assert covering(predictions, targets) == pytest.approx((4 + 1) / 6)
    # 4/4 of its image at IoU 1 and 2/8 of its image at IoU 1/2
    assert covering(predictions, targets, normalize_by_image_size=True) == pytest.approx((1 + 1 / 8) / (1 + 1 / 4))


def test_covering_ignores_categories_without_target_area():
    metric = ParsingCovering(CATEGORIES)
    target = picture("rrrbb", crowd="b")  # cars only as crowd
    metric.update(picture("rrsbb"), target)  # sky only predicted
    means = metric.compute()
    assert means["pc"] == pytest.approx(2 / 3)  # road alone: 2/3
    assert means["pc_things"].isnan()


# semantic IoU


def test_void_targets_are_dropped_and_predicted_void_is_missed():
    # pixels 1 and 2 right, 3 predicted void, 4 road, 5 and 6 have no target
    prediction, target = picture("aa.raa"), picture("aaaa..")
    assert semantic_pixels(prediction, target, category_id=1) == (2, 0, 2)
    assert semantic_pixels(prediction, target, category_id=0) == (0, 1, 0)


def test_crowd_keeps_its_category():
    assert semantic_pixels(picture("aaar"), picture("bbbb", crowd="b"), category_id=1) == (3, 0, 1)


def test_segments_of_one_category_are_one_region():
    assert semantic_pixels(picture("aabb"), picture("xyyx"), category_id=1) == (4, 0, 0)


def test_miou_is_the_mean_over_categories_in_either_map():
    metric = SemanticIoU(CATEGORIES)
    metric.update(picture("aaaarr"), picture("aaarrr"))  # car 3/4, road 2/3, no sky
    assert metric.compute()["miou"] == pytest.approx((3 / 4 + 2 / 3) / 2)
