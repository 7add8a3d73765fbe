"""Our Mask R-CNN with the weights of torchvision's: the same detections on photographs, the same losses."""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from batch_norms import norms
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.models.detection.roi_heads import paste_masks_in_image

from panoptic.configuration import load_config, resolved
from panoptic.data.images import read_image
from panoptic.models.build import build_network
from panoptic.models.heads.box_sampling import sample_balanced
from panoptic.models.initialization import initialize_from
from panoptic.structures import Batch, Category, ImageStatistics
from panoptic.targets.instances import InstanceTargets

pytestmark = pytest.mark.slow
needs_samples = pytest.mark.skipif("PANOPTIC_SAMPLES" not in os.environ, reason="PANOPTIC_SAMPLES is not set")

CATEGORIES = [Category(number, f"name {number}", is_thing=number not in (0, 3)) for number in range(8)]
THINGS = [category.id for category in CATEGORIES if category.is_thing]
SIZE = (256, 320)
"""Multiples of 64: torchvision divides sizes to get strides, and has anchors on what it pads."""


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """(torchvision's network, ours with its weights); random ones, whose scores and boxes are spread out."""
    torch.manual_seed(0)
    theirs = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=1 + len(THINGS),
        min_size=SIZE[0],
        max_size=SIZE[1],
        image_mean=[0, 0, 0],  # images come normalised, so that both networks see the same to the bit
        image_std=[1, 1, 1],
    )
    for part in norms(theirs):
        part.momentum = 1.0
    spread_out(theirs)
    file = tmp_path_factory.mktemp("weights") / "theirs.pth"
    torch.save(theirs.state_dict(), file)
    choices = ["backbone=resnet50_frozen", "decoder=fpn", "heads=mask_rcnn", "channels_last=false"]
    ours = build_network(resolved(load_config("train", choices)), CATEGORIES, ImageStatistics())
    report = initialize_from(ours, file)
    assert "0 of another shape left as they were []; 0 not in the file []; 0 of the file unused []" in report
    return theirs.eval(), ours.eval()


@torch.no_grad()
def spread_out(network):
    """Statistics of batch norm from a batch, or a random network's values explode; predictions that vary."""
    images = F.interpolate(torch.randn(2, 3, 16, 20), SIZE, mode="bilinear")
    if "PANOPTIC_SAMPLES" in os.environ:
        images = photographs() / 64 - 2  # about normalised
    features = network.backbone(images)
    corners = torch.rand(60, 2) * torch.tensor([240, 180])
    boxes = torch.cat([corners, corners + 10 + 60 * torch.rand(60, 2)], 1)
    regions = network.roi_heads.box_head(network.roi_heads.box_roi_pool(features, [boxes, boxes], [SIZE, SIZE]))
    cells = network.rpn.head.conv(features["0"]).flatten(2).transpose(1, 2)
    for layer, inputs, spread in (
        (network.rpn.head.cls_logits, cells, 2.0),
        (network.rpn.head.bbox_pred, cells, 0.3),
        (network.roi_heads.box_predictor.cls_score, regions, 2.0),
        (network.roi_heads.box_predictor.bbox_pred, regions, 1.0),
    ):
        values = inputs.flatten(0, -2) @ layer.weight.flatten(1).T
        factor = spread / values.std(0).mean()
        layer.weight.mul_(factor)
        layer.bias.copy_(-factor * values.mean(0))


