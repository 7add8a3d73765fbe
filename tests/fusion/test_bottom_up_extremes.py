"""Images at the edge of what a fusion meets: nothing, everything, crowds at the border, values that are no numbers."""

import math

import pytest
import torch
from bottom_up_scenes import CATEGORIES, exact_segments, perfect_outputs, random_outputs
from drawn import draw

from panoptic.fusion.bottom_up import fuse_bottom_up
from panoptic.structures import RECTANGLE, STAR, Category, PanopticMap, Segment

GRAPHS = pytest.mark.parametrize("graph", [STAR, RECTANGLE], ids=lambda graph: graph.name)
NOT_FINITE = [
    (name, value)
    for name in ("semantic", "heatmap", "short_range", "middle_range", "long_range")
    for value in (math.nan, math.inf)
    if (name, value) != ("heatmap", math.inf)  # a certain keypoint
]
ONE_THING = ("......", ".aaaa.", ".aaaa.", "......")


def test_an_image_of_void_is_one_segment_of_what_the_semantic_head_says():
    outputs = perfect_outputs(PanopticMap(torch.zeros(5, 7, dtype=torch.int64), []), STAR, 2.0)
    result = fuse_bottom_up(outputs, CATEGORIES, radius=2.0)
    assert result.panoptic_map.segments == (Segment(1, 0, area=35),)
    assert bool((result.panoptic_map.segment_ids == 1).all())


def test_without_pixels_of_things_keypoints_are_not_looked_at():
    outputs = perfect_outputs(draw("aaa", "bbb", categories={"a": 0, "b": 3}), STAR, 2.0)
    wild = {name: torch.full_like(output, math.nan) for name, output in outputs.items()} | {
        "semantic": outputs["semantic"]
    }
    result = fuse_bottom_up(wild, CATEGORIES, radius=2.0)
    assert [(s.category_id, s.area, s.score) for s in result.panoptic_map.segments] == [(0, 3, None), (3, 3, None)]


def test_categories_without_things_leave_keypoints_alone():
    stuff = tuple(Category(category.id, category.name, is_thing=False) for category in CATEGORIES)
    outputs = perfect_outputs(draw(*ONE_THING, categories={"a": 1}), STAR, 2.0)
    result = fuse_bottom_up(outputs, stuff, radius=2.0)
    assert [(s.category_id, s.area, s.score) for s in result.panoptic_map.segments] == [(0, 16, None), (1, 8, None)]


@GRAPHS
@pytest.mark.parametrize("size", [(9, 14), (60, 71)])
def test_one_instance_may_fill_the_image(size, graph):
    truth = PanopticMap(torch.ones(size, dtype=torch.int64), [Segment(1, 2)])
    result = fuse_bottom_up(perfect_outputs(truth, graph, 25.0), CATEGORIES, graph=graph)
    assert [(s.category_id, s.area) for s in result.panoptic_map.segments] == [(2, size[0] * size[1])]


@GRAPHS
def test_instances_cut_by_the_border_come_back_exactly(graph):
    truth = draw(
        "aaa...bbb...cccc",
        "aaa...bbb...cccc",
        "................",
        "................",
        "d.....ee.......f",
        "d.....ee.......f",
        "d.....ee.......f",
        "................",
        "................",
        "ggggg.....h..iii",
        "ggggg...hhhh.iii",
        categories=dict.fromkeys("abcdefghi", 1) | dict.fromkeys("ceg", 2),
    )
    labelled = torch.where(truth.segment_ids == 0, 99, truth.segment_ids)
    truth = PanopticMap(labelled, [*truth.segments, Segment(99, 3)])
    result = fuse_bottom_up(perfect_outputs(truth, graph, 2.0), CATEGORIES, graph=graph, radius=2.0)
    assert exact_segments(truth, result) == (10, 10)


@GRAPHS
@pytest.mark.parametrize("max_instances", [300, 100])
def test_hundreds_of_touching_instances_come_back_exactly(max_instances, graph):
    y, x = torch.meshgrid(torch.arange(15 * 11), torch.arange(20 * 13), indexing="ij")
    ids = 1 + (y // 11) * 20 + x // 13  # 300 rectangles of 11 x 13 pixels and nothing between them
    truth = PanopticMap(ids, [Segment(n, 1 + n % 2) for n in range(1, 301)])
    outputs = perfect_outputs(truth, graph, 3.0)
    result = fuse_bottom_up(outputs, CATEGORIES, graph=graph, radius=3.0, max_instances=max_instances)
    assert len(result.panoptic_map.segments) == max_instances
    if max_instances == 300:
        assert exact_segments(truth, result) == (300, 300)


@pytest.mark.parametrize(("name", "value"), NOT_FINITE)
def test_one_value_that_is_not_finite_is_refused_with_the_name_of_its_head(value, name):
    outputs = perfect_outputs(draw(*ONE_THING, categories={"a": 1}), STAR, 2.0)
    outputs[name][-1, ..., 1, 2] = value  # inside the thing and the disk of its centre
    if name == "middle_range":
        outputs[name][:, ..., 1:3, 1:5] = value  # they are read at keypoints only
    with pytest.raises(ValueError, match=f"expected finite values in {name}, got nan or infinity; the network has div"):
        fuse_bottom_up(outputs, CATEGORIES, radius=2.0)


@pytest.mark.parametrize("num_threads", [2, 3])
def test_the_number_of_threads_changes_nothing(num_threads):
    outputs = random_outputs(0, STAR, (61, 83), spread=4.0)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, num_threads):
            torch.set_num_threads(threads)
            results.append(fuse_bottom_up(outputs, CATEGORIES, radius=4.0).panoptic_map)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0].segment_ids, results[1].segment_ids)
    assert results[0].segments == results[1].segments
    assert len(results[0].segments) > 10


def test_outputs_cropped_from_a_padded_image_fuse_as_their_copies_do():
    padded = random_outputs(0, STAR, (41, 65), spread=3.0)
    crops = {name: output[..., :37, :58] for name, output in padded.items()}
    copies = {name: crop.clone(memory_format=torch.contiguous_format) for name, crop in crops.items()}
    cropped, copied = (fuse_bottom_up(outputs, CATEGORIES, radius=4.0).panoptic_map for outputs in (crops, copies))
    assert torch.equal(cropped.segment_ids, copied.segment_ids)
    assert cropped.segments == copied.segments
