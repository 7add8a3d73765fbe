"""What every fusion of `conf/fusion` promises, with the perfect outputs of heads from configuration."""

import pytest
import torch
from composed import (
    CATEGORIES,
    as_tensors,
    choices,
    compose,
    network_of,
    perfect_outputs,
    scene,
    separate_things,
    small_mask_rcnn,
    unlabelled,
    with_map,
    without_things,
)

from panoptic.instantiation import build
from panoptic.structures import VOID, Detections

pytestmark = pytest.mark.slow

OANET = [
    "heads=oanet_small",
    "decoder=fpn_rpn_features",
    "backbone.output_stride=32",
    "heads.instances.instances_from=panoptic",
    *small_mask_rcnn("instances"),
]
HEADS = {"semantic": ["heads=semantic"], "bottom_up": ["heads=deeperlab"], "bottom_up_small": ["heads=deeperlab"]}
"""The heads of each fusion; those that are not listed read Mask R-CNN and some of OANet's others."""

ONE_SEGMENT_PER_CATEGORY = ["semantic"]
"""Fusions that do not tell instances apart."""

REFINING = ["region_growing", "region_growing_small"]
"""Fusions whose semantic map is not the network's own."""

VOID_BESIDE_INSTANCES = ["instances"]
"""Fusions that say nothing of what is no instance; they have tests of their own."""

CASES = [
    (fusion, keypoints)
    for fusion in choices("fusion")
    for keypoints in (choices("keypoints") if fusion.startswith("bottom_up") else ["star"])
    if fusion not in VOID_BESIDE_INSTANCES
]
INSTANCES = [case for case in CASES if case[0] not in ONE_SEGMENT_PER_CATEGORY]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def parts(request):
    return parts_of(*request.param)


@pytest.fixture
def is_refining(request):
    """Whether the fusion of `parts` has a semantic map of its own."""
    return request.node.callspec.params["parts"][0] in REFINING


@pytest.fixture(scope="module", params=INSTANCES, ids="-".join)
def instance_parts(request):
    return parts_of(*request.param)


def parts_of(fusion, keypoints):
    """(network whose heads give perfect outputs, fusion that keeps small stuff)."""
    config = compose(*HEADS.get(fusion, OANET), f"fusion={fusion}", f"keypoints={keypoints}")
    return network_of(config).eval(), build(config["fusion"], min_area=0)


def category_map(panoptic_map):
    """(H, W) category of every pixel, -1 on void and crowd."""
    categories = torch.full(panoptic_map.size, -1)
    for segment in panoptic_map.segments:
        if not segment.is_crowd:
            categories[panoptic_map.segment_ids == segment.id] = segment.category_id
    return categories


def regions(panoptic_map, where):
    """{(category, pixels within `where`)} of the segments that have any there, ids forgotten."""
    found = set()
    for segment in panoptic_map.segments:
        pixels = (panoptic_map.segment_ids == segment.id) & where
        if pixels.any():
            found.add((segment.category_id, tuple(pixels.flatten().nonzero().flatten().tolist())))
    return found


def check_result(result, size):
    """A map whose table lists exactly what is there, without void."""
    assert result.panoptic_map.size == size
    assert result.semantic_map.shape == size
    assert result.semantic_map.dtype == torch.int64
    assert 0 <= result.semantic_map.min() <= result.semantic_map.max() < len(CATEGORIES)
    ids, areas = result.panoptic_map.segment_ids.unique(return_counts=True)
    assert VOID not in ids
    assert dict(zip(ids.tolist(), areas.tolist(), strict=True)) == {s.id: s.area for s in result.panoptic_map.segments}
    for segment in result.panoptic_map.segments:
        assert 0 <= segment.category_id < len(CATEGORIES)
        assert not segment.is_crowd
        assert segment.score is None or 0 <= segment.score <= 1


def random_like(outputs, seed, spread, size):
    """Outputs of the same kinds in an image of `size`."""
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    return {
        name: random_detections(generator, size)
        if isinstance(output, Detections)
        else spread * torch.randn(*output.shape[:-2], *size, generator=generator)
        for name, output in outputs.items()
    }


def random_detections(generator, size, count=7) -> Detections:
    """Boxes that overlap and reach out of the image, of any thing."""
    things = torch.tensor([category.id for category in CATEGORIES if category.is_thing])
    width_height = torch.tensor([size[1], size[0]])
    centres, sides = (torch.rand(count, 2, generator=generator) * width_height for _ in range(2))
    return Detections(
        category_ids=things[torch.randint(len(things), (count,), generator=generator)],
        boxes=torch.cat([centres - sides / 2, centres + sides / 2], 1),
        scores=torch.rand(count, generator=generator),
        masks=torch.rand(count, 6, 9, generator=generator),
        image_size=size,
    )


