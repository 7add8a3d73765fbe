"""Instances of a sample: boxes, cut-out masks and crowds, from either ground truth."""

import pickle
from dataclasses import replace

import pytest
import torch
from drawn import draw

from panoptic.structures import Category, Instances, PanopticMap, Sample, Segment
from panoptic.targets.instances import encode_instances

CATEGORIES = (
    Category(0, "sky", False),
    Category(1, "cat", True),
    Category(2, "road", False),
    Category(3, "dog", True),
)


def sample_of(panoptic_map, instances=None, seed=0):
    image = torch.zeros(3, *panoptic_map.size, dtype=torch.uint8)
    return Sample(image, 1, "drawn.png", panoptic_map, instances, panoptic_map.size, seed)


def own_instances(masks, category_ids, crowd=()):
    """Instances whose boxes are wrong on purpose: masks decide."""
    count = len(masks)
    return Instances(
        category_ids=torch.tensor(category_ids, dtype=torch.int64),
        masks=masks,
        boxes=torch.full((count, 4), 77.0),
        scores=torch.ones(count),
        is_crowd=torch.tensor([number in crowd for number in range(count)], dtype=torch.bool),
    )


def overlapping(seed, count=9, size=(19, 26)):
    """Random blots, which overlap; the fourth is empty."""
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, *size, dtype=torch.bool)
    for mask in masks:
        top, left = (int(torch.randint(side - 3, (), generator=generator)) for side in size)
        blot = mask[top : top + 7, left : left + 9]
        blot.copy_(torch.rand(blot.shape, generator=generator) < 0.4)
    masks[3] = False
    category_ids = [1 + 2 * int(torch.randint(2, (), generator=generator)) for _ in masks]
    return own_instances(masks, category_ids, crowd={5})


def of_own(sample):
    return encode_instances(sample, categories=CATEGORIES, instances_from="own")


def of_map(sample):
    return encode_instances(sample, categories=CATEGORIES, instances_from="panoptic")


def test_things_of_a_map_become_boxes_and_masks_and_crowds_become_boxes_alone():
    panoptic_map = draw(
        "ab..dd",
        "abbc.d",
        "aa.c.e",
        categories={"a": 0, "b": 1, "c": 3, "d": 1, "e": 3},
        crowd="d",
    )
    targets = of_map(sample_of(panoptic_map, seed=11))
    assert targets.boxes.tolist() == [[1, 0, 3, 2], [3, 1, 4, 3], [5, 2, 6, 3]]
    assert targets.boxes.dtype == torch.float32
    assert targets.category_ids.tolist() == [1, 3, 3]
    assert [mask.tolist() for mask in targets.masks] == [[[True, False], [True, True]], [[True], [True]], [[True]]]
    assert targets.crowd_boxes.tolist() == [[4, 0, 6, 2]]
    assert targets.seed == 11


@pytest.mark.parametrize("seed", range(3))
def test_masks_of_ones_own_come_back_whole_in_their_order(seed):
    instances = overlapping(seed)
    panoptic_map = PanopticMap(torch.zeros(19, 26, dtype=torch.int64), [])
    targets = of_own(sample_of(panoptic_map, instances))
    kept = [row for row in range(9) if instances.masks[row].any() and row != 5]
    assert 3 not in kept
    assert torch.equal(targets.full_masks((19, 26)), instances.masks[kept])
    assert torch.equal(targets.category_ids, instances.category_ids[kept])
    rows = torch.tensor([2, 0, 2])
    assert torch.equal(targets.full_masks((19, 26), rows), instances.masks[kept][rows])
    padded = targets.full_masks((32, 64))
    assert torch.equal(padded[:, :19, :26], instances.masks[kept])
    assert padded.sum() == instances.masks[kept].sum()


@pytest.mark.parametrize("seed", range(3))
def test_boxes_are_those_of_a_loop_over_pixels(seed):
    instances = overlapping(seed)
    panoptic_map = PanopticMap(torch.zeros(19, 26, dtype=torch.int64), [])
    targets = of_own(sample_of(panoptic_map, instances))
    boxes = {False: [], True: []}
    for mask, crowd in zip(instances.masks, instances.is_crowd.tolist(), strict=True):
        pixels = [(x, y) for y, x in mask.nonzero().tolist()]
        if pixels:
            x, y = zip(*pixels, strict=True)
            boxes[crowd].append([min(x), min(y), max(x) + 1, max(y) + 1])
    assert targets.boxes.tolist() == boxes[False]
    assert targets.crowd_boxes.tolist() == boxes[True]


