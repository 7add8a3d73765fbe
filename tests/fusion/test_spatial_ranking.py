import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles.merging import merge, ranking_score
from top_down_scenes import (
    ALL,
    CATEGORIES,
    STUFF,
    THINGS,
    check_table,
    detections_from,
    logits_of,
    picked,
    random_scene,
    same_result,
    shown_by,
)

from panoptic.fusion.detection_score import fuse_detection_score
from panoptic.fusion.masks import paste_masks
from panoptic.fusion.spatial_ranking import fuse_spatial_ranking, ranking_scores

PERSON, TIE = 4, 5
SIZE = (12, 9)


def logits_with(probability, channel, size=SIZE):
    """(T, H, W) of which one channel has this probability everywhere and the others share the rest."""
    others = (1 - probability) / (len(THINGS) - 1)
    logits = torch.full((len(THINGS), *size), math.log(others))
    logits[channel] = math.log(probability)
    return logits


def person_and_tie():
    """The masks of Figure 7, and ranking logits of which the scores are those printed there."""
    person, tie = torch.zeros(2, *SIZE, dtype=torch.bool)
    person[1:11, 2:8], tie[4:9, 4:6] = True, True  # 60 and 10 pixels
    on_tie = 0.01
    on_person = (0.325 * 60 - on_tie * 10) / 50
    ranking = torch.where(tie, logits_with(0.878, THINGS.index(TIE)), logits_with(on_person, THINGS.index(PERSON)))
    share = (1 - 0.878) / (len(THINGS) - 1)
    ranking[THINGS.index(PERSON), tie] = math.log(on_tie)
    for other in set(range(len(THINGS))) - {THINGS.index(PERSON), THINGS.index(TIE)}:
        ranking[other, tie] = math.log(share + (share - on_tie) / (len(THINGS) - 2))
    return person, tie, ranking


def random_outputs(seed, size, num_instances):
    logits, masks, category_ids, scores = random_scene(seed, size, num_instances)
    ranking = 2 * torch.randn(len(THINGS), *size, generator=torch.Generator().manual_seed(seed))
    return {"semantic": logits, "instances": detections_from(masks, category_ids, scores, size), "ranking": ranking}


def test_the_tie_of_figure_7_ends_on_top_of_the_person():
    person, tie, ranking = person_and_tie()
    detections = detections_from([person, tie], [PERSON, TIE], [0.997, 0.662])
    outputs = {"semantic": logits_of(torch.zeros(SIZE)), "instances": detections, "ranking": ranking}
    masks = paste_masks(detections, SIZE)
    scores = ranking_scores(outputs, CATEGORIES, detections, masks, np.array([0, 1]))
    assert scores.tolist() == pytest.approx([0.325, 0.878], abs=1e-6)
    on_top = fuse_spatial_ranking(outputs, CATEGORIES, **ALL)
    assert {pixel for pixel, (category_id, _) in shown_by(on_top).items() if category_id == TIE} == {
        (y, x) for y, x in tie.nonzero().tolist()
    }
    assert [(s.category_id, s.area) for s in on_top.panoptic_map.segments] == [(TIE, 10), (PERSON, 50), (0, 48)]
    assert [s.score for s in on_top.panoptic_map.segments[:2]] == pytest.approx([0.662, 0.997])
    covered = fuse_detection_score(outputs, CATEGORIES, **ALL)
    assert [(s.category_id, s.area) for s in covered.panoptic_map.segments] == [(PERSON, 60), (0, 48)]


