"""The semantic head on feature pyramids: its loss, with and without object context, and what fusions read of it."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from drawn import draw

from panoptic.configuration import load_config, resolved
from panoptic.instantiation import complete
from panoptic.models.heads.pyramid_semantic import PyramidSemanticHead
from panoptic.models.heads.semantic_branches import AspRpBranch, StuffBranch, TwoConvBranch
from panoptic.structures import IGNORE_INDEX, Category, Features, Sample

CATEGORIES = (
    Category(0, "person", True),
    Category(1, "sky", False),
    Category(2, "car", True),
    Category(3, "road", False),
    Category(4, "wall", False),
)
STUFF = [1, 3, 4]
THINGS = [0, 2]
PYRAMID = {f"p{number}": 4 for number in range(2, 7)}
SIZES = [(61, 90), (64, 71)]
PADDED = (64, 96)


def head_of(*, object_context=True):
    torch.manual_seed(0)
    return PyramidSemanticHead(
        PYRAMID, CATEGORIES, branch=partial(StuffBranch, filters=32), object_context=object_context
    )


def features():
    generator = torch.Generator().manual_seed(0)
    height, width = PADDED
    levels = {
        f"p{number}": torch.randn(2, 4, height // 2**number, width // 2**number, generator=generator)
        for number in range(2, 6)
    }
    return Features(levels, SIZES, PADDED)


def sample_of(size, *, things):
    """Five stripes of the five categories, one of them void; without `things` theirs are void too."""
    stripes = draw("abcde.", categories=dict(zip("abcde", range(5), strict=True)))
    ids = stripes.segment_ids.repeat_interleave(-(-size[1] // 6), 1).expand(size[0], -1)[:, : size[1]].clone()
    if not things:
        ids[torch.isin(ids, torch.tensor([1, 3]))] = 0
    return Sample(
        torch.zeros(3, *size, dtype=torch.uint8), 1, "drawn.png", type(stripes)(ids, stripes.segments), None, size
    )


def targets_of(head, *, things=True):
    return [head.encode(sample_of(size, things=things)) for size in SIZES]


def test_the_loss_is_the_mean_over_images_of_the_mean_over_labelled_pixels():
    head = head_of()
    read, targets = features(), targets_of(head)
    output = head(read, {})
    full = F.interpolate(output.values, size=PADDED, mode="bilinear", align_corners=False)
    expected = []
    for image, target, (height, width) in zip(full, targets, SIZES, strict=True):
        cropped = image[None, :, :height, :width]
        expected.append(F.cross_entropy(cropped, target.semantic_map[None].long(), ignore_index=IGNORE_INDEX))
    torch.testing.assert_close(head.losses(output, read, targets)["cross_entropy"], torch.stack(expected).mean())


def test_without_object_context_the_loss_is_that_of_stuff_classes_alone():
    head = head_of(object_context=False)
    read, targets = features(), targets_of(head)
    output = head(read, {})
    stuff = F.interpolate(head.branch(read.levels), size=PADDED, mode="bilinear", align_corners=False)
    assert stuff.shape[1] == len(STUFF)
    expected = []
    for image, target, (height, width) in zip(stuff, targets, SIZES, strict=True):
        labels = torch.full((height, width), IGNORE_INDEX)
        for channel, category_id in enumerate(STUFF):
            labels[target.semantic_map == category_id] = channel
        expected.append(F.cross_entropy(image[None, :, :height, :width], labels[None], ignore_index=IGNORE_INDEX))
    torch.testing.assert_close(head.losses(output, read, targets)["cross_entropy"], torch.stack(expected).mean())


def test_without_object_context_pixels_of_things_carry_no_loss_and_with_it_they_do():
    for object_context in (True, False):
        head = head_of(object_context=object_context)
        read = features()
        output = head(read, {})
        losses = [head.losses(output, read, targets_of(head, things=things)) for things in (True, False)]
        same = torch.equal(losses[0]["cross_entropy"], losses[1]["cross_entropy"])
        assert same == (not object_context)


def test_without_object_context_things_are_never_predicted_and_stuff_shares_the_probability():
    head = head_of(object_context=False)
    read = features()
    for index, size in enumerate(SIZES):
        logits = head(read, {}).image(index, size)
        assert logits.shape == (len(CATEGORIES), *size)
        probabilities = logits.softmax(0)
        assert not probabilities[THINGS].any()
        stuff = F.interpolate(head.branch(read.levels), size=PADDED, mode="bilinear", align_corners=False)
        expected = stuff[index, :, : size[0], : size[1]].softmax(0)
        torch.testing.assert_close(probabilities[STUFF], expected)


@pytest.mark.parametrize("object_context", [True, False])
def test_every_parameter_is_trained(object_context):
    head = head_of(object_context=object_context)
    read = features()
    head.losses(head(read, {}), read, targets_of(head))["cross_entropy"].backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in head.parameters())


@pytest.mark.parametrize("object_context", [True, False])
def test_a_perfect_output_says_what_is_there_and_costs_nothing(object_context):
    head = head_of(object_context=object_context)
    read, targets = features(), targets_of(head)
    perfect = head.as_outputs(targets, read)
    assert 0 <= head.losses(perfect, read, targets)["cross_entropy"] < 1e-7
    for index, (target, size) in enumerate(zip(targets, SIZES, strict=True)):
        found, truth = perfect.image(index, size).argmax(0), target.semantic_map
        known = truth != IGNORE_INDEX if object_context else torch.isin(truth, torch.tensor(STUFF))
        assert known.any()
        assert torch.equal(found[known], truth[known].long())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_is_not_predicted_is_finite_in_half_precision(dtype):
    head = head_of(object_context=False).to(dtype)
    read = features()
    read.levels = {level: values.to(dtype) for level, values in read.levels.items()}
    assert head(read, {}).values.isfinite().all()


def test_stuff_alone_needs_stuff():
    things = [Category(0, "person", True), Category(1, "car", True)]
    with pytest.raises(
        ValueError, match="expected stuff categories without object_context, got things alone; set it to"
    ):
        PyramidSemanticHead(PYRAMID, things, branch=StuffBranch, object_context=False)


@pytest.mark.parametrize(
    ("choice", "branch"),
    [
        ("semantic_two_conv", TwoConvBranch),
        ("semantic_asp_rp", AspRpBranch),
        ("semantic_stuff_branch", StuffBranch),
    ],
)
def test_a_branch_is_chosen_by_name(choice, branch):
    node = resolved(load_config("train", ["heads=semantic", f"head@heads.semantic={choice}"]))["heads"]["semantic"]
    with torch.device("meta"):
        head = complete("heads.semantic", node, PYRAMID, CATEGORIES)
    assert type(head.branch) is branch
    assert head.predicted_ids == [0, 1, 2, 3, 4]
    stuff = complete("heads.semantic", {**node, "object_context": False}, PYRAMID, CATEGORIES)
    assert stuff.predicted_ids == STUFF
