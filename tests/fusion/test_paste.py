import math

import numpy as np
import pytest
import torch
from bottom_up_scenes import CATEGORIES
from oracles.deeperlab_fusion import majority

from panoptic.fusion.paste import (
    count_values,
    look_up,
    majority_vote,
    output_of,
    paste_categories,
    paste_instances,
    predicted_categories,
    thing_pixels,
)
from panoptic.structures import Category, Segment


def test_the_most_probable_category_and_of_equal_ones_the_lowest():
    logits = torch.tensor([[0.0, 1.0, -1.0], [2.0, 1.0, -3.0], [1.0, 0.0, -2.0], [2.0, 1.0, -1.5]])[:, None]
    assert predicted_categories({"semantic": logits}, CATEGORIES).tolist() == [[1, 0, 0]]


@pytest.mark.parametrize("size", [(1, 1), (6, 1), (5, 7)])
def test_predicted_categories_equal_the_argmax_and_crops_do_too(size):
    print("seed", 2)
    logits = torch.randn(4, 9, 11, generator=torch.Generator().manual_seed(2))
    crop = logits[:, : size[0], : size[1]]
    assert torch.equal(predicted_categories({"semantic": crop}, CATEGORIES), crop.argmax(0))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_refused(value):
    logits = torch.zeros(4, 3, 5)
    logits[2, 1, 4] = value
    with pytest.raises(ValueError, match="expected finite values in semantic, got nan or infinity; the network has di"):
        predicted_categories({"semantic": logits}, CATEGORIES)


@pytest.mark.parametrize("things", [[], [0], [1, 2], [0, 1, 2, 3]])
def test_pixels_of_things_are_those_whose_category_is_one(things):
    categories = [Category(n, str(n), is_thing=n in things) for n in range(4)]
    semantic_map = torch.tensor([[0, 1, 1], [3, 2, 0]])
    expected = [n for n, category in enumerate([0, 1, 1, 3, 2, 0]) if category in things]
    assert thing_pixels(semantic_map, categories).tolist() == expected


@pytest.mark.parametrize("length", [0, 1, 50])
def test_values_are_counted_as_numpy_does(length):
    print("seed", length)
    values = torch.randint(5, (length,), generator=torch.Generator().manual_seed(length))  # runs happen
    assert count_values(values, 7).tolist() == np.bincount(values.numpy(), minlength=7).tolist()


@pytest.mark.parametrize("shape", [(0,), (4,), (2, 3)])
def test_looking_up_is_indexing(shape):
    table, indices = torch.tensor([7, 5, 9]), torch.arange(math.prod(shape)).view(shape) % 3
    assert torch.equal(look_up(table, indices), table[indices])


def test_instances_are_pasted_over_a_map_that_stays():
    segment_ids = torch.tensor([[1, 1, 0], [0, 2, 2]])
    pasted = paste_instances(segment_ids, torch.tensor([2, 3, 4]), torch.tensor([1, 0, 1]), torch.tensor([5, 9]))
    assert pasted.tolist() == [[1, 1, 9], [5, 9, 2]]
    assert segment_ids.tolist() == [[1, 1, 0], [0, 2, 2]]


def test_chosen_categories_become_segments_and_others_void():
    semantic_map = torch.tensor([[0, 0, 1, 3], [0, 2, 1, 1]])
    segment_ids, segments = paste_categories(semantic_map, [CATEGORIES[3], CATEGORIES[0], CATEGORIES[1]], min_area=0)
    assert segment_ids.tolist() == [[2, 2, 3, 1], [2, 0, 3, 3]]
    assert segments == [Segment(1, 3, area=1), Segment(2, 0, area=3), Segment(3, 1, area=3)]


@pytest.mark.parametrize(("min_area", "kept"), [(2, [0, 1, 3]), (3, [0, 1, 3]), (4, [0, 1])])
def test_stuff_below_min_area_is_void_and_things_stay(min_area, kept):
    semantic_map = torch.tensor([[0, 0, 0, 0], [1, 3, 3, 3]])
    segment_ids, segments = paste_categories(semantic_map, CATEGORIES, min_area=min_area)
    assert [segment.category_id for segment in segments] == kept
    assert bool((segment_ids[1, 1:] == 0).all()) is (3 not in kept)


@pytest.mark.parametrize("seed", range(3))
def test_majority_equals_counting_each_instance(seed):
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    owners = torch.randint(6, (50,), generator=generator)
    category_ids = torch.randint(4, (50,), generator=generator)  # ties happen
    winners, areas = majority_vote(owners, category_ids, num_instances=8, num_categories=4)
    for instance in range(8):
        expected = majority(owners.tolist(), category_ids.tolist(), instance)
        assert int(areas[instance]) == int((owners == instance).sum())
        assert int(winners[instance]) == (0 if expected is None else expected)


def test_a_missing_output_is_named():
    with pytest.raises(KeyError, match=r"expected an output 'heatmap', got \['semantic'\]; add its head"):
        output_of({"semantic": torch.zeros(4, 2, 3)}, "heatmap", (5, 2, 3))


@pytest.mark.parametrize("shape", [(4, 2), (4, 3, 3), (4, 2, 3, 1), (1, 4, 2, 3)])
def test_an_output_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"expected heatmap of shape \(4, any, 2\), got .*; pass one image's outputs"):
        output_of({"heatmap": torch.zeros(shape)}, "heatmap", (4, None, 2))


def test_an_image_without_pixels_is_refused():
    with pytest.raises(ValueError, match=r"expected semantic of shape \(4, any, any\), got \(4, 0, 3\)"):
        predicted_categories({"semantic": torch.zeros(4, 0, 3)}, CATEGORIES)
