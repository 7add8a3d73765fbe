import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from top_down_scenes import CATEGORIES, STUFF, THINGS, detections_from, random_scene

from panoptic.fusion.logits import (
    best_probabilities,
    best_probabilities_torch,
    mean_probabilities,
    mean_probabilities_torch,
    predict_semantic,
    predict_semantic_torch,
    resized_logits,
)
from panoptic.fusion.masks import paste_masks
from panoptic.structures import IGNORE_INDEX, Category

SIZES = [None, (9, 23), (20, 31), (3, 1), (29, 14)]


def random_logits(seed, channels, size=(9, 23), spread=3.0):
    print("seed", seed)
    return spread * torch.randn(channels, *size, generator=torch.Generator().manual_seed(seed))


def interpolated(logits, size):
    return F.interpolate(logits[None].double(), size=size, mode="bilinear", align_corners=False)[0]


def without_ties(logits):
    """(H, W) bool, where the first two of (C, H, W) are apart."""
    first, second = logits.topk(2, dim=0).values
    return first - second > 1e-4


@pytest.mark.parametrize("size", SIZES)
def test_categories_are_the_argmax_of_interpolated_logits(size):
    logits = random_logits(0, len(CATEGORIES))
    prediction = predict_semantic({"semantic": logits}, CATEGORIES, size)
    expected = interpolated(logits, prediction.size)
    assert prediction.size == (size or (9, 23))
    assert prediction.logits_size == (9, 23)
    clear = without_ties(expected)
    assert torch.equal(prediction.semantic_map[clear], expected.argmax(0)[clear])
    clear = without_ties(expected[STUFF])
    stuff = torch.tensor(STUFF)[expected[STUFF].argmax(0)]
    assert torch.equal(torch.from_numpy(prediction.stuff).long()[clear], stuff[clear])


@pytest.mark.parametrize("size", SIZES)
def test_resized_logits_are_interpolated(size):
    logits = random_logits(1, 3)
    size = size or (9, 23)
    assert torch.allclose(resized_logits(logits, size).double(), interpolated(logits, size), atol=1e-4)


def test_of_equal_logits_the_lowest_category_wins_among_all_and_among_stuff():
    logits = torch.zeros(len(CATEGORIES), 1, 4)
    logits[[1, 3], 0, 1] = 2.0  # car and grass
    logits[[0, 5], 0, 2] = 2.0  # sky and tie
    logits[[4, 6], 0, 3] = 2.0  # person and ball
    prediction = predict_semantic({"semantic": logits}, CATEGORIES, None)
    assert prediction.categories.tolist() == [[0, 1, 0, 4]]
    assert prediction.stuff.tolist() == [[0, 3, 0, 0]]


def test_crops_of_padded_logits_are_read_up_to_their_own_border():
    padded = random_logits(2, len(CATEGORIES), (16, 32))
    crop = padded[:, :9, :23]
    for size in SIZES:
        cropped, copied = (predict_semantic({"semantic": x}, CATEGORIES, size) for x in (crop, crop.clone()))
        assert np.array_equal(cropped.categories, copied.categories)
        assert np.array_equal(cropped.stuff, copied.stuff)


@pytest.mark.parametrize("is_thing", [False, True])
def test_without_stuff_there_is_no_category_of_stuff(is_thing):
    categories = tuple(Category(n, str(n), is_thing=is_thing) for n in range(3))
    prediction = predict_semantic({"semantic": random_logits(3, 3)}, categories, (5, 6))
    if is_thing:
        assert (prediction.stuff == IGNORE_INDEX).all()
    else:
        assert np.array_equal(prediction.stuff, prediction.categories)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("size", [None, (20, 31)])
def test_semantic_logits_that_are_not_finite_are_refused(size, value):
    logits = random_logits(4, len(CATEGORIES))
    logits[2, 4, 5] = value
    with pytest.raises(ValueError, match="expected finite values in semantic, got nan or infinity; the network has di"):
        predict_semantic({"semantic": logits}, CATEGORIES, size)


