"""The losses of Mask R-CNN: what they sample, and what they do with crowds, empty images and padding."""

import math
from dataclasses import replace

import pytest
import torch
from mask_rcnn_inputs import (
    CATEGORIES,
    FILTERS,
    PADDED,
    SIZES,
    SMALL,
    TARGETS,
    image_of,
    losses_of,
    make_features,
    make_head,
    make_targets,
)
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from panoptic.models.heads.mask_rcnn import MaskRCNNHead
from panoptic.models.heads.region_proposals import STRIDES
from panoptic.models.heads.regions import sample_regions
from panoptic.structures import Features


def test_there_are_five_finite_losses():
    losses = losses_of(make_head(), make_features(), TARGETS)
    assert list(losses) == ["rpn_objectness", "rpn_box", "class", "box", "mask"]
    for loss in losses.values():
        assert loss.shape == ()
        assert loss.isfinite()
        assert loss > 0


def test_the_same_batch_gives_the_same_losses_to_the_bit():
    head, features = make_head(), make_features()
    first = losses_of(head, features, TARGETS)
    torch.manual_seed(123)
    again = losses_of(head.eval(), features, TARGETS)
    assert {term: loss.item() for term, loss in first.items()} == {term: loss.item() for term, loss in again.items()}


def test_the_seed_of_a_sample_decides_what_is_sampled():
    head, features = make_head(), make_features()
    others = [replace(target, seed=target.seed ^ 8) for target in TARGETS]
    first, second = (losses_of(head, features, targets) for targets in (TARGETS, others))
    assert first["rpn_objectness"] != second["rpn_objectness"]
    assert first["class"] != second["class"]


