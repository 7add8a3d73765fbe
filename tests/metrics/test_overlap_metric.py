"""The metrics as torchmetrics: accumulation, states, collections, errors."""

import pickle

import numpy as np
import pytest
import torch
from drawn import draw
from oracles.panoptic_oracle import random_pair
from torchmetrics import MetricCollection

from panoptic.metrics import PanopticQuality, ParsingCovering, SemanticIoU, overlap_metric
from panoptic.structures import Category

pytestmark = pytest.mark.slow

C = 4
CATEGORIES = [Category(id=number, name=f"category {number}", is_thing=number % 2 == 1) for number in range(C)]
METRICS = [PanopticQuality, ParsingCovering, SemanticIoU]


def images(seed=0, number=6):
    print(f"seed {seed}")
    generator = np.random.default_rng(seed)
    pairs = [random_pair(generator, C) for _ in range(number)]
    return [prediction for prediction, _ in pairs], [target for _, target in pairs]


@pytest.mark.parametrize("metric_class", METRICS)
def test_images_one_by_one_equal_all_at_once(metric_class):
    predictions, targets = images()
    at_once, one_by_one = metric_class(CATEGORIES), metric_class(CATEGORIES)
    at_once.update(predictions, targets)
    for prediction, target in zip(predictions, targets, strict=True):
        one_by_one.update(prediction, target)
    assert one_by_one.compute() == at_once.compute()
    assert torch.equal(one_by_one.sums, at_once.sums)


@pytest.mark.parametrize("metric_class", METRICS)
def test_adding_an_image_adds_its_counts(metric_class):
    predictions, targets = images(number=2)
    first, second, both = metric_class(CATEGORIES), metric_class(CATEGORIES), metric_class(CATEGORIES)
    first.update(predictions[0], targets[0])
    second.update(predictions[1], targets[1])
    both.update(predictions, targets)
    assert torch.equal(both.counts, first.counts + second.counts)
    assert torch.equal(both.sums, first.sums + second.sums)


@pytest.mark.parametrize("metric_class", METRICS)
def test_sums_are_float64_and_keep_it(metric_class):
    metric = torch.nn.ModuleList([metric_class(CATEGORIES)]).half()[0]
    metric.update(*images())
    assert (metric.counts.dtype, metric.sums.dtype) == (torch.int64, torch.float64)
    assert all(value.dtype == torch.float64 for value in metric.compute().values())


@pytest.mark.parametrize("metric_class", METRICS)
def test_reset_forgets_everything(metric_class):
    predictions, targets = images()
    metric, fresh = metric_class(CATEGORIES), metric_class(CATEGORIES)
    metric.update(predictions[:3], targets[:3])
    metric.reset()
    metric.update(predictions[3:], targets[3:])
    fresh.update(predictions[3:], targets[3:])
    assert metric.compute() == fresh.compute()


@pytest.mark.parametrize("metric_class", METRICS)
def test_forward_gives_the_value_of_its_image_and_accumulates(metric_class):
    predictions, targets = images(number=2)
    metric, alone, both = metric_class(CATEGORIES), metric_class(CATEGORIES), metric_class(CATEGORIES)
    metric(predictions[0], targets[0])
    value = metric(predictions[1], targets[1])
    alone.update(predictions[1], targets[1])
    both.update(predictions, targets)
    assert str(value) == str(alone.compute())
    assert str(metric.compute()) == str(both.compute())


@pytest.mark.parametrize("metric_class", METRICS)
def test_the_states_survive_a_checkpoint(metric_class, tmp_path):
    predictions, targets = images()
    interrupted, resumed, whole = metric_class(CATEGORIES), metric_class(CATEGORIES), metric_class(CATEGORIES)
    interrupted.update(predictions[:2], targets[:2])
    torch.save(interrupted.state_dict(), tmp_path / "checkpoint.pt")
    resumed.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    resumed.update(predictions[2:], targets[2:])
    whole.update(predictions, targets)
    assert resumed.compute() == whole.compute()


@pytest.mark.parametrize("metric_class", METRICS)
def test_a_metric_can_be_pickled(metric_class):
    metric = metric_class(CATEGORIES)
    metric.update(*images())
    assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()


def collection():
    return MetricCollection([metric_class(CATEGORIES) for metric_class in METRICS])


