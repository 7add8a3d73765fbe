"""The spatial ranking module: its convolutions, its loss on ground truth, and its scores of detections."""

import copy
from dataclasses import dataclass
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from drawn_occlusion import CATEGORIES, MEETING, tie_on_person
from fusion.top_down_scenes import picked
from oracles.spatial_ranking import equation_2, instance_tensor
from torch import nn

from panoptic.configuration import load_config, resolved
from panoptic.instantiation import complete
from panoptic.models.heads.spatial_ranking import LargeKernelConvolution, PlainConvolution, SpatialRankingHead
from panoptic.structures import Category, Detections, Features, Instances

SIZE = (5, 4)
FEATURES = Features({}, [SIZE], (32, 32))
CHANNELS = {0: 0, 2: 1, 3: 2}  # of person, tie and dog


def head_of(layers=LargeKernelConvolution, **options):
    torch.manual_seed(0)
    return SpatialRankingHead({}, CATEGORIES, layers=layers, **options)


def loss_of(head, *samples):
    targets = [head.encode(sample) for sample in samples]
    read = Features({}, [sample.size for sample in samples], (32, 32))
    return head.losses(head(read, {"instances": Unread()}), read, targets)["cross_entropy"]


def dog_instead_of_tie(sample):
    """Both masks of one category."""
    instances = sample.instances
    changed = Instances(torch.tensor([0, 0]), instances.masks, instances.boxes, instances.scores, instances.is_crowd)
    return replaced(sample, changed)


def without_instances(sample):
    none = Instances(
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, *sample.size, dtype=torch.bool),
        torch.zeros(0, 4),
        torch.zeros(0),
        torch.zeros(0, dtype=torch.bool),
    )
    return replaced(sample, none)


def replaced(sample, instances):
    changed = copy.copy(sample)
    changed.instances = instances
    return changed


class Unread:
    """The output of an instance head that must not be asked."""

    def image(self, index, image_size):
        raise AssertionError("detections were computed, although nobody asked for them")


@dataclass
class Given:
    """The output of an instance head."""

    detections: list

    def image(self, index, image_size):
        return self.detections[index]


def detections_of(sample, scores=(0.9, 0.8)):
    """The instances of a sample as a network would detect them, boxes and masks exact."""
    instances = sample.instances
    boxes = instances.boxes.long().tolist()
    return Detections(
        category_ids=instances.category_ids,
        boxes=instances.boxes,
        scores=torch.tensor(scores),
        masks=[mask[y1:y2, x1:x2].float() for mask, (x1, y1, x2, y2) in zip(instances.masks, boxes, strict=True)],
        image_size=sample.size,
    )


def drawn(sample):
    """The tensor of Figure 4 of a sample's instances."""
    channels = [CHANNELS[category_id] for category_id in sample.instances.category_ids.tolist()]
    return instance_tensor(sample.instances.masks.int().tolist(), channels, 3)


@pytest.mark.parametrize("kernel_size", [3, 7])
def test_a_large_kernel_without_biases_is_the_sum_of_two_products_of_kernels(kernel_size):
    torch.manual_seed(0)
    layers = LargeKernelConvolution(3, kernel_size=kernel_size).double()
    for part in layers.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.zeros_(part.bias)
    (row, then_column), (column, then_row) = layers.row_first, layers.column_first
    kernel = torch.einsum("omy,mix->oiyx", then_column.weight[..., 0], row.weight[:, :, 0])
    kernel = kernel + torch.einsum("omx,miy->oiyx", then_row.weight[:, :, 0], column.weight[..., 0])
    class_masks = (torch.rand(2, 3, 11, 13, generator=torch.Generator().manual_seed(1)) < 0.5).double()
    expected = F.conv2d(class_masks, kernel, padding=kernel_size // 2)
    torch.testing.assert_close(layers(class_masks), expected)


@pytest.mark.parametrize(
    ("layers", "parameters"),
    [
        (partial(PlainConvolution, kernel_size=1), 80 * 80 + 80),
        (partial(PlainConvolution, kernel_size=3), 80 * 80 * 9 + 80),
        (LargeKernelConvolution, 4 * (80 * 80 * 7 + 80)),
    ],
)
def test_convolutions_have_the_parameters_of_table_5_and_keep_the_size(layers, parameters):
    with torch.device("meta"):
        module = layers(80)
        assert sum(parameter.numel() for parameter in module.parameters()) == parameters
        assert module(torch.zeros(1, 80, 37, 53)).shape == (1, 80, 37, 53)


@pytest.mark.parametrize("layers", [LargeKernelConvolution, partial(PlainConvolution, kernel_size=1)])
def test_the_loss_equals_equation_2_on_the_tensor_of_figure_4(layers):
    head, sample = head_of(layers), tie_on_person()
    tensor = drawn(sample)
    scores = head.layers(torch.tensor(tensor, dtype=torch.float32)[None])[0]
    things = {1: 0, 3: 1}  # segment ids of person and tie to their channels
    labels = [[things.get(segment_id) for segment_id in row] for row in sample.panoptic_map.segment_ids.tolist()]
    expected = equation_2(scores.tolist(), tensor, labels)
    assert expected > 0
    assert loss_of(head, sample).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("change", [dog_instead_of_tie, without_instances])
def test_without_conflict_between_classes_the_loss_is_zero_and_every_parameter_has_a_gradient_of_zero(change):
    head = head_of()
    loss = loss_of(head, change(tie_on_person()))
    loss.backward()
    assert loss.item() == 0
    for parameter in head.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_instances_of_the_panoptic_map_teach_nothing():
    assert loss_of(head_of(instances_from="panoptic"), tie_on_person()) == 0


def test_every_image_counts_the_same():
    head, sample = head_of(), tie_on_person()
    alone = loss_of(head, sample)
    torch.testing.assert_close(loss_of(head, sample, without_instances(sample), sample), 2 / 3 * alone)


def test_every_parameter_is_trained():
    head = head_of()
    loss_of(head, tie_on_person()).backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in head.parameters())


