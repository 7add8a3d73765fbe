import itertools
import math

import numpy as np
import pytest
import torch
from bottom_up_scenes import CATEGORIES, exact_segments, perfect_outputs, random_outputs, scene_map
from drawn import draw
from oracles.deeperlab_fusion import fuse as fuse_slowly

from panoptic.fusion import bottom_up
from panoptic.fusion.assignment import assign_pixels_torch
from panoptic.fusion.bottom_up import fuse_bottom_up
from panoptic.fusion.hough_voting import hough_scores_torch
from panoptic.fusion.refinement import locate_keypoints_torch
from panoptic.structures import RECTANGLE, STAR, Category

pytestmark = pytest.mark.slow

GRAPHS = pytest.mark.parametrize("graph", [STAR, RECTANGLE], ids=lambda graph: graph.name)
STUFF_ONLY = (
    Category(0, "sky", False),
    Category(1, "sea", False),
    Category(2, "sand", False),
    Category(3, "ice", False),
)


def check_equals_oracle(result, outputs, graph, **constants):
    ids, table = fuse_slowly(
        {name: output.double().numpy() for name, output in outputs.items()},
        [category.is_thing for category in CATEGORIES],
        graph.edges,
        **constants,
    )
    np.testing.assert_array_equal(result.panoptic_map.segment_ids.numpy(), ids)
    for segment in result.panoptic_map.segments:
        category_id, score = table.pop(segment.id)
        assert segment.category_id == category_id
        assert segment.score == (None if score is None else pytest.approx(score, abs=1e-4))
    assert not table


def use_torch(monkeypatch):
    """What runs on other devices, in place of the compiled loops of the CPU."""

    def hough(heatmap, short_range, located, *, radius, short_weight, long_weight, vote_threshold):
        unit = 1 / (math.pi * radius**2)
        least = math.log(vote_threshold / (1 - vote_threshold))
        return hough_scores_torch(heatmap, short_range, located, short_weight * unit, long_weight * unit, least)

    for name, function in (
        ("locate_keypoints", locate_keypoints_torch),
        ("hough_scores", hough),
        ("assign_pixels", assign_pixels_torch),
    ):
        monkeypatch.setattr(bottom_up, name, function)


@GRAPHS
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("radius", "cell", "gap"), [(6.0, (32, 40), 7), (4.0, (30, 37), 1), (25.0, (120, 150), 26)])
def test_separate_things_come_back_exactly(radius, cell, gap, seed, graph):
    # Corners in void have no middle-range target, so without the centre there is nothing to group by: no void.
    truth = scene_map(seed, rows=3, columns=4, cell=cell, gap=gap, void=graph is STAR)
    outputs = perfect_outputs(truth, graph, radius)
    exact, present = exact_segments(truth, fuse_bottom_up(outputs, CATEGORIES, graph=graph, radius=radius))
    assert exact == present > 6


@GRAPHS
def test_most_things_that_touch_and_cover_each_other_come_back_exactly(graph):
    exact = present = 0
    for seed in range(10):
        truth = scene_map(seed, rows=4, columns=5, cell=(20, 24), gap=0, jitter=20, void=False)
        outputs = perfect_outputs(truth, graph, 6.0)
        found = fuse_bottom_up(outputs, CATEGORIES, graph=graph, radius=6.0)
        exact, present = exact + exact_segments(truth, found)[0], present + exact_segments(truth, found)[1]
    # Measured over 20 seeds: 96.4 % of things with either graph; the others share a box (nms_threshold 0.7: 99 %).
    assert exact / present >= 0.94


def test_touching_things_come_back_exactly():
    truth = draw(
        "aaaabbbbbb..",
        "aaaabbbbbb..",
        "aaaacccbbb..",
        "ddddcccbbb..",
        "ddddcccbbb..",
        "eeeeeeeeeeee",
        categories={"a": 1, "b": 2, "c": 1, "d": 1, "e": 3},
    )
    result = fuse_bottom_up(perfect_outputs(truth, STAR, 2.0), CATEGORIES, radius=2.0)
    assert exact_segments(truth, result) == (5, 5)


@GRAPHS
@pytest.mark.parametrize(("radius", "peak", "vote"), [(2.0, 0.3, 0.0), (3.0, 0.15, 0.4), (2.0, 50.0, 0.0)])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_paper_one_step_at_a_time(seed, radius, peak, vote, graph):
    outputs = random_outputs(seed, graph, (7, 11), spread=1.5)
    constants = {"radius": radius, "peak_threshold": peak, "vote_threshold": vote, "nms_threshold": 0.6}
    check_equals_oracle(fuse_bottom_up(outputs, CATEGORIES, graph=graph, **constants), outputs, graph, **constants)


