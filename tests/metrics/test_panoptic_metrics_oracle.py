"""The three metrics against loops over pixels, and what must hold for all of them."""

import math

import numpy as np
import pytest
import torch
from drawn import draw
from oracles.panoptic_oracle import PanopticOracle, random_pair

from panoptic.metrics import PanopticQuality, ParsingCovering, SemanticIoU
from panoptic.metrics.functional import count_overlaps, overlaps, sum_image
from panoptic.structures import MAX_SEGMENT_ID, Category, PanopticMap, Segment

pytestmark = pytest.mark.slow

C = 6
CATEGORIES = [Category(id=number, name=f"category {number}", is_thing=number % 2 == 1) for number in range(C)]


def metrics(categories=CATEGORIES, normalize_by_image_size=False):
    return [PanopticQuality(categories), ParsingCovering(categories, normalize_by_image_size), SemanticIoU(categories)]


def computed(pairs, **options):
    values = {}
    for metric in metrics(**options):
        metric.update([prediction for prediction, _ in pairs], [target for _, target in pairs])
        values |= {name: value.item() for name, value in metric.compute().items()}
    return values


def expected(pairs, normalize_by_image_size=False):
    oracle = PanopticOracle(C)
    for prediction, target in pairs:
        oracle.add(prediction, target)
    means = oracle.means(CATEGORIES, normalize_by_image_size)
    return {name: math.nan if value is None else value for name, value in means.items()}


def pairs_of(seed, number=3, **options):
    print(f"seed {seed}")
    generator = np.random.default_rng(seed)
    return [random_pair(generator, C, **options) for _ in range(number)]