def test_losses_of_a_batch_are_the_mean_of_its_images():
    head, features = make_head(), make_features()
    together = losses_of(head, features, TARGETS)
    alone = [losses_of(head, image_of(features, index), [target]) for index, target in enumerate(TARGETS)]
    for term, loss in together.items():
        torch.testing.assert_close(loss, torch.stack([one[term] for one in alone]).mean(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size", [(70, 100), (33, 64), (96, 128)])
def test_neither_anchors_nor_proposals_see_padding(size):
    """The same image in a larger batch, whose padding is full of certain objects."""
    head = make_head(rpn_convolution=False)
    small = make_features([size], padded=(96, 128))
    levels = {}
    for name, level in small.levels.items():
        stride = STRIDES[int(name[1]) - 2]
        rows, columns = (math.ceil(side / stride) for side in size)
        large = torch.full((1, FILTERS, *(math.ceil(side / stride) for side in (160, 192))), 1e3)
        large[..., :rows, :columns] = level[..., :rows, :columns]
        levels[name] = large
    target = make_targets([[10, 12, 40, 30], [2, 3, 9, 25]])
    found = []
    for features in (small, Features(levels, [size], (160, 192))):
        output = head(features, {})
        predicted = head.rpn.of_image(output.objectness, output.box_deltas, 0, size)
        losses = head.rpn.losses(predicted, target, torch.Generator().manual_seed(0))
        found.append((*losses, head.rpn.proposals(predicted, head.rpn.for_detections)))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_anchors_are_torchvisions_where_strides_divide_the_size():
    head = make_head()
    output = head(make_features([(128, 192)], padded=(128, 192)), {})
    ours = head.rpn.of_image(output.objectness, output.box_deltas, 0, (128, 192)).anchors
    generator = AnchorGenerator(tuple((size,) for size in SMALL["anchor_sizes"]), ((0.5, 1.0, 2.0),) * 5)
    theirs = generator(ImageList(torch.zeros(1, 3, 128, 192), [(128, 192)]), output.objectness)[0]
    assert torch.equal(ours, theirs)


def test_anchors_sit_at_multiples_of_the_stride_for_any_size():
    head = make_head()
    output = head(make_features([(70, 100)]), {})
    anchors = head.rpn.of_image(output.objectness, output.box_deltas, 0, (70, 100)).anchors
    centres = [
        [column * stride, row * stride]
        for stride in STRIDES
        for row in range(math.ceil(70 / stride))
        for column in range(math.ceil(100 / stride))
        for _ in range(3)
    ]
    assert ((anchors[:, :2] + anchors[:, 2:]) / 2).tolist() == centres


def test_the_proposals_of_losses_and_detections_are_counted_apart():
    head = make_head(num_proposals=7, num_training_proposals=11)
    output = head(make_features(), {})
    predicted = head.rpn.of_image(output.objectness, output.box_deltas, 1, SIZES[1])
    for mode in (True, False):
        head.train(mode)
        assert len(head.rpn.proposals(predicted, head.rpn.for_detections)) == 7
        assert len(head.rpn.proposals(predicted, head.rpn.for_losses)) == 11


def objectness_gradient(head, targets):
    """(anchors (T, 4), gradient (T,) of the objectness loss) of the first image."""
    features = make_features(SIZES[:1])
    output = head(features, {})
    predicted = head.rpn.of_image(output.objectness, output.box_deltas, 0, SIZES[0])
    loss, _ = head.rpn.losses(predicted, targets, torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(loss, predicted.objectness)
    return predicted.anchors, gradient


def test_no_anchor_on_a_crowd_carries_loss():
    head = make_head(num_sampled_anchors=100_000)
    instance, crowd = [10, 12, 40, 50], [50, 0, 100, 70]
    anchors, without = objectness_gradient(head, make_targets([instance]))
    _, with_crowd = objectness_gradient(head, make_targets([instance], crowds=[crowd]))
    width = (torch.minimum(anchors[:, 2], torch.tensor(100.0)) - anchors[:, 0].clamp(min=50)).clamp(min=0)
    height = (anchors[:, 3].clamp(max=70) - anchors[:, 1].clamp(min=0)).clamp(min=0)
    sides = anchors[:, 2:] - anchors[:, :2]
    on_crowd = width * height >= 0.5 * sides.prod(1)
    assert (without[on_crowd] != 0).any()
    assert (with_crowd[on_crowd] == 0).all()
    assert torch.equal(with_crowd[~on_crowd] != 0, without[~on_crowd] != 0)


def test_no_region_on_a_crowd_is_drawn_but_instances_are():
    head = make_head(num_sampled_regions=1000)
    proposals = torch.tensor([[52.0, 2, 80, 40], [0, 0, 20, 20], [55, 5, 90, 66], [10, 12, 40, 48]])
    target = make_targets([[10, 12, 40, 50], [60, 10, 70, 30]], [3, 1], crowds=[[50, 0, 100, 70]])
    channels = torch.tensor([head.channel_of[category_id] for category_id in (3, 1)])
    regions = sample_regions(head.roi_heads, proposals, target, channels, torch.Generator().manual_seed(0))
    assert regions.boxes.tolist() == [[10, 12, 40, 48], [10, 12, 40, 50], [60, 10, 70, 30], [0, 0, 20, 20]]
    assert regions.channels.tolist() == [2, 2, 1, 0]  # dog is the second thing, cat the first
    assert regions.instances.tolist() == [0, 0, 1]
    assert regions.box_deltas[1:].eq(0).all()


def gradients_of(head, features, targets):
    losses = losses_of(head, features, targets)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, f"{name} is cut off from the graph, which distributed training forbids"
        assert parameter.grad.isfinite().all(), name
    return losses


def test_images_without_instances_train_every_parameter():
    losses = gradients_of(make_head(), make_features(), [make_targets([]) for _ in SIZES])
    assert losses["rpn_box"] == losses["box"] == losses["mask"] == 0
    assert losses["rpn_objectness"] > 0
    assert losses["class"] > 0


def test_an_image_that_is_one_crowd_costs_nothing():
    everywhere = [-1000, -1000, 1000, 1000]
    losses = gradients_of(make_head(), make_features(), [make_targets([], crowds=[everywhere]) for _ in SIZES])
    assert all(loss == 0 for loss in losses.values())


def test_an_empty_image_beside_another_costs_half():
    head = make_head()
    features = make_features(SIZES[:2])
    alone = losses_of(head, image_of(features, 0), TARGETS[:1])
    beside = losses_of(head, features, [TARGETS[0], make_targets([])])
    for term in ("rpn_box", "box", "mask"):
        torch.testing.assert_close(beside[term], alone[term] / 2)


def test_a_thousand_instances_train():
    corners = [(3 * (number % 40), 3 * (number // 40)) for number in range(1000)]
    target = make_targets([[x, y, x + 5, y + 6] for x, y in corners])
    gradients_of(make_head(), make_features(SIZES[1:2]), [target])


def test_the_convolution_may_be_done_before():
    whole, split = make_head(), make_head(rpn_convolution=False)
    shared = {name: value for name, value in whole.state_dict().items() if "rpn.head.conv" not in name}
    split.load_state_dict(shared)
    features = make_features()
    convolved = {f"r{n}": whole.rpn.head.conv(features.levels[f"p{n}"]) for n in range(2, 7)}
    before = Features(features.levels | convolved, features.image_sizes, features.padded_size)
    torch.testing.assert_close(losses_of(split, before, TARGETS), losses_of(whole, features, TARGETS))


def test_under_mixed_precision_losses_and_boxes_are_in_full():
    head, features = make_head(score_threshold=0.2), make_features()
    full = losses_of(head, features, TARGETS)
    halves = Features({name: level.bfloat16() for name, level in features.levels.items()}, features.image_sizes, PADDED)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = head(halves, {})
        losses = head.losses(output, halves, TARGETS)
        found = output.detections
    assert output.objectness[0].dtype == torch.bfloat16
    for term, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, full[term], rtol=0.1, atol=0.02)
    sum(losses.values()).backward()
    for one in found:
        assert one.boxes.dtype == one.scores.dtype == one.masks.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"r2": None}, {"rpn_convolution": False}, r"p2, p3, p4, p5, r2, .* without \['r2'\]; choose decoder=fpn"),
        ({"p6": None}, {}, r"expected levels p2, p3, p4, p5, p6, got .* without \['p6'\]"),
        ({"p3": 5}, {}, "expected one number of channels in all levels, got .*'p3': 5"),
        ({}, {"instances_from": "boxes"}, "expected instances_from to be one of own, panoptic, got 'boxes'"),
        ({}, {"anchor_sizes": (8, 16)}, r"expected 5 anchor sizes, one per level p2 to p6, got \[8, 16\]"),
    ],
)
def test_what_does_not_fit_is_refused(change, options, message):
    channels = {f"{letter}{number}": FILTERS for letter in "pr" for number in range(2, 7)} | change
    channels = {level: filters for level, filters in channels.items() if filters is not None}
    with pytest.raises(ValueError, match=message):
        MaskRCNNHead(channels, CATEGORIES, **{**SMALL, **options})


def test_categories_without_things_are_refused():
    channels = {f"p{number}": FILTERS for number in range(2, 7)}
    with pytest.raises(ValueError, match="expected at least one thing among the 1 categories, got stuff alone"):
        MaskRCNNHead(channels, CATEGORIES[:1], **SMALL)