@pytest.mark.parametrize("seed", range(3))
def test_both_sources_agree_where_masks_are_the_segments(seed):
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor([0, 70, 3, 900, 15, 1])[torch.randint(6, (13, 17), generator=generator)]
    segments = [Segment(1, 1), Segment(3, 0), Segment(15, 3, is_crowd=True), Segment(70, 1), Segment(900, 3)]
    things = [segment for segment in segments if segment.category_id in (1, 3)]
    masks = torch.stack([ids == thing.id for thing in things])
    instances = own_instances(masks, [thing.category_id for thing in things], crowd={1})
    sample = sample_of(PanopticMap(ids, segments), instances)
    torch.testing.assert_close(vars(of_own(sample)), vars(of_map(sample)), rtol=0, atol=0)
    assert len(of_map(sample).boxes) == 3


def test_a_segment_without_pixels_is_no_instance():
    panoptic_map = PanopticMap(torch.tensor([[7, 7, 0], [7, 0, 0]]), [Segment(7, 1), Segment(8, 1), Segment(9, 3)])
    assert of_map(sample_of(panoptic_map)).boxes.tolist() == [[0, 0, 2, 2]]


@pytest.mark.parametrize("encode", [of_own, of_map])
def test_an_image_without_things_has_no_rows(encode):
    panoptic_map = draw("aab", "abb", categories={"a": 0, "b": 2})
    nothing = own_instances(torch.zeros(0, 2, 3, dtype=torch.bool), [])
    targets = encode(sample_of(panoptic_map, nothing))
    assert targets.boxes.shape == (0, 4)
    assert targets.crowd_boxes.shape == (0, 4)
    assert targets.category_ids.dtype == torch.int64
    assert targets.masks == []
    assert targets.full_masks((2, 3)).shape == (0, 2, 3)


def test_a_thousand_instances_of_one_pixel():
    ids = torch.arange(1, 1001).view(25, 40)
    targets = of_map(sample_of(PanopticMap(ids, [Segment(number, 1) for number in range(1, 1001)])))
    assert len(targets.boxes) == len(targets.pixels) == 1000
    assert (targets.boxes[:, 2:] - targets.boxes[:, :2] == 1).all()
    assert torch.equal(targets.full_masks((25, 40)).long().argmax(0) + 1, ids)


def test_targets_hold_the_boxes_alone_and_travel_to_workers():
    panoptic_map = draw("." * 40, ".aab" + "." * 36, "." * 40, categories={"a": 1, "b": 3})
    targets = of_map(sample_of(panoptic_map))
    assert len(targets.pixels) == 3  # of 120
    there = pickle.loads(pickle.dumps(targets))
    torch.testing.assert_close(vars(there), vars(targets), rtol=0, atol=0)


def test_without_masks_of_its_own_an_image_is_named():
    sample = sample_of(draw("ab", categories={"a": 1}))
    message = "expected instance masks of its own with 'drawn.png', got none; .* choose instances_from=panoptic"
    with pytest.raises(ValueError, match=message):
        of_own(sample)


def test_without_a_panoptic_map_an_image_is_named():
    sample = replace(sample_of(draw("ab", categories={"a": 1})), panoptic_map=None)
    with pytest.raises(ValueError, match=r"expected a sample with a panoptic map, got 'drawn.png' without one"):
        of_map(sample)


def test_an_instance_of_stuff_is_refused():
    sample = sample_of(draw("ab", categories={"a": 1}), own_instances(torch.ones(2, 1, 2, dtype=torch.bool), [1, 2]))
    with pytest.raises(ValueError, match=r"instances of things in 'drawn.png', .* are \[1, 3\], got \[2\]"):
        of_own(sample)


def test_an_unknown_source_is_refused():
    with pytest.raises(ValueError, match="expected instances_from to be one of own, panoptic, got 'boxes'"):
        encode_instances(sample_of(draw("ab")), categories=CATEGORIES, instances_from="boxes")