@pytest.mark.parametrize("index", range(4))
def test_the_perfect_outputs_of_a_scene_without_things_fuse_to_its_map(parts, index):
    network, fusion = parts
    sample = without_things(scene(index, (50, 71)))
    result = fusion(perfect_outputs(network, sample), CATEGORIES)
    check_result(result, sample.size)
    labelled = category_map(sample.panoptic_map) >= 0
    assert labelled.float().mean() > 0.3
    assert regions(result.panoptic_map, labelled) == regions(sample.panoptic_map, labelled)


@pytest.mark.parametrize("seed", range(3))
def test_the_perfect_outputs_of_separate_things_fuse_to_their_map(instance_parts, seed):
    network, fusion = instance_parts
    sample = with_map(scene(0, (96, 160)), separate_things(seed))
    result = fusion(perfect_outputs(network, sample), CATEGORIES)
    check_result(result, sample.size)
    everywhere = torch.ones(sample.size, dtype=torch.bool)
    assert len(regions(result.panoptic_map, everywhere)) == 14
    assert regions(result.panoptic_map, everywhere) == regions(sample.panoptic_map, everywhere)


@pytest.mark.parametrize("seed", range(2))
def test_categories_survive_with_things_too(parts, seed):
    network, fusion = parts
    sample = with_map(scene(0, (96, 160)), separate_things(seed))
    result = fusion(perfect_outputs(network, sample), CATEGORIES)
    assert torch.equal(result.semantic_map, category_map(sample.panoptic_map))
    assert torch.equal(category_map(result.panoptic_map), category_map(sample.panoptic_map))


@pytest.mark.parametrize("index", range(4))
def test_the_semantic_map_of_a_crowded_scene_is_right_wherever_it_is_labelled(parts, index):
    network, fusion = parts
    sample = scene(index, (64, 81))
    truth = category_map(sample.panoptic_map)
    result = fusion(perfect_outputs(network, sample), CATEGORIES)
    check_result(result, sample.size)
    assert torch.equal(result.semantic_map[truth >= 0], truth[truth >= 0])


def test_an_unlabelled_image_gives_a_valid_map(parts):
    network, fusion = parts
    sample = unlabelled(scene(0, (50, 71)))
    check_result(fusion(perfect_outputs(network, sample), CATEGORIES), sample.size)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (40, 51)])
@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
def test_random_outputs_give_a_valid_map_and_are_left_alone(parts, is_refining, size, spread):
    network, fusion = parts
    outputs = random_like(perfect_outputs(network, unlabelled(scene(0, (48, 64)))), 0, spread, size)
    before = {name: [tensor.clone() for tensor in as_tensors(output)] for name, output in outputs.items()}
    result = fusion(outputs, CATEGORIES)
    check_result(result, size)
    if not is_refining:
        assert torch.equal(result.semantic_map, outputs["semantic"].argmax(0))
    for name, output in outputs.items():
        torch.testing.assert_close(as_tensors(output), before[name], rtol=0, atol=0)


def test_the_same_outputs_fuse_to_the_same_map(parts):
    network, fusion = parts
    outputs = random_like(perfect_outputs(network, unlabelled(scene(0))), 1, 3.0, (48, 64))
    first, second = fusion(outputs, CATEGORIES), fusion(outputs, CATEGORIES)
    assert torch.equal(first.panoptic_map.segment_ids, second.panoptic_map.segment_ids)
    assert first.panoptic_map.segments == second.panoptic_map.segments


def test_of_semantic_logits_the_softmax_alone_counts(parts):
    network, fusion = parts
    outputs = random_like(perfect_outputs(network, unlabelled(scene(0))), 2, 3.0, (48, 64))
    logarithms = {**outputs, "semantic": outputs["semantic"].log_softmax(0)}
    for size in ((48, 64), (61, 83)):
        first, second = (fusion(each, CATEGORIES, size=size) for each in (outputs, logarithms))
        assert torch.equal(first.semantic_map, second.semantic_map)
        assert torch.equal(first.panoptic_map.segment_ids, second.panoptic_map.segment_ids)
        for one, other in zip(first.panoptic_map.segments, second.panoptic_map.segments, strict=True):
            assert (one.category_id, one.area) == (other.category_id, other.area)
            assert one.score == pytest.approx(other.score)


@pytest.mark.parametrize("size", [(37, 101), (120, 90)])
def test_the_result_has_the_size_that_is_asked_for(parts, size):
    network, fusion = parts
    outputs = perfect_outputs(network, scene(0, (64, 81)))
    check_result(fusion(outputs, CATEGORIES, size=size), size)


def test_a_missing_output_is_named(parts):
    with pytest.raises(KeyError, match=r"expected an output '\w+', got \[\]; add its head to the network"):
        parts[1]({}, CATEGORIES)
