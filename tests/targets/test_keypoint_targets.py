import pickle

import numpy as np
import pytest
import torch
from drawn import draw
from oracles.deeperlab_targets import disk_owner, instance_ids, keypoints_of, offsets_to

from panoptic.structures import RECTANGLE, STAR, Category, KeypointGraph, PanopticMap, Sample, Segment
from panoptic.targets.keypoints import (
    KeypointTargets,
    encode_keypoints,
    expand_disks,
    heatmap_target,
    long_range_target,
    middle_range_target,
    short_range_target,
)

CATEGORIES = (Category(0, "sky", False), Category(1, "cat", True), Category(2, "dog", True))
GRAPHS = pytest.mark.parametrize("graph", [STAR, RECTANGLE], ids=lambda graph: graph.name)


def sample_of(panoptic_map):
    size = panoptic_map.size
    return Sample(torch.zeros(3, *size, dtype=torch.uint8), 1, "drawn.png", panoptic_map, None, size)


def encode(panoptic_map, graph=STAR):
    return encode_keypoints(sample_of(panoptic_map), categories=CATEGORIES, graph=graph)


def random_map(seed, size=(13, 17)):
    """Rectangles over each other and single stray pixels; some segments have no pixel left."""
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    draw_int = lambda high: int(torch.randint(high, (), generator=generator))  # noqa: E731
    ids = torch.zeros(size, dtype=torch.int64)
    segments = []
    for number in range(7):
        segment_id = 1 + (number * 37) % 11
        y, x = draw_int(size[0]), draw_int(size[1])
        ids[y : y + 1 + draw_int(6), x : x + 1 + draw_int(6)] = segment_id
        ids[draw_int(size[0]), draw_int(size[1])] = segment_id
        segments.append(Segment(segment_id, draw_int(3), is_crowd=draw_int(4) == 0))
    return PanopticMap(ids, segments)


def test_corners_are_extreme_pixels_and_the_centre_is_the_mean():
    targets = encode(draw("......", ".bb...", ".b....", categories={"b": 1}))
    # b: (1, 1) (1, 2) (2, 1); mean (4/3, 4/3)
    expected = torch.tensor([[[1, 1], [1, 2], [2, 2], [2, 1], [4 / 3, 4 / 3]]])
    torch.testing.assert_close(targets.keypoints, expected)
    assert targets.instance_map.tolist() == [[0] * 6, [0, 1, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0]]


def test_only_things_that_are_not_crowd_are_instances_and_void_and_crowd_are_not_valid():
    targets = encode(draw("aabb.", "ccdd.", categories={"a": 0, "b": 1, "c": 2, "d": 2}, crowd="c"))
    assert targets.instance_map.tolist() == [[0, 0, 1, 1, 0], [0, 0, 2, 2, 0]]
    assert targets.valid.tolist() == [[True, True, True, True, False], [False, False, True, True, False]]


@GRAPHS
@pytest.mark.parametrize("seed", range(6))
def test_equals_a_loop_over_pixels(seed, graph):
    panoptic_map = random_map(seed)
    targets = encode(panoptic_map, graph)
    ids = instance_ids(panoptic_map, [category.is_thing for category in CATEGORIES])
    assert targets.keypoints.shape == (len(ids), len(graph.keypoints), 2)
    crowd = [s.id for s in panoptic_map.segments if s.is_crowd]
    for row, segment_id in enumerate(ids):
        assert torch.equal(targets.instance_map == row + 1, panoptic_map.segment_ids == segment_id)
        points = keypoints_of(panoptic_map, segment_id)
        expected = torch.tensor([points[name] for name in graph.keypoints], dtype=torch.float32)
        torch.testing.assert_close(targets.keypoints[row], expected)
    assert int(targets.instance_map.max()) == len(ids)
    assert torch.equal(targets.valid, ~torch.isin(panoptic_map.segment_ids, torch.tensor([0, *crowd])))


@GRAPHS
@pytest.mark.parametrize("radius", [0.5, 2.0, 3.7])
@pytest.mark.parametrize("seed", range(4))
def test_dense_targets_equal_loops(seed, radius, graph):
    targets = encode(random_map(seed), graph)
    keypoints, valid = targets.keypoints.numpy(), targets.valid.numpy()
    owner = expand_disks(targets, radius)
    expected = disk_owner(keypoints, valid.shape, radius)
    np.testing.assert_array_equal(owner.numpy(), expected)
    np.testing.assert_array_equal(heatmap_target(owner).numpy(), expected > 0)
    sources, ends = zip(*graph.edges, strict=True)
    kinds = list(range(len(graph.keypoints)))
    long_range_owner = np.broadcast_to(targets.instance_map.numpy(), (len(kinds), *valid.shape))
    for (offsets, active), (expected_offsets, expected_active) in [
        (short_range_target(targets, owner), offsets_to(keypoints, expected, valid, kinds)),
        (middle_range_target(targets, owner, graph), offsets_to(keypoints, expected[list(sources)], valid, list(ends))),
        (long_range_target(targets), offsets_to(keypoints, long_range_owner, valid, kinds)),
    ]:
        np.testing.assert_array_equal(offsets.numpy(), expected_offsets)
        np.testing.assert_array_equal(np.broadcast_to(active.numpy(), expected_active.shape), expected_active)