@GRAPHS
@pytest.mark.parametrize("implementation", ["compiled", "torch"])
@pytest.mark.parametrize("seed", range(2))
def test_noisy_outputs_of_drawn_things_equal_the_paper_one_step_at_a_time(seed, implementation, graph, monkeypatch):
    truth = scene_map(seed, rows=2, columns=2, cell=(8, 10), gap=0, jitter=2, void=False)
    noise = random_outputs(seed, graph, truth.size, spread=0.5)
    outputs = {name: output + noise[name] for name, output in perfect_outputs(truth, graph, 3.0).items()}
    outputs["semantic"] = outputs["semantic"] / 20 + noise["semantic"] / 3  # some pixels are wrong
    if implementation == "torch":
        use_torch(monkeypatch)
    constants = {"radius": 3.0, "peak_threshold": 0.3, "vote_threshold": 0.01, "nms_threshold": 0.5}
    result = fuse_bottom_up(outputs, CATEGORIES, graph=graph, **constants)
    assert sum(segment.score is not None for segment in result.panoptic_map.segments) >= 3
    check_equals_oracle(result, outputs, graph, **constants)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@GRAPHS
def test_a_gpu_finds_the_same_segments(graph):
    truth = scene_map(0, rows=3, columns=4, cell=(32, 40), gap=3, void=False)
    noise = random_outputs(0, graph, truth.size, spread=0.5)
    outputs = {name: output + noise[name] for name, output in perfect_outputs(truth, graph, 6.0).items()}
    expected = fuse_bottom_up(outputs, CATEGORIES, graph=graph, radius=6.0)
    on_gpu = {name: output.cuda() for name, output in outputs.items()}
    result = fuse_bottom_up(on_gpu, CATEGORIES, graph=graph, radius=6.0)
    assert result.panoptic_map.segment_ids.is_cuda
    differs = result.panoptic_map.segment_ids.cpu() != expected.panoptic_map.segment_ids
    assert differs.float().mean() < 1e-3  # pixels between two instances, as far from both up to rounding
    categories = [[s.category_id for s in found.panoptic_map.segments] for found in (result, expected)]
    assert categories[0] == categories[1]


@GRAPHS
@pytest.mark.parametrize(("size", "spread", "seed"), itertools.product([(40, 61), (1, 9)], [0.5, 5.0], [0, 1]))
def test_every_segment_has_its_pixels_and_nothing_is_void(size, spread, seed, graph):
    outputs = random_outputs(seed, graph, size, spread)
    before = {name: output.clone() for name, output in outputs.items()}
    result = fuse_bottom_up(outputs, CATEGORIES, graph=graph, radius=3.0)
    ids, areas = result.panoptic_map.segment_ids.unique(return_counts=True)
    assert dict(zip(ids.tolist(), areas.tolist(), strict=True)) == {s.id: s.area for s in result.panoptic_map.segments}
    assert 0 not in ids
    assert torch.equal(result.semantic_map, outputs["semantic"].argmax(0))
    category_of = torch.zeros(int(ids.max()) + 1, dtype=torch.int64)
    for segment in result.panoptic_map.segments:
        category_of[segment.id] = segment.category_id
        assert segment.score is None or 0 <= segment.score <= 1
        assert segment.score is None or CATEGORIES[segment.category_id].is_thing
    is_thing = torch.tensor([category.is_thing for category in CATEGORIES])
    fused = category_of[result.panoptic_map.segment_ids]
    assert torch.equal(is_thing[fused], is_thing[result.semantic_map])
    assert torch.equal(fused[~is_thing[fused]], result.semantic_map[~is_thing[fused]])
    assert all(torch.equal(outputs[name], before[name]) for name in before)


def test_things_without_instances_are_one_segment_per_category():
    truth = draw("aab..", "aabcc", "aab..", categories={"a": 1, "b": 3, "c": 2})
    outputs = perfect_outputs(truth, STAR, 2.0)
    result = fuse_bottom_up(outputs, CATEGORIES, radius=2.0, peak_threshold=1000.0)
    assert [(s.category_id, s.area, s.score) for s in result.panoptic_map.segments] == [
        (0, 4, None),
        (1, 6, None),
        (2, 2, None),
        (3, 3, None),
    ]


def test_the_majority_of_an_instance_decides_its_category():
    truth = draw("......", ".aaaa.", ".aaaa.", "......", categories={"a": 1})
    outputs = perfect_outputs(truth, STAR, 2.0)
    outputs["semantic"][2, 1:3, 1:3] += 40  # 4 of 8 pixels say dog: cat, the lower, wins
    assert [s.category_id for s in fuse_bottom_up(outputs, CATEGORIES, radius=2.0).panoptic_map.segments] == [0, 1]
    outputs["semantic"][2, 1, 3] += 40  # 5 of 8
    assert [s.category_id for s in fuse_bottom_up(outputs, CATEGORIES, radius=2.0).panoptic_map.segments] == [0, 2]


@pytest.mark.parametrize(("min_area", "void"), [(3, 0), (4, 0), (5, 4)])
def test_min_area_takes_small_stuff_only(min_area, void):
    truth = draw("aaaabbb", "cccabbb", "cccabdd", "ccca.dd", categories={"a": 1, "b": 0, "c": 0, "d": 3})  # d: 4 px
    result = fuse_bottom_up(perfect_outputs(truth, STAR, 2.0), CATEGORIES, radius=2.0, min_area=min_area)
    assert int((result.panoptic_map.segment_ids == 0).sum()) == void