def photographs():
    """(3, 256, 320) uint8 from the middle of each photograph that is large enough."""
    paths = sorted((Path(os.environ["PANOPTIC_SAMPLES"]) / "coco_panoptic" / "val2017").glob("*.jpg"))
    images = [torch.from_numpy(read_image(path)).permute(2, 0, 1) for path in paths]
    height, width = SIZE
    cut = [
        image[:, (image.shape[1] - height) // 2 :, (image.shape[2] - width) // 2 :][:, :height, :width]
        for image in images
        if image.shape[1] >= height and image.shape[2] >= width
    ]
    return torch.stack(cut[:2])


def normalised(network, images):
    return (images - network.mean) / network.std


@needs_samples
@torch.no_grad()
def test_detections_on_photographs_are_torchvisions_box_by_box(networks):
    theirs, ours = networks
    images = photographs()
    outputs, _ = ours(images, [SIZE] * len(images))
    expected = theirs(list(normalised(ours, images)))
    assert sum(len(one["boxes"]) for one in expected) > 100
    assert len(torch.cat([one["labels"] for one in expected]).unique()) >= 3
    for index, one in enumerate(expected):
        found = outputs["instances"].image(index, SIZE)
        torch.testing.assert_close(found.boxes, one["boxes"], rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(found.scores, one["scores"], rtol=1e-4, atol=1e-5)
        assert found.category_ids.tolist() == [THINGS[label - 1] for label in one["labels"].tolist()]
        masks = paste_masks_in_image(found.masks[:, None], found.boxes, SIZE)
        assert ((masks - one["masks"]).abs() < 1e-3).float().mean() > 0.9999  # a box on .5 may round to either pixel
        assert one["masks"].std() > 0.01


class SameDraws:
    """In the place of torchvision's sampler: draws what ours draws for one image."""

    def __init__(self, numbers, generator):
        self.numbers, self.generator = numbers, generator

    def __call__(self, labels):
        (labels,) = labels
        masks = [torch.zeros_like(labels, dtype=torch.uint8) for _ in range(2)]
        for mask, drawn in zip(masks, sample_balanced(labels, self.numbers, self.generator), strict=True):
            mask[drawn] = 1
        return [masks[0]], [masks[1]]


def make_targets(seed):
    """Ellipses of several things."""
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    boxes, pixels = [], []
    for _ in range(5):
        height, width = (int(torch.randint(12, 120, (), generator=generator)) for _ in range(2))
        top = int(torch.randint(SIZE[0] - height, (), generator=generator))
        left = int(torch.randint(SIZE[1] - width, (), generator=generator))
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        boxes.append([left, top, left + width, top + height])
        pixels.append((y**2 + x**2 <= 1).flatten())
    ids = torch.tensor(THINGS)[torch.randint(len(THINGS), (5,), generator=generator)]
    return InstanceTargets(torch.tensor(boxes).float(), ids, torch.cat(pixels), torch.zeros(0, 4), seed)


def their_losses(theirs, image, target, monkeypatch):
    """The losses and the gradient of their sum with respect to the layers of `LAYERS`, of one image."""
    generator = torch.Generator().manual_seed(target.seed)
    for part in (theirs.rpn, theirs.roi_heads):
        numbers = part.fg_bg_sampler
        monkeypatch.setattr(part, "fg_bg_sampler", SameDraws(getattr(numbers, "numbers", numbers), generator))
    labels = torch.tensor([1 + THINGS.index(number) for number in target.category_ids.tolist()])
    wanted = {"boxes": target.boxes, "labels": labels, "masks": target.full_masks(SIZE).byte()}
    losses = theirs([image], [wanted])
    order = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask")
    return [losses[name] for name in order]


def test_losses_and_gradients_are_torchvisions_for_the_same_draws(networks, monkeypatch):
    theirs, ours = networks
    theirs.train()
    for part in norms(theirs):
        part.eval()
    images = torch.randint(256, (2, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    targets = [make_targets(3), make_targets(4)]
    outputs, features = ours(images, [SIZE] * 2)
    losses = ours.losses(outputs, features, Batch(images, [SIZE] * 2, {"instances": targets}, []))
    alone = [
        their_losses(theirs, image, target, monkeypatch)
        for image, target in zip(normalised(ours, images), targets, strict=True)
    ]
    expected = [torch.stack(of_images).mean() for of_images in zip(*alone, strict=True)]
    for (name, loss), theirs_of_name in zip(losses.items(), expected, strict=True):
        assert theirs_of_name > 0
        torch.testing.assert_close(loss, theirs_of_name, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: name + text)
    path = ours.paths[0]
    layers = [
        (path.backbone.body.conv1, theirs.backbone.body.conv1),
        (path.heads["instances"].rpn.head.conv[0][0], theirs.rpn.head.conv[0][0]),
        (path.heads["instances"].roi_heads.box_head.fc7, theirs.roi_heads.box_head.fc7),
        (path.heads["instances"].roi_heads.mask_head[0][0], theirs.roi_heads.mask_head[0][0]),
    ]
    found = torch.autograd.grad(sum(losses.values()), [mine.weight for mine, _ in layers])
    wanted = torch.autograd.grad(sum(expected), [other.weight for _, other in layers])
    for mine, other in zip(found, wanted, strict=True):
        assert (mine - other).norm() < 1e-3 * other.norm()