@pytest.mark.parametrize("seed", range(10))
def test_equals_the_paper_one_pixel_at_a_time(seed):
    size = (15, 21)
    outputs = random_outputs(seed, size, 2 * (seed % 5) + 1)
    detections = outputs["instances"]
    result = fuse_spatial_ranking(outputs, CATEGORIES, score_threshold=0.15, min_area=6)
    masks = [mask.numpy() for mask in result.instances.masks]
    ids, scores = detections.category_ids.tolist(), detections.scores.tolist()
    ranking = [
        ranking_score(outputs["ranking"].double().numpy(), mask, THINGS.index(i))
        for mask, i in zip(masks, ids, strict=True)
    ]
    order = sorted((n for n in range(len(ids)) if scores[n] >= 0.15), key=lambda n: -ranking[n])
    stuff_map = np.array(STUFF)[outputs["semantic"][STUFF].argmax(0).numpy()]
    shown, _ = merge([masks[n] for n in order], [ids[n] for n in order], stuff_map, overlap_threshold=0.5, min_area=6)
    expected = {
        (y, x): (pixel[0], None if pixel[1] < 0 else round(scores[order[pixel[1]]], 5))
        for y, row in enumerate(shown)
        for x, pixel in enumerate(row)
        if pixel is not None
    }
    assert shown_by(result) == expected
    check_table(result.panoptic_map)


def test_at_equal_ranking_the_higher_detection_score_is_on_top():
    masks = torch.zeros(3, *SIZE, dtype=torch.bool)
    masks[0, 1:7, 1:6], masks[1, 3:9, 2:8], masks[2, 5:12, 0:5] = True, True, True  # of different areas
    detections = detections_from(list(masks), [1, 1, 1], [0.6, 0.9, 0.7])
    outputs = {
        "semantic": logits_of(torch.zeros(SIZE)),
        "instances": detections,
        "ranking": logits_with(0.3, 0),
    }
    ranked = fuse_spatial_ranking(outputs, CATEGORIES, overlap_threshold=0.0, **ALL)
    by_score = fuse_detection_score(outputs, CATEGORIES, overlap_threshold=0.0, **ALL)
    assert same_result(ranked, by_score)
    assert [s.score for s in ranked.panoptic_map.segments[:3]] == pytest.approx([0.9, 0.7, 0.6])


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_detections_changes_nothing(seed):
    outputs = random_outputs(seed, (15, 21), 9)
    order = np.random.default_rng(seed).permutation(9).tolist()
    other = outputs | {"instances": picked(outputs["instances"], order)}
    assert same_result(*(fuse_spatial_ranking(o, CATEGORIES, **ALL) for o in (outputs, other)))


def test_ranking_scores_are_those_at_the_networks_input_whatever_the_size_of_the_result():
    small, large = torch.zeros(2, *SIZE, dtype=torch.bool)
    small[4:6, 4:6], large[3:8, 3:8] = True, True
    ranking = torch.zeros(len(THINGS), *SIZE)
    ranking[THINGS.index(TIE), 4:6, 4:6] = 1.0
    ranking[THINGS.index(PERSON), 3:8, 3:8] = 0.5
    ranking[THINGS.index(PERSON), 4:6, 4:6] = 0.0
    outputs = {
        "semantic": logits_of(torch.zeros(SIZE)),
        "instances": detections_from([large, small], [PERSON, TIE], [0.9, 0.5]),
        "ranking": ranking,
    }
    for size in (None, (36, 27), (6, 5)):
        result = fuse_spatial_ranking(outputs, CATEGORIES, size=size, **ALL)
        assert [s.category_id for s in result.panoptic_map.segments] == [TIE, PERSON, 0]


def test_the_most_detections_are_the_best_by_detection_score():
    masks = torch.zeros(3, *SIZE, dtype=torch.bool)
    masks[0, 0:2], masks[1, 3:5], masks[2, 6:8] = True, True, True
    ranking = torch.where(masks[0], logits_with(0.9, 0), logits_with(0.2, 0))
    outputs = {
        "semantic": logits_of(torch.zeros(SIZE)),
        "instances": detections_from(list(masks), [1, 1, 1], [0.5, 0.6, 0.7]),
        "ranking": ranking,
    }
    result = fuse_spatial_ranking(outputs, CATEGORIES, max_instances=2, **ALL)
    assert [s.score for s in result.panoptic_map.segments if s.score] == pytest.approx([0.7, 0.6])