@pytest.mark.parametrize("spread", [0.1, 3.0, 200.0])
@pytest.mark.parametrize("size", SIZES)
def test_best_probabilities_are_those_of_softmax_where_needed(size, spread):
    logits = random_logits(5, 12, spread=spread)
    size = size or (9, 23)
    needed = np.random.default_rng(5).random(size) < 0.4
    found = torch.from_numpy(best_probabilities(logits, needed))
    expected = interpolated(logits, size).softmax(0).amax(0)
    assert torch.allclose(found[needed].double(), expected[needed], rtol=2e-5, atol=0)
    assert not found[~needed].any()


@pytest.mark.parametrize("width", [1, 127, 128, 129, 300])
def test_mean_probabilities_are_those_of_softmax_under_the_masks(width):
    logits = random_logits(6, len(THINGS), (7, width), spread=5.0)
    _, masks, _, scores = random_scene(6, (7, width), 9)
    masks[3] = torch.zeros(7, width, dtype=torch.bool)
    pasted = paste_masks(detections_from(masks, [1] * 9, scores), (7, width))
    channels = torch.arange(9) % len(THINGS)
    found = mean_probabilities(logits, pasted, channels)
    probabilities = logits.double().softmax(0)
    means = [
        float(probabilities[c][mask].mean()) if mask.any() else 0.0 for c, mask in zip(channels, masks, strict=True)
    ]
    assert found.tolist() == pytest.approx(means, rel=1e-5)


def test_masks_over_one_probability_have_exactly_that_mean_whatever_their_area():
    logits = random_logits(7, len(THINGS), (1, 1)).expand(-1, 40, 50)
    _, masks, _, scores = random_scene(8, (40, 50), 12)
    pasted = paste_masks(detections_from(masks, [1] * 12, scores), (40, 50))
    found = mean_probabilities(logits.contiguous(), pasted, torch.ones(12, dtype=torch.int64))
    assert len(set(pasted.areas.tolist())) > 5
    assert len(set(found[torch.from_numpy(pasted.areas) > 0].tolist())) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_ranking_logits_that_are_not_finite_are_refused_where_a_mask_is(value):
    logits = torch.zeros(len(THINGS), 6, 9)
    logits[1, 5, 8] = value
    corner, elsewhere = torch.zeros(2, 6, 9, dtype=torch.bool)
    corner[4:, 7:], elsewhere[:4, :5] = True, True
    of_elsewhere = paste_masks(detections_from([elsewhere], [1], [0.5]), (6, 9))
    assert mean_probabilities(logits, of_elsewhere, torch.tensor([0])).tolist() == pytest.approx([1 / len(THINGS)])
    both = paste_masks(detections_from([elsewhere, corner], [1, 1], [0.5, 0.6]), (6, 9))
    for function in (mean_probabilities, mean_probabilities_torch):
        with pytest.raises(ValueError, match="expected finite values in ranking, got nan or infinity; the network ha"):
            function(logits, both, torch.tensor([0, 0]))


@pytest.mark.parametrize("size", [(9, 23), (20, 31)])
def test_torch_makes_the_same_of_other_devices(size):
    logits = random_logits(9, len(CATEGORIES))
    is_stuff = torch.tensor([not category.is_thing for category in CATEGORIES])
    compiled = predict_semantic({"semantic": logits}, CATEGORIES, size)
    in_torch = predict_semantic_torch(logits, is_stuff, size)
    assert np.array_equal(compiled.categories, in_torch.categories)
    assert np.array_equal(compiled.stuff, in_torch.stuff)
    needed = np.random.default_rng(1).random(size) < 0.5
    assert np.allclose(best_probabilities(logits, needed), best_probabilities_torch(logits, needed), rtol=1e-5)
    _, masks, _, scores = random_scene(9, (9, 23), 5)
    pasted = paste_masks(detections_from(masks, [1] * 5, scores), (9, 23))
    channels = torch.tensor([0, 3, 6, 2, 1])
    means = mean_probabilities(logits, pasted, channels), mean_probabilities_torch(logits, pasted, channels)
    assert torch.allclose(*means, rtol=1e-5)
