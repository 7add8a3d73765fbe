"""Overlapping instances beside the map of what is seen, and the tensor that is drawn of them."""

import pickle
from functools import partial

import pytest
import torch
from drawn_occlusion import CATEGORIES, MEETING, tie_on_person
from oracles.spatial_ranking import instance_tensor

from panoptic.structures import IGNORE_INDEX
from panoptic.targets.instances import encode_instances
from panoptic.targets.occlusion import draw_class_masks, encode_occlusion, thing_channels
from panoptic.targets.semantic import encode_semantic


def test_targets_are_the_instances_and_the_map_of_the_sample():
    sample = tie_on_person()
    targets = encode_occlusion(sample, categories=CATEGORIES, instances_from="own")
    alone = encode_instances(sample, categories=CATEGORIES, instances_from="own")
    assert torch.equal(targets.instances.full_masks((5, 4)), alone.full_masks((5, 4)))
    assert torch.equal(targets.instances.category_ids, alone.category_ids)
    assert torch.equal(targets.semantic_map, encode_semantic(sample, categories=CATEGORIES).semantic_map)


def test_own_instances_meet_under_the_tie_and_those_of_the_panoptic_map_never_do():
    for instances_from, meeting in (("own", MEETING), ("panoptic", [])):
        targets = encode_occlusion(tie_on_person(), categories=CATEGORIES, instances_from=instances_from)
        assert (targets.instances.full_masks((5, 4)).sum(0) > 1).nonzero().tolist() == meeting


def test_a_sample_without_own_instances_is_named():
    sample = tie_on_person()
    sample.instances = None
    with pytest.raises(ValueError, match=r"expected instance masks of its own with 'drawn.png', got none"):
        encode_occlusion(sample, categories=CATEGORIES, instances_from="own")


def test_the_encoder_travels_to_workers():
    encode = partial(encode_occlusion, categories=CATEGORIES, instances_from="own")
    one, other = encode(tie_on_person()), pickle.loads(pickle.dumps(encode))(tie_on_person())
    assert torch.equal(one.semantic_map, other.semantic_map)
    assert torch.equal(one.instances.pixels, other.instances.pixels)


def test_things_have_channels_in_order_and_all_else_none():
    channels = thing_channels(CATEGORIES)
    assert channels[:4] == [0, IGNORE_INDEX, 1, 2]
    assert channels[4:] == [IGNORE_INDEX] * 252


@pytest.mark.parametrize("seed", range(3))
def test_class_masks_equal_figure_4_one_pixel_at_a_time(seed):
    generator = torch.Generator().manual_seed(seed)
    print("seed", seed)
    masks = torch.rand(4, 5, 7, generator=generator) < 0.3
    boxes = torch.tensor([[1, 0, 6, 4], [0, 0, 7, 5], [3, 2, 4, 3], [2, 1, 2, 4]])  # the last one without width
    channels = [2, 0, 2, 1]
    inside = torch.zeros_like(masks)
    for row, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        inside[row, y1:y2, x1:x2] = True
    found = draw_class_masks(
        boxes,
        [mask[y1:y2, x1:x2] for mask, (x1, y1, x2, y2) in zip(masks, boxes.tolist(), strict=True)],
        channels,
        num_channels=3,
        size=(5, 7),
    )
    assert found.dtype == torch.bool
    assert found.int().tolist() == instance_tensor((masks & inside).int().tolist(), channels, 3)


def test_no_instances_draw_zeros():
    found = draw_class_masks(torch.zeros(0, 4), [], [], num_channels=3, size=(5, 7))
    assert found.shape == (3, 5, 7)
    assert not found.any()