def test_a_mask_without_pixels_ranks_last_and_is_dropped():
    masks = torch.zeros(2, *SIZE, dtype=torch.bool)
    masks[1, 2:5] = True
    outputs = {
        "semantic": logits_of(torch.zeros(SIZE)),
        "instances": detections_from(list(masks), [1, 1], [0.9, 0.5]),
        "ranking": logits_with(0.5, 0),
    }
    result = fuse_spatial_ranking(outputs, CATEGORIES, **ALL)
    assert [(s.category_id, s.area) for s in result.panoptic_map.segments] == [(1, 27), (0, 81)]


def test_no_detections_leave_stuff():
    outputs = {
        "semantic": logits_of(torch.zeros(SIZE)),
        "instances": detections_from([], [], [], SIZE),
        "ranking": logits_with(0.5, 0),
    }
    assert [s.area for s in fuse_spatial_ranking(outputs, CATEGORIES, **ALL).panoptic_map.segments] == [108]


@pytest.mark.parametrize("num_threads", [2, 3])
def test_the_number_of_threads_changes_nothing(num_threads):
    outputs, before, results = random_outputs(4, (61, 83), 30), torch.get_num_threads(), []
    try:
        for threads in (1, num_threads):
            torch.set_num_threads(threads)
            results.append(fuse_spatial_ranking(outputs, CATEGORIES, **ALL))
    finally:
        torch.set_num_threads(before)
    assert same_result(*results)
    assert len(results[0].panoptic_map.segments) > 5


def test_a_missing_ranking_is_named():
    outputs = {"semantic": logits_of(torch.zeros(SIZE)), "instances": detections_from([], [], [], SIZE)}
    with pytest.raises(KeyError, match=r"expected an output 'ranking', got \['instances', 'semantic'\]; add its head"):
        fuse_spatial_ranking(outputs, CATEGORIES)


@pytest.mark.parametrize("shape", [(4, 12, 9), (5, 9, 12), (5, 12, 9, 1)])
def test_a_ranking_of_another_shape_is_refused(shape):
    outputs = {"semantic": logits_of(torch.zeros(SIZE)), "instances": detections_from([], [], [], SIZE)}
    with pytest.raises(ValueError, match=r"expected ranking of shape \(5, 12, 9\), got \("):
        fuse_spatial_ranking(outputs | {"ranking": torch.zeros(shape)}, CATEGORIES)


def test_a_ranking_that_is_not_finite_is_refused():
    person, tie, ranking = person_and_tie()
    ranking[0, 5, 5] = math.nan
    outputs = {
        "semantic": logits_of(torch.zeros(SIZE)),
        "instances": detections_from([person, tie], [PERSON, TIE], [0.997, 0.662]),
        "ranking": ranking,
    }
    with pytest.raises(ValueError, match="expected finite values in ranking, got nan or infinity; the network has div"):
        fuse_spatial_ranking(outputs, CATEGORIES)


@pytest.mark.parametrize("seed", range(20))
def test_without_ranking_within_a_class_its_places_go_to_its_instances_by_detection_score(seed):
    size = (24, 31)
    outputs = random_outputs(seed, size, num_instances=12)
    detections = outputs["instances"]
    masks = paste_masks(detections, size)
    by_score = sorted(range(12), key=lambda row: -detections.scores[row].item())
    ranking = ranking_scores(outputs, CATEGORIES, detections, masks, np.arange(12))
    ids = detections.category_ids.tolist()
    waiting = {category_id: [row for row in by_score if ids[row] == category_id] for category_id in ids}
    order = [waiting[ids[row]].pop(0) for row in sorted(by_score, key=lambda row: -ranking[row])]
    scores = torch.zeros(12)
    scores[order] = torch.linspace(0.9, 0.1, 12)  # merged by a score that says this order
    same_order = {"semantic": outputs["semantic"], "instances": replace(detections, scores=scores)}
    ours = fuse_spatial_ranking(outputs, CATEGORIES, rank_within_class=False, **ALL)
    theirs = fuse_detection_score(same_order, CATEGORIES, **ALL)
    assert torch.equal(ours.panoptic_map.segment_ids, theirs.panoptic_map.segment_ids)
    assert order != sorted(by_score, key=lambda row: -ranking[row])