@pytest.mark.parametrize("normalize_by_image_size", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_random_maps_equal_the_oracle(seed, normalize_by_image_size):
    pairs = pairs_of(seed) + pairs_of(seed + 1000, number=1, height=5, width=7)
    got = computed(pairs, normalize_by_image_size=normalize_by_image_size)
    assert got == pytest.approx(expected(pairs, normalize_by_image_size), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("seed", range(10))
def test_random_maps_equal_the_oracle_per_category(seed):
    pairs = pairs_of(seed)
    oracle = PanopticOracle(C)
    for prediction, target in pairs:
        oracle.add(prediction, target)
    quality, covering, semantic = metrics()
    for metric in (quality, covering, semantic):
        for prediction, target in pairs:
            metric.update(prediction, target)
    for row in quality.per_category():
        c = row["category_id"]
        assert (row["tp"], row["fp"], row["fn"]) == (oracle.tp[c], oracle.fp[c], oracle.fn[c])
        assert row["iou"] == pytest.approx(float(oracle.iou[c]))
    for row in covering.per_category():
        c = row["category_id"]
        assert row["area"] == oracle.area[c]
        assert row["covered"] == pytest.approx(float(oracle.covered[c]))
    for row in semantic.per_category():
        c = row["category_id"]
        assert (row["tp"], row["fp"], row["fn"]) == (
            oracle.right_pixels[c],
            oracle.wrong_pixels[c],
            oracle.missed_pixels[c],
        )


def test_the_random_maps_reach_every_rule():
    """Matches, both kinds of misses, crowd and void must all occur, or the comparison shows nothing."""
    oracle = PanopticOracle(C)
    pairs = [pair for seed in range(6) for pair in pairs_of(seed)]
    for prediction, target in pairs:
        oracle.add(prediction, target)
    assert min(oracle.tp + oracle.fp + oracle.fn + oracle.wrong_pixels + oracle.missed_pixels) > 0
    assert any(segment.is_crowd for _, target in pairs for segment in target.segments)
    assert all((target.segment_ids == 0).any() for _, target in pairs)
    num_predicted = sum(len(prediction.segments) for prediction, _ in pairs)
    assert sum(oracle.tp) + sum(oracle.fp) < num_predicted  # some are forgiven


def test_identical_maps_give_one():
    target = draw("aabbb.", "aabcc.", categories={"a": 0, "b": 1, "c": 2})
    values = computed([(target, target)])
    assert set(values.values()) == {1.0}


def test_identical_maps_with_crowd_give_one():
    target = draw("aabbb.", "aabcc.", categories={"a": 0, "b": 1, "c": 1}, crowd="b")
    assert set(computed([(target, target)]).values()) == {1.0}


@pytest.mark.parametrize("first_id", [1, 77, MAX_SEGMENT_ID - 2])
def test_segment_ids_do_not_matter(first_id):
    kinds = {"a": 0, "b": 1, "c": 1}
    target = draw("aabbb.", "aabcc.", categories=kinds, crowd="c")
    rows = ("aaabb.", "aabbcc")
    reference = computed([(draw(*rows, categories=kinds), target)])
    renumbered = draw(*rows, categories=kinds, first_id=first_id)
    assert computed([(renumbered, target)]) == reference
    assert renumbered.segment_ids.max() == first_id + 2


def test_the_order_of_the_tables_does_not_matter():
    ((prediction, target),) = pairs_of(3, number=1)
    turned = PanopticMap(target.segment_ids, target.segments[::-1])
    reference = computed([(prediction, target)])
    assert computed([(prediction, turned)]) == pytest.approx(reference, nan_ok=True)


def test_400_instances():
    # 20 x 20 blocks of 4 x 5 px; the prediction lacks the last column of each block: IoU 4/5
    numbers = torch.arange(1, 401).reshape(20, 20)
    segment_ids = numbers.repeat_interleave(4, dim=0).repeat_interleave(5, dim=1)
    target = PanopticMap(segment_ids, [Segment(number, 1) for number in range(1, 401)])
    shrunk = segment_ids.clone()
    shrunk[:, 4::5] = 0
    prediction = PanopticMap(shrunk, target.segments)
    values = computed([(prediction, target)])
    assert values["pq"] == pytest.approx(4 / 5)
    assert values["pc"] == pytest.approx(4 / 5)
    assert values["miou"] == pytest.approx(4 / 5)


def test_400_random_instances_equal_the_oracle():
    pairs = pairs_of(8, number=1, num_segments=400, height=60, width=70)
    assert computed(pairs) == pytest.approx(expected(pairs), nan_ok=True)


def test_the_largest_id():
    target = PanopticMap(torch.tensor([[MAX_SEGMENT_ID, 0, 1]]), [Segment(MAX_SEGMENT_ID, 1), Segment(1, 1)])
    assert computed([(target, target)])["pq"] == 1


@pytest.mark.parametrize(("predicted", "wanted"), [(5, 1.0), (0, 0.0)])
def test_an_image_of_one_pixel(predicted, wanted):
    target = PanopticMap(torch.tensor([[5]]), [Segment(5, 1)])
    prediction = PanopticMap(torch.tensor([[predicted]]), [Segment(5, 1)] if predicted else [])
    values = computed([(prediction, target)])
    assert (values["pq"], values["pc"], values["miou"]) == (wanted, wanted, wanted)


def test_an_empty_prediction_misses_everything():
    target = draw("aab", categories={"a": 0, "b": 1})
    values = computed([(draw("..."), target)])
    assert (values["pq"], values["rq"], values["pc"], values["miou"]) == (0, 0, 0, 0)


def test_an_empty_target_forgives_everything():
    values = computed([(draw("aab"), draw("..."))])
    assert all(math.isnan(value) for value in values.values())


def test_without_any_image_every_value_is_nan():
    assert all(math.isnan(value) for value in computed([]).values())


def test_categories_never_seen_take_no_part():
    target = draw("aab.", categories={"a": 0, "b": 1})
    more = CATEGORIES + [Category(id=C + n, name=f"never {n}", is_thing=bool(n % 2)) for n in range(100)]
    prediction = draw("abb.", categories={"a": 0, "b": 1})
    few, many = computed([(prediction, target)]), computed([(prediction, target)], categories=more)
    assert many == few
    assert not math.isnan(few["pq"])


@pytest.mark.parametrize("seed", range(5))
def test_the_torch_histogram_equals_the_compiled_one(seed):
    for prediction, target in pairs_of(seed):
        tables = [
            np.array([0, *(segment.id for segment in panoptic_map.segments)]) for panoptic_map in (prediction, target)
        ]
        arguments = (prediction.segment_ids, target.segment_ids, *tables)
        compiled = overlaps._compiled_histogram(*arguments)
        assert (overlaps._torch_histogram(*arguments) == compiled).all()
        assert compiled.sum() == target.segment_ids.numel()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_maps_on_a_gpu_give_the_same_sums():
    ((prediction, target),) = pairs_of(4, number=1)
    reference = sum_image(prediction, target, num_categories=C)
    got = sum_image(prediction.to("cuda"), target.to("cuda"), num_categories=C)
    assert got.counts.device.type == "cuda"
    assert torch.equal(got.counts.cpu(), reference.counts)
    assert torch.equal(got.sums.cpu(), reference.sums)


@pytest.mark.parametrize("histogram", [overlaps._compiled_histogram, overlaps._torch_histogram])
@pytest.mark.parametrize("unlisted", [1, 6, 8])
def test_an_id_that_the_table_lacks_is_an_error(histogram, unlisted):
    ids, table = torch.tensor([[5, 5, unlisted]]), np.array([0, 7, 5])
    with pytest.raises(ValueError, match="an id that its segment table lacks"):
        histogram(torch.zeros(1, 3, dtype=torch.int64), ids, np.array([0]), table)
    with pytest.raises(ValueError, match="an id that its segment table lacks"):
        histogram(ids, torch.zeros(1, 3, dtype=torch.int64), table, np.array([0]))


def test_a_view_that_is_not_contiguous_is_counted():
    ((prediction, target),) = pairs_of(6, number=1)
    turned = [PanopticMap(one.segment_ids.T, one.segments) for one in (prediction, target)]
    reference = count_overlaps(prediction, target, num_categories=C)
    assert (count_overlaps(*turned, num_categories=C).pixels == reference.pixels).all()


def test_maps_are_not_changed():
    ((prediction, target),) = pairs_of(7, number=1)
    before = prediction.segment_ids.clone(), target.segment_ids.clone()
    sum_image(prediction, target, num_categories=C)
    assert torch.equal(prediction.segment_ids, before[0])
    assert torch.equal(target.segment_ids, before[1])