def test_max_instances_keeps_the_best_and_they_take_all_pixels():
    truth = scene_map(0, rows=2, columns=3, cell=(20, 30), gap=3, void=False)
    outputs = perfect_outputs(truth, STAR, 4.0)
    every = [s for s in fuse_bottom_up(outputs, CATEGORIES, radius=4.0).panoptic_map.segments if s.score is not None]
    two = fuse_bottom_up(outputs, CATEGORIES, radius=4.0, max_instances=2).panoptic_map.segments
    scores = [segment.score for segment in two if segment.score is not None]
    assert scores == sorted((segment.score for segment in every), reverse=True)[:2]
    assert sum(s.area for s in two if s.score is not None) == sum(s.area for s in every)


@pytest.mark.parametrize(("step", "count"), [(-1e-3, 1), (0.0, 1), (1e-3, 0)])
def test_instances_have_at_least_the_score_threshold(step, count):
    outputs = perfect_outputs(draw("......", ".aaaa.", ".aaaa.", "......", categories={"a": 1}), STAR, 2.0)
    score = fuse_bottom_up(outputs, CATEGORIES, radius=2.0).panoptic_map.segments[-1].score
    result = fuse_bottom_up(outputs, CATEGORIES, radius=2.0, score_threshold=score + step)
    assert sum(segment.score is not None for segment in result.panoptic_map.segments) == count


def test_stuff_only_needs_no_instance_outputs():
    outputs = {"semantic": random_outputs(0, STAR, (4, 7))["semantic"]}
    result = fuse_bottom_up(outputs, STUFF_ONLY)
    assert all(segment.score is None for segment in result.panoptic_map.segments)
    assert torch.equal(result.panoptic_map.segment_ids - 1, outputs["semantic"].argmax(0))


@GRAPHS
@pytest.mark.parametrize("category_id", [0, 1])
def test_one_pixel(category_id, graph):
    outputs = perfect_outputs(draw("a", categories={"a": category_id}), graph, 25.0)
    result = fuse_bottom_up(outputs, CATEGORIES, graph=graph)
    assert [(s.category_id, s.area) for s in result.panoptic_map.segments] == [(category_id, 1)]


def test_half_precision_outputs_are_fused():
    truth = scene_map(1, rows=2, columns=3, cell=(20, 30), gap=3)
    outputs = {name: output.bfloat16() for name, output in perfect_outputs(truth, STAR, 4.0).items()}
    assert fuse_bottom_up(outputs, CATEGORIES, radius=4.0).panoptic_map.size == truth.size


@pytest.mark.parametrize("name", ["semantic", "heatmap", "short_range", "middle_range", "long_range"])
def test_a_missing_or_misshapen_output_is_named(name):
    outputs = random_outputs(0, STAR, (4, 7))
    with pytest.raises(ValueError, match=f"expected {name} of shape"):
        fuse_bottom_up({**outputs, name: outputs[name][None]}, CATEGORIES)
    del outputs[name]
    with pytest.raises(KeyError, match=f"expected an output '{name}'"):
        fuse_bottom_up(outputs, CATEGORIES)


@pytest.mark.parametrize("name", ["long_range", "middle_range"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_offsets_that_are_not_finite_are_refused(value, name):
    outputs = perfect_outputs(draw("......", ".aaaa.", ".aaaa.", "......", categories={"a": 1}), STAR, 2.0)
    outputs[name] = torch.full_like(outputs[name], value)
    with pytest.raises(ValueError, match=f"expected finite values in {name}, got nan or infinity"):
        fuse_bottom_up(outputs, CATEGORIES, radius=2.0)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"radius": 0.0}, "expected a positive radius, got 0.0"),
        ({"peak_threshold": 0.0}, "expected a positive peak_threshold, got 0.0"),
        ({"vote_threshold": 1.0}, r"expected a vote_threshold in \[0, 1\), got 1.0"),
        ({"refinements": -1}, "expected refinements of at least 0, got -1"),
        ({"max_correction": math.nan}, "expected max_correction of at least 0, got nan"),
        ({"peak_window": -1}, "expected peak_window of at least 0, got -1"),
        ({"nms_threshold": -0.5}, "expected nms_threshold of at least 0, got -0.5"),
        ({"max_instances": -1}, "expected max_instances of at least 0, got -1"),
        ({"kappa": 0.0}, "expected positive kappa, got"),
        ({"kappa": [0.1, 0.2]}, "expected 5 kappa, one per keypoint of the graph, got 2"),
    ],
)
def test_constants_out_of_range_are_refused(constants, message):
    with pytest.raises(ValueError, match=message):
        fuse_bottom_up(random_outputs(0, STAR, (4, 7)), CATEGORIES, **constants)