def test_a_collection_forms_one_compute_group():
    metrics = collection()
    metrics.update(*images())
    assert list(metrics.compute_groups.values()) == [["PanopticQuality", "ParsingCovering", "SemanticIoU"]]


def test_a_collection_counts_each_image_once(monkeypatch):
    predictions, targets = images()
    metrics = collection()
    metrics.update(predictions[0], targets[0])  # the first update finds out that the states are equal
    counted = []
    sum_image = overlap_metric.sum_image
    monkeypatch.setattr(overlap_metric, "sum_image", lambda *a, **k: counted.append(a) or sum_image(*a, **k))
    metrics.update(predictions[1:], targets[1:])
    assert len(counted) == len(predictions) - 1


def test_a_collection_gives_the_values_of_its_members():
    predictions, targets = images()
    metrics = collection()
    for prediction, target in zip(predictions, targets, strict=True):
        metrics.update(prediction, target)
    alone = {}
    for metric_class in METRICS:
        metric = metric_class(CATEGORIES)
        metric.update(predictions, targets)
        alone |= metric.compute()
        assert metrics[metric_class.__name__].per_category() == metric.per_category()
    assert metrics.compute() == alone


def test_both_normalizations_of_covering_share_one_group():
    predictions, targets = images()
    metrics = MetricCollection(
        {"pixels": ParsingCovering(CATEGORIES), "shares": ParsingCovering(CATEGORIES, normalize_by_image_size=True)}
    )
    metrics.update(predictions, targets)
    assert len(metrics.compute_groups) == 1


def test_rows_name_their_category():
    metric = PanopticQuality(CATEGORIES)
    metric.update(*images())
    rows = metric.per_category()
    assert [(row["category_id"], row["name"], row["is_thing"]) for row in rows] == [
        (category.id, category.name, category.is_thing) for category in CATEGORIES
    ]


def test_a_failed_update_adds_nothing():
    predictions, targets = images(number=2)
    metric = PanopticQuality(CATEGORIES)
    with pytest.raises(ValueError, match="resize"):
        metric.update([*predictions, draw("aa")], [*targets, draw("aaa")])
    assert metric.counts.sum() == 0


@pytest.mark.parametrize("metric_class", METRICS)
def test_unequal_numbers_of_maps_are_an_error(metric_class):
    with pytest.raises(ValueError, match="as many predictions as targets, got 1 and 2"):
        metric_class(CATEGORIES).update(draw("aab"), [draw("aab"), draw("aab")])


def test_sizes_that_differ_are_an_error():
    with pytest.raises(ValueError, match=r"target's size 1x3 .*, got 2x3; resize"):
        PanopticQuality(CATEGORIES).update(draw("aab", "aab"), draw("aab"))


def test_devices_that_differ_are_an_error():
    with pytest.raises(ValueError, match="both maps on one device, got cpu and meta; move one"):
        PanopticQuality(CATEGORIES).update(draw("aab"), draw("aab").to("meta"))


@pytest.mark.parametrize("category_id", [-1, C])
@pytest.mark.parametrize("role", ["prediction", "target"])
def test_an_unknown_category_is_an_error(role, category_id):
    maps = {"prediction": draw("aab"), "target": draw("aab")} | {role: draw("aab", categories={"b": category_id})}
    with pytest.raises(ValueError, match=rf"category ids 0..3, got {category_id} of segment 2 in the {role}"):
        PanopticQuality(CATEGORIES).update(maps["prediction"], maps["target"])


@pytest.mark.parametrize("wrong", [torch.zeros(2, 3), 7, iter(())])
def test_something_else_than_maps_is_an_error(wrong):
    with pytest.raises(
        TypeError, match=f"prediction as a PanopticMap or a sequence of them, got {type(wrong).__name__}"
    ):
        PanopticQuality(CATEGORIES).update(wrong, draw("aab"))


def test_something_else_than_maps_in_a_sequence_is_an_error():
    with pytest.raises(TypeError, match="target as a PanopticMap or a sequence of them, got a Tensor in it"):
        PanopticQuality(CATEGORIES).update([draw("aab")], [torch.zeros(2, 3)])


def test_category_ids_with_a_gap_are_an_error():
    with pytest.raises(ValueError, match="renumber the categories"):
        PanopticQuality([Category(id=1, name="road", is_thing=False)])