def test_training_puts_the_tie_on_top_of_the_person():
    """Figure 7: where both are, the probability of the tie is the higher one after training."""
    head, sample = head_of(), tie_on_person()
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    for _ in range(30):
        optimizer.zero_grad()
        loss_of(head, sample).backward()
        optimizer.step()
    (logits,) = images_of(head, detections_of(sample))
    probabilities = logits.softmax(0)
    for y, x in MEETING:
        assert probabilities[CHANNELS[2], y, x] > 0.9 > 0.1 > probabilities[CHANNELS[0], y, x]


def images_of(head, *detections):
    read = Features({}, [found.image_size for found in detections], (32, 32))
    with torch.no_grad():
        output = head(read, {"instances": Given(list(detections))})
        return [output.image(index, found.image_size) for index, found in enumerate(detections)]


def test_scores_of_exact_detections_are_those_of_the_tensor_of_figure_4():
    head, sample = head_of(), tie_on_person()
    (logits,) = images_of(head, detections_of(sample))
    expected = head.layers(torch.tensor(drawn(sample), dtype=torch.float32)[None])[0]
    assert logits.shape == (3, *SIZE)
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize(("threshold", "is_read"), [(0.79, True), (0.8, True), (0.81, False)])
def test_detections_are_read_from_the_threshold_on(threshold, is_read):
    sample = tie_on_person()
    detections = detections_of(sample, scores=(1.0, 0.8))
    (logits,) = images_of(head_of(score_threshold=threshold), detections)
    (expected,) = images_of(head_of(), detections if is_read else picked(detections, [0]))
    torch.testing.assert_close(logits, expected)


def test_without_detections_there_are_scores_of_an_empty_tensor():
    head = head_of()
    (logits,) = images_of(head, picked(detections_of(tie_on_person()), []))
    torch.testing.assert_close(logits, head.layers(torch.zeros(1, 3, *SIZE))[0])


def test_scores_that_are_not_finite_are_refused():
    head = head_of()
    nn.init.constant_(head.layers.row_first[0].weight, float("nan"))
    with pytest.raises(ValueError, match="expected finite outputs of every head, got nan or infinity"):
        images_of(head, detections_of(tie_on_person()))


def test_a_perfect_output_has_the_thing_that_is_seen_and_no_preference_elsewhere():
    head, sample = head_of(), tie_on_person()
    logits = head.as_outputs([head.encode(sample)], FEATURES).image(0, SIZE)
    assert logits.shape == (3, *SIZE)
    for y, x in torch.ones(SIZE).nonzero().tolist():
        seen = {1: 0, 3: 1}.get(int(sample.panoptic_map.segment_ids[y, x]))
        if seen is None:
            assert len(logits[:, y, x].unique()) == 1
        else:
            assert logits[:, y, x].softmax(0)[seen] > 0.999


def test_stuff_cannot_be_ranked():
    with pytest.raises(ValueError, match="expected things to rank, got 1 categories of stuff; leave this head out"):
        SpatialRankingHead({}, [Category(0, "sky", False)], layers=LargeKernelConvolution)


@pytest.mark.parametrize(
    ("choice", "layers", "kernel_size"),
    [
        ("spatial_ranking", LargeKernelConvolution, None),
        ("spatial_ranking_3x3", PlainConvolution, (3, 3)),
        ("spatial_ranking_1x1", PlainConvolution, (1, 1)),
    ],
)
def test_the_rows_of_table_5_are_chosen_by_name(choice, layers, kernel_size):
    node = resolved(load_config("train", ["heads=semantic", f"head@heads.semantic={choice}"]))["heads"]["semantic"]
    assert node["instances_from"] == "own"
    head = complete("heads.ranking", node, {}, CATEGORIES)
    assert type(head.layers) is layers
    if kernel_size is not None:
        assert head.layers.kernel_size == kernel_size
