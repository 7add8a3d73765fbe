import pytest
import torch
from drawn import draw

from panoptic.structures import IGNORE_INDEX, Category, PanopticMap, Sample, Segment
from panoptic.targets.semantic import encode_semantic

CATEGORIES = (Category(0, "sky", False), Category(1, "cat", True), Category(2, "dog", True))


def sample_of(panoptic_map):
    size = panoptic_map.size
    return Sample(torch.zeros(3, *size, dtype=torch.uint8), 1, "drawn.png", panoptic_map, None, size)


def random_sample(seed):
    """Noisy blocks of stuff, things and crowds; ids are not in order."""
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor([0, 70, 3, 900, 15, 1])
    blocks = torch.randint(len(ids), (4, 3), generator=generator).repeat_interleave(4, 0).repeat_interleave(5, 1)
    noise = torch.randint(len(ids), blocks.shape, generator=generator)
    numbers = torch.where(torch.rand(blocks.shape, generator=generator) < 0.2, noise, blocks)
    segments = [Segment(70, 1), Segment(3, 0), Segment(900, 2), Segment(15, 2, is_crowd=True), Segment(1, 1)]
    return sample_of(PanopticMap(ids[numbers], segments))


def test_void_and_crowd_are_ignored():
    panoptic_map = draw("aab.", "ccb.", "ccdd", categories={"a": 0, "b": 1, "c": 2, "d": 2}, crowd="d")
    targets = encode_semantic(sample_of(panoptic_map), categories=CATEGORIES)
    expected = [[0, 0, 1, 255], [2, 2, 1, 255], [2, 2, 255, 255]]
    assert targets.semantic_map.tolist() == expected
    assert targets.semantic_map.dtype == torch.uint8


@pytest.mark.parametrize(("area", "is_small"), [(3, False), (4, False), (5, True)])
def test_an_instance_is_small_below_the_area_only(area, is_small):
    panoptic_map = draw("aa...", "aa...", categories={"a": 1})  # a: 4 px
    targets = encode_semantic(sample_of(panoptic_map), categories=CATEGORIES, small_instance_area=area)
    assert torch.equal(targets.small_instances, (panoptic_map.segment_ids > 0) & is_small)


def test_stuff_and_crowd_are_never_small():
    panoptic_map = draw("ab.", "ab.", categories={"a": 0, "b": 1}, crowd="b")
    assert not encode_semantic(sample_of(panoptic_map), categories=CATEGORIES).small_instances.any()


def test_area_is_counted_in_the_map_not_read_from_the_table():
    panoptic_map = PanopticMap(torch.tensor([[7, 7, 0]]), [Segment(7, 1, area=100_000)])
    targets = encode_semantic(sample_of(panoptic_map), categories=CATEGORIES, small_instance_area=3)
    assert targets.small_instances.tolist() == [[True, True, False]]


@pytest.mark.parametrize("seed", range(5))
def test_equals_a_loop_over_pixels(seed):
    sample = random_sample(seed)
    segments = {segment.id: segment for segment in sample.panoptic_map.segments}
    ids = sample.panoptic_map.segment_ids
    targets = encode_semantic(sample, categories=CATEGORIES, small_instance_area=40)
    for y, x in torch.ones(ids.shape).nonzero().tolist():
        segment = segments.get(int(ids[y, x]))
        labelled = segment is not None and not segment.is_crowd
        assert targets.semantic_map[y, x] == (segment.category_id if labelled else IGNORE_INDEX)
        small = labelled and segment.category_id > 0 and int((ids == segment.id).sum()) < 40
        assert bool(targets.small_instances[y, x]) == small


def test_a_transposed_map_gives_transposed_targets():
    sample = random_sample(0)
    panoptic_map = sample.panoptic_map
    turned = sample_of(PanopticMap(panoptic_map.segment_ids.T, panoptic_map.segments))  # not contiguous
    there, back = (encode_semantic(s, categories=CATEGORIES, small_instance_area=40) for s in (sample, turned))
    assert torch.equal(there.semantic_map, back.semantic_map.T)
    assert torch.equal(there.small_instances, back.small_instances.T)


def test_a_map_of_void_and_one_pixel():
    empty = encode_semantic(sample_of(PanopticMap(torch.zeros(1, 1).long(), [])), categories=CATEGORIES)
    assert empty.semantic_map.tolist() == [[IGNORE_INDEX]]
    assert empty.small_instances.tolist() == [[False]]


def test_the_map_is_not_changed():
    sample = random_sample(1)
    before = sample.panoptic_map.segment_ids.clone()
    encode_semantic(sample, categories=CATEGORIES)
    assert torch.equal(sample.panoptic_map.segment_ids, before)


def test_a_sample_without_ground_truth_is_refused():
    sample = Sample(torch.zeros(3, 2, 3, dtype=torch.uint8), 1, "night.png", None, None, (2, 3))
    with pytest.raises(ValueError, match=r"expected a sample with a panoptic map, got 'night\.png' without one"):
        encode_semantic(sample, categories=CATEGORIES)


@pytest.mark.parametrize("category_id", [-1, 3])
def test_a_category_outside_the_list_is_refused(category_id):
    sample = sample_of(PanopticMap(torch.tensor([[7]]), [Segment(7, category_id)]))
    with pytest.raises(ValueError, match=rf"expected category ids 0\.\.2, got {category_id} of segment 7"):
        encode_semantic(sample, categories=CATEGORIES)
