"""Mask AP against tiny cases by hand, a slow oracle, and faster-coco-eval on its own."""

import math
from dataclasses import asdict

import faster_coco_eval.core.mask as coco_mask
import numpy as np
import pytest
import torch
from drawn import draw
from faster_coco_eval import COCO, COCOeval_faster
from oracles.mask_ap_oracle import THRESHOLDS, average_precision

from panoptic.metrics import MaskAveragePrecision
from panoptic.metrics.functional.mask_average_precision import encode_masks, encode_things
from panoptic.structures import Category, Instances, PanopticMap, Segment

CATEGORIES = [
    Category(0, "road", is_thing=False),
    Category(1, "car", is_thing=True),
    Category(2, "person", is_thing=True),
    Category(3, "bus", is_thing=True),
]
H, W = 9, 13


def instances(masks, category_ids, scores=None, is_crowd=None):
    count = len(category_ids)
    return Instances(
        category_ids=torch.tensor(category_ids, dtype=torch.int64),
        masks=torch.stack(masks) if masks else torch.zeros(0, H, W, dtype=torch.bool),
        boxes=torch.zeros(count, 4),
        scores=torch.ones(count) if scores is None else torch.tensor(scores),
        is_crowd=torch.tensor([False] * count if is_crowd is None else is_crowd, dtype=torch.bool),
    )


def columns(first, last):
    """Mask of the columns first..last - 1: H pixels each."""
    mask = torch.zeros(H, W, dtype=torch.bool)
    mask[:, first:last] = True
    return mask


def scored(*pairs):
    metric = MaskAveragePrecision(CATEGORIES)
    for prediction, target in pairs:
        metric.update(prediction, target)
    return metric


def test_the_truth_itself_has_ap_one():
    masks = [columns(0, 3), columns(2, 7), columns(9, 11)]
    truth = instances(masks, [1, 1, 2])
    metric = scored((instances(masks, [1, 1, 2], [0.3, 0.9, 0.1]), truth))
    assert metric.compute() == {"mask_ap": 1.0, "mask_ap50": 1.0}
    rows = metric.per_category()
    assert [(row["name"], row["mask_ap"], row["mask_ap50"]) for row in rows[1:3]] == [("car", 1, 1), ("person", 1, 1)]
    assert all(math.isnan(rows[number]["mask_ap"]) for number in (0, 3))


@pytest.mark.parametrize(("last", "thresholds"), [(5, 1), (6, 3), (7, 5), (8, 7), (9, 9), (10, 10), (4, 0)])
def test_an_iou_counts_at_the_thresholds_it_reaches(last, thresholds):
    # columns 0..last - 1 of 0..9: IoU last / 10, which reaches 0.5, 0.55, .. up to itself
    metric = scored((instances([columns(0, last)], [1]), instances([columns(0, 10)], [1])))
    assert metric.compute()["mask_ap"] == pytest.approx(thresholds / 10)
    assert metric.compute()["mask_ap50"] == float(last >= 5)