@pytest.mark.parametrize(("radius", "inside"), [(1.99, False), (2.0, True), (2.01, True)])
def test_a_pixel_at_exactly_the_radius_is_inside(radius, inside):
    targets = encode(draw(".......", "...a...", categories={"a": 1}))
    assert bool(expand_disks(targets, radius)[0, 1, 5]) is inside


def test_the_nearest_keypoint_owns_a_pixel_and_equal_distance_the_lower_row():
    targets = encode(draw("a...b", categories={"a": 1, "b": 1}))
    assert expand_disks(targets, 3.0)[0].tolist() == [[1, 1, 1, 2, 2]]


def test_middle_range_offsets_start_at_the_pixel():
    targets = encode(draw("bbbbbb", "baaabb", "baaabb", "bbbbbb", categories={"a": 1, "b": 0}))
    offsets, active = middle_range_target(targets, expand_disks(targets, 1.0), STAR)
    edge = STAR.edges.index((0, 4))  # top left (1, 1) to centre (1.5, 2)
    assert bool(active[edge, 1, 0])
    assert offsets[edge, :, 1, 0].tolist() == [0.5, 2.0]
    assert not bool(active[edge, 2, 2])


def test_void_and_crowd_inside_a_disk_are_not_active():
    targets = encode(draw("ac.bb", categories={"a": 1, "b": 0, "c": 2}, crowd="c"))
    owner = expand_disks(targets, 4.0)
    assert (owner == 1).all()
    for _, active in (short_range_target(targets, owner), middle_range_target(targets, owner, STAR)):
        assert active[0].tolist() == [[True, False, False, True, True]]
    assert long_range_target(targets)[1].tolist() == [[True, False, False, False, False]]


@GRAPHS
@pytest.mark.parametrize("text", ["....", "aaaa"])
def test_no_instances(text, graph):
    targets = encode(draw(text, text), graph)
    num_kinds, num_edges = len(graph.keypoints), len(graph.edges)
    owner = expand_disks(targets, 25.0)
    assert targets.keypoints.shape == (0, num_kinds, 2)
    assert heatmap_target(owner).shape == (num_kinds, 2, 4)
    assert short_range_target(targets, owner)[0].shape == (num_kinds, 2, 2, 4)
    assert middle_range_target(targets, owner, graph)[0].shape == (num_edges, 2, 2, 4)
    assert long_range_target(targets)[0].shape == (num_kinds, 2, 2, 4)
    results = (short_range_target(targets, owner), middle_range_target(targets, owner, graph))
    assert not any(tensor.any() for tensor in (owner, *results[0], *results[1], *long_range_target(targets)))


def test_one_pixel():
    targets = encode(draw("a", categories={"a": 1}))
    assert targets.keypoints.tolist() == [[[0, 0]] * 5]
    assert expand_disks(targets, 25.0).tolist() == [[[1]]] * 5


def test_inputs_are_not_changed_and_targets_travel_between_processes():
    panoptic_map = random_map(3)
    before = panoptic_map.segment_ids.clone()
    targets = encode(panoptic_map)
    copies = pickle.loads(pickle.dumps(targets))
    owner = expand_disks(targets, 3.0)
    kept = owner.clone()
    short_range_target(targets, owner), middle_range_target(targets, owner, STAR), long_range_target(targets)
    assert torch.equal(panoptic_map.segment_ids, before)
    assert torch.equal(owner, kept)
    for name in ("instance_map", "valid", "keypoints"):
        assert torch.equal(getattr(targets, name), getattr(copies, name))


def test_targets_stay_on_their_device():
    targets = encode(random_map(2)).to("meta")
    assert isinstance(targets, KeypointTargets)
    owner = expand_disks(targets, 3.0)
    tensors = [owner, heatmap_target(owner), *short_range_target(targets, owner), *long_range_target(targets)]
    tensors += middle_range_target(targets, owner, STAR)
    assert {tensor.device.type for tensor in tensors} == {"meta"}


@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan")])
def test_a_radius_that_is_not_positive_is_refused(radius):
    with pytest.raises(ValueError, match=f"expected a positive radius in pixels, got {radius}"):
        expand_disks(encode(draw("a")), radius)


def test_an_unknown_keypoint_is_refused():
    graph = KeypointGraph("nose", ("centre", "nose"), ((0, 1), (1, 0)))
    with pytest.raises(ValueError, match=r"expected keypoints out of .*, got \['nose'\] in graph 'nose'"):
        encode(draw("a", categories={"a": 1}), graph)


def test_a_sample_without_ground_truth_is_refused():
    sample = Sample(torch.zeros(3, 2, 3, dtype=torch.uint8), 1, "night.png", None, None, (2, 3))
    with pytest.raises(ValueError, match=r"expected a sample with a panoptic map, got 'night\.png' without one"):
        encode_keypoints(sample, categories=CATEGORIES, graph=STAR)
