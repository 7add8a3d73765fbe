import math

import numpy as np
import pytest
import torch
from bottom_up_scenes import random_outputs
from oracles import deeperlab_fusion as oracle

from panoptic.fusion.grouping import (
    box_scales,
    breadth_first_edges,
    expected_oks,
    find_peaks,
    follow_edges,
    group_keypoints,
    keypoint_boxes,
    suppress_boxes,
)
from panoptic.structures import RECTANGLE, STAR, KeypointGraph

GRAPHS = pytest.mark.parametrize("graph", [STAR, RECTANGLE], ids=lambda graph: graph.name)


def peaks_of(rows, threshold=1.0, window=1):
    kinds, positions = find_peaks(torch.tensor([rows], dtype=torch.float32), threshold=threshold, window=window)
    assert (kinds == 0).all()
    return [tuple(position) for position in positions.tolist()]


@pytest.mark.parametrize("window", [0, 1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_peaks_equal_a_loop_over_pixels(seed, window):
    print("seed", seed)
    scores = torch.randint(6, (3, 8, 11), generator=torch.Generator().manual_seed(seed)).float()  # many plateaus
    kinds, positions = find_peaks(scores, threshold=3.0, window=window)
    found = [(kind, *position) for kind, position in zip(kinds.tolist(), positions.tolist(), strict=True)]
    expected = [(kind, *peak) for kind in range(3) for peak in oracle.peaks(scores[kind].numpy(), 3.0, window)]
    assert found == expected


def test_a_plateau_has_one_peak():
    assert peaks_of([[0, 2, 2, 0], [0, 2, 2, 0], [0, 0, 0, 0]]) == [(0, 1)]


def test_two_peaks_are_farther_apart_than_the_window():
    row = [2.0, 0.0, 3.0, 0.0, 0.0, 2.0]
    assert peaks_of([row], window=1) == [(0, 0), (0, 2), (0, 5)]
    assert peaks_of([row], window=2) == [(0, 2), (0, 5)]
    assert peaks_of([row], window=3) == [(0, 2)]


@pytest.mark.parametrize(("score", "found"), [(0.99, []), (1.0, [(0, 1)]), (1.01, [(0, 1)])])
def test_a_peak_has_at_least_the_threshold(score, found):
    assert peaks_of([[0.0, score, 0.0]], threshold=1.0) == found


def test_no_peaks():
    kinds, positions = find_peaks(torch.zeros(5, 3, 4), threshold=0.1, window=2)
    assert kinds.shape == (0,)
    assert positions.shape == (0, 2)


def test_a_corner_of_the_star_reaches_the_centre_first():
    path = [STAR.edges[edge] for edge in breadth_first_edges(STAR, 2)]
    assert path == [(2, 4), (4, 0), (4, 1), (4, 3)]
    assert {STAR.edges[edge] for edge in breadth_first_edges(STAR, 4)} == {(4, 0), (4, 1), (4, 2), (4, 3)}


def test_a_corner_of_the_rectangle_reaches_its_neighbours_first():
    path = [RECTANGLE.edges[edge] for edge in breadth_first_edges(RECTANGLE, 1)]
    assert path == [(1, 2), (1, 0), (2, 3)]


def test_a_graph_in_two_pieces_is_refused():
    graph = KeypointGraph("pieces", ("centre", "top_left"), ())
    with pytest.raises(ValueError, match=r"that joins all keypoints, got none of \['top_left'\] from 'centre'; add"):
        breadth_first_edges(graph, 0)


@GRAPHS
@pytest.mark.parametrize("longest", [2.0, math.inf])
@pytest.mark.parametrize("refinements", [0, 2])
def test_following_edges_equals_one_candidate_at_a_time(refinements, longest, graph):
    outputs = random_outputs(3, graph, (9, 14), spread=1.5)
    middle_range, short_range = outputs["middle_range"], outputs["short_range"]
    kinds = torch.arange(12) % len(graph.keypoints)
    positions = torch.stack([torch.arange(12) % 9, torch.arange(12) + 1], dim=1)
    keypoints = follow_edges(
        kinds, positions, middle_range, short_range, graph, refinements=refinements, max_correction=longest
    )
    fields = (middle_range.numpy(), short_range.numpy(), graph.edges, refinements, longest)
    expected = [oracle.all_keypoints(k, p, *fields) for k, p in zip(kinds.tolist(), positions.numpy(), strict=True)]
    np.testing.assert_allclose(keypoints.numpy(), expected, atol=1e-3)


def test_boxes_and_scales_include_the_last_pixel():
    keypoints = torch.tensor([[[2.0, 5.0], [4.0, 10.0]], [[7.0, 7.0], [7.0, 7.0]]])
    assert keypoint_boxes(keypoints).tolist() == [[5, 2, 11, 5], [7, 7, 8, 8]]
    torch.testing.assert_close(box_scales(keypoints), torch.tensor([math.sqrt(18), 1.0]))


@pytest.mark.parametrize("radius", [1.0, 2.5])
@pytest.mark.parametrize("seed", range(3))
def test_expected_oks_equals_a_loop_over_the_disk(seed, radius):
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    heatmap = torch.randn(2, 8, 11, generator=generator)
    scores = torch.rand(2, 8, 11, generator=generator) * (torch.rand(2, 8, 11, generator=generator) < 0.3)
    forms = torch.rand(12, 4, 2, generator=generator) * torch.tensor([9.0, 12.0]) - 1  # some outside
    forms[:4] = forms[:4].round()
    kinds, kappa = torch.arange(12) % 2, torch.tensor([0.1, 0.4])
    rescored = expected_oks(kinds, forms[:, 0], box_scales(forms), heatmap, scores, radius=radius, kappa=kappa)
    probabilities = heatmap.sigmoid().numpy()
    expected = [
        oracle.expected_oks(form[0], form, probabilities[kind], scores[kind].numpy(), radius, float(kappa[kind]))
        for kind, form in zip(kinds.tolist(), forms.numpy(), strict=True)
    ]
    np.testing.assert_allclose(rescored.numpy(), expected, atol=1e-5)


def test_expected_oks_of_votes_in_one_place_is_the_probability():
    heatmap, scores = torch.zeros(1, 5, 7), torch.zeros(1, 5, 7)
    scores[0, 2, 3] = 9.0
    zero, scale, kappa = torch.zeros(3).long(), torch.tensor([5.0, 5.0, 5.0]), torch.tensor([0.2])
    positions = torch.tensor([[2.0, 3.0], [2.0, 4.0], [4.0, 6.0]])  # there, 1 px off, out of the disk
    rescored = expected_oks(zero, positions, scale, heatmap, scores, radius=2.0, kappa=kappa)
    torch.testing.assert_close(rescored, torch.tensor([0.5, 0.5 * math.exp(-0.5), 0.0]))


@pytest.mark.parametrize("seed", range(4))
def test_grouping_equals_a_priority_queue(seed):
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(3, (40,), generator=generator)
    keypoints = 10 * torch.rand(40, 3, 2, generator=generator)
    scores = torch.randint(8, (40,), generator=generator) / 8  # ties go to the first
    kept = group_keypoints(kinds, keypoints, scores, proximity=2.0)
    assert kept.tolist() == oracle.group(kinds.tolist(), keypoints.numpy(), scores.tolist(), 2.0)
    first = group_keypoints(kinds, keypoints, scores, proximity=2.0, max_candidates=3)
    assert first.tolist() == kept.tolist()[:3]


@pytest.mark.parametrize(("proximity", "kept"), [(4.99, [1, 0]), (5.0, [1]), (5.01, [1])])
def test_a_candidate_within_the_proximity_is_dropped(proximity, kept):
    keypoints = torch.tensor([[[0.0, 0.0], [50.0, 0.0]], [[3.0, 4.0], [90.0, 0.0]]])  # 5 px apart in kind 0
    found = group_keypoints(torch.tensor([0, 1]), keypoints, torch.tensor([0.1, 0.9]), proximity=proximity)
    assert found.tolist() == kept


def test_proximity_looks_at_the_same_keypoint_only():
    keypoints = torch.tensor([[[0.0, 0.0], [50.0, 0.0]], [[50.0, 0.0], [0.0, 0.0]]])
    found = group_keypoints(torch.tensor([0, 0]), keypoints, torch.tensor([0.9, 0.1]), proximity=3.0)
    assert found.tolist() == [0, 1]


@pytest.mark.parametrize(("threshold", "kept"), [(0.49, [1]), (0.5, [1, 0]), (0.51, [1, 0])])
def test_boxes_above_the_threshold_are_suppressed(threshold, kept):
    # boxes of 1 x 3 and 1 x 3 pixels, 2 shared: 2 / 4
    keypoints = torch.tensor([[[0.0, 0.0], [0.0, 2.0]], [[0.0, 1.0], [0.0, 3.0]]])
    assert suppress_boxes(keypoints, torch.tensor([0.2, 0.3]), nms_threshold=threshold).tolist() == kept


@pytest.mark.parametrize("seed", range(3))
def test_suppression_equals_a_loop_over_pairs(seed):
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    keypoints, scores = 12 * torch.rand(30, 4, 2, generator=generator), torch.rand(30, generator=generator)
    boxes = torch.cat([keypoints.amin(1), keypoints.amax(1) + 1], dim=1).numpy()
    kept = suppress_boxes(keypoints, scores, nms_threshold=0.4)
    assert kept.tolist() == oracle.suppress(boxes, scores.tolist(), 0.4)