def test_what_is_wrong_lowers_the_precision_of_what_comes_after_it():
    truth = instances([columns(0, 4), columns(5, 9)], [1, 1])
    masks = [columns(0, 4), columns(10, 13), columns(5, 9)]
    metric = scored((instances(masks, [1, 1, 1], [0.9, 0.8, 0.7]), truth))
    # right, wrong, right: precision 1 at the 51 recalls 0 .. 0.5, then 2/3 at the other 50
    assert metric.compute()["mask_ap50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    last = scored((instances(masks, [1, 1, 1], [0.9, 0.1, 0.7]), truth))
    assert last.compute()["mask_ap50"] == 1.0


def test_a_truth_is_found_once():
    twice = instances([columns(0, 4), columns(0, 4)], [1, 1], [0.9, 0.8])
    truth = instances([columns(0, 4), columns(5, 9)], [1, 1])
    assert scored((twice, truth)).compute()["mask_ap"] == pytest.approx(51 / 101)


def test_another_category_is_wrong_and_one_without_truth_does_not_count():
    prediction = instances([columns(0, 4), columns(5, 9)], [2, 3])
    metric = scored((prediction, instances([columns(0, 4)], [1])))
    assert metric.compute() == {"mask_ap": 0.0, "mask_ap50": 0.0}
    assert math.isnan(metric.per_category()[3]["mask_ap"])


def test_what_lies_on_a_crowd_is_ignored_and_what_lies_on_void_is_wrong():
    truth = instances([columns(0, 4), columns(6, 13)], [1, 1], is_crowd=[False, True])
    found = instances([columns(7, 9), columns(0, 4)], [1, 1], [0.9, 0.8])
    assert scored((found, truth)).compute()["mask_ap50"] == 1.0
    alone = instances([columns(0, 4)], [1])
    assert scored((found, alone)).compute()["mask_ap50"] == pytest.approx(0.5)


def test_the_things_of_a_panoptic_map_are_targets():
    # a and b: cars of 4 px, c: a crowd of persons, r: road
    target = draw("aabbr", "aabbr", "ccccr", categories={"a": 1, "b": 1, "c": 2, "r": 0}, crowd="c")
    ids = target.segment_ids
    masks = torch.stack([ids == 1, ids == 3])
    found = Instances(torch.tensor([1, 2]), masks, torch.zeros(2, 4), torch.tensor([0.9, 0.8]), torch.zeros(2).bool())
    rows = scored((found, target)).per_category()
    assert rows[1]["mask_ap"] == pytest.approx(51 / 101)
    assert math.isnan(rows[0]["mask_ap"])
    assert math.isnan(rows[2]["mask_ap"])


def test_a_hundred_detections_of_an_image_count():
    masks = [columns(0, 1)] * 100 + [columns(5, 9)]
    scores = [1 - 0.001 * number for number in range(101)]
    truth = instances([columns(5, 9)], [1])
    assert scored((instances(masks, [1] * 101, scores), truth)).compute()["mask_ap"] == 0
    assert scored((instances(masks[1:], [1] * 100, scores[1:]), truth)).compute()["mask_ap"] == pytest.approx(0.01)


def test_no_image_no_truth_and_no_detection_are_no_errors():
    nothing = instances([], [])
    assert all(math.isnan(value) for value in scored().compute().values())
    assert all(math.isnan(value) for value in scored((nothing, nothing)).compute().values())
    assert all(math.isnan(value) for value in scored((instances([columns(0, 2)], [1]), nothing)).compute().values())
    assert scored((nothing, instances([columns(0, 2)], [1]))).compute()["mask_ap"] == 0


def test_reset_forgets_and_another_image_is_counted():
    right = instances([columns(0, 4)], [1])
    metric = scored((right, right))
    assert metric.compute()["mask_ap"] == 1
    metric.update(instances([], []), right)
    assert metric.compute()["mask_ap"] == pytest.approx(51 / 101)
    assert metric.num_images == 2
    metric.reset()
    assert metric.num_images == 0
    metric.update(right, right)
    assert metric.compute()["mask_ap"] == 1


def test_masks_of_another_size_are_an_error():
    with pytest.raises(ValueError, match=r"expected masks of the target's size \(1, 3\), got \(9, 13\)"):
        scored((instances([columns(0, 2)], [1]), draw("abb")))


@pytest.mark.parametrize(("predicted", "target", "role"), [([0], [1], "predicted"), ([1], [0], "target")])
def test_an_instance_of_stuff_is_an_error(predicted, target, role):
    mask = [columns(0, 2)]
    with pytest.raises(ValueError, match=rf"expected {role} instances of things, \[1, 2, 3\], got category ids \[0\]"):
        scored((instances(mask, predicted), instances(mask, target)))


def blob(generator):
    """A random rectangle, with a random dent."""
    mask = torch.zeros(H, W, dtype=torch.bool)
    y, x = generator.integers(0, H - 3), generator.integers(0, W - 4)
    mask[y : y + generator.integers(2, 6), x : x + generator.integers(2, 7)] = True
    mask[generator.integers(0, H), generator.integers(0, W)] ^= True
    return mask


def random_image(generator, equal_scores=False):
    """(prediction, target): some detections are moved truths, some are anywhere."""
    truths = [blob(generator) for _ in range(generator.integers(0, 6))]
    target_ids = generator.integers(1, 3, len(truths)).tolist()
    crowds = (generator.random(len(truths)) < 0.2).tolist()
    masks = [truth.roll(int(generator.integers(0, 2)), 1) for truth in truths] + [blob(generator) for _ in range(2)]
    category_ids = [*target_ids, 1, 2]
    scores = np.round(generator.random(len(masks)), 1 if equal_scores else 6).tolist()
    return instances(masks, category_ids, scores), instances(truths, target_ids, is_crowd=crowds)


def pixels(mask):
    return set(mask.flatten().nonzero().flatten().tolist())


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_oracle(seed):
    print("seed", seed)
    generator = np.random.default_rng(seed)
    pairs = [random_image(generator) for _ in range(8)]
    rows = scored(*pairs).per_category()
    for category_id in (1, 2, 3):
        images = []
        for prediction, target in pairs:
            of_prediction = [n for n, c in enumerate(prediction.category_ids.tolist()) if c == category_id]
            of_target = [n for n, c in enumerate(target.category_ids.tolist()) if c == category_id]
            detections = [(prediction.scores[n].item(), pixels(prediction.masks[n])) for n in of_prediction]
            images.append((detections, [(pixels(target.masks[n]), bool(target.is_crowd[n])) for n in of_target]))
        expected = [average_precision(images, threshold) for threshold in THRESHOLDS]
        assert rows[category_id]["mask_ap"] == pytest.approx(np.mean(expected), abs=1e-12, nan_ok=True)
        assert rows[category_id]["mask_ap50"] == pytest.approx(expected[0], abs=1e-12, nan_ok=True)


def by_the_library(pairs):
    """AP and AP50 that faster-coco-eval reports for files as COCO has them: masks as they lie, boxes, areas."""
    images = [{"id": number + 1, "height": H, "width": W} for number in range(len(pairs))]
    described = {"images": images, "categories": [{"id": c.id + 1, "name": c.name} for c in CATEGORIES]}
    truths, detections = [], []
    for number, (prediction, target) in enumerate(pairs, start=1):
        for entries, found in ((detections, prediction), (truths, target)):
            for row in range(len(found.category_ids)):
                runs = coco_mask.encode(np.asfortranarray(found.masks[row].numpy().astype(np.uint8)))
                entries.append(
                    {
                        "id": len(entries) + 1,
                        "image_id": number,
                        "category_id": int(found.category_ids[row]) + 1,
                        "segmentation": runs,
                        "area": float(coco_mask.area(runs)),
                        "iscrowd": int(found.is_crowd[row]),
                        "score": float(found.scores[row]),
                    }
                )
    truth = COCO({**described, "annotations": truths})
    evaluator = COCOeval_faster(truth, truth.loadRes(detections), "segm")
    evaluator.run()
    return evaluator.stats_as_dict["AP_all"], evaluator.stats_as_dict["AP_50"]


@pytest.mark.parametrize("equal_scores", [False, True])
def test_equals_what_the_library_reports_for_files(equal_scores):
    generator = np.random.default_rng(11)
    pairs = [random_image(generator, equal_scores) for _ in range(20)]
    values = scored(*pairs).compute()
    assert 0.1 < values["mask_ap"] < values["mask_ap50"] < 0.9
    assert (values["mask_ap"], values["mask_ap50"]) == pytest.approx(by_the_library(pairs), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_segments_and_their_masks_have_equal_run_lengths(seed):
    print("seed", seed)
    generator = np.random.default_rng(seed)
    ids = torch.from_numpy(generator.integers(0, 4, (H, W))).repeat_interleave(2, dim=1)
    segments = [Segment(1, 2, score=0.5), Segment(2, 0), Segment(3, 1, is_crowd=True), Segment(9, 3)]  # 9: no pixel
    found = encode_things(PanopticMap(ids, segments), CATEGORIES)
    masks = torch.stack([ids == number for number in (1, 3, 9)])
    scores, is_crowd = torch.tensor([0.5, 1.0, 1.0]), torch.tensor([False, True, False])
    expected = encode_masks(Instances(torch.tensor([2, 1, 3]), masks, torch.zeros(3, 4), scores, is_crowd))
    assert asdict(found) == asdict(expected)
    decoded = coco_mask.decode([{"size": [2 * W, H], "counts": runs} for runs in found.run_lengths])
    assert np.array_equal(decoded.T.astype(bool), masks.numpy())
