"""DeepLabv3 as it is chosen by name: its size, its loss, and labels at the size of the logits (Table 8)."""

import pytest
import torch
from drawn import draw
from torch.nn import functional as F

from panoptic.configuration import load_config, resolved
from panoptic.data.scenes import Scenes
from panoptic.models.build import build_network
from panoptic.models.heads.base import DenseOutput
from panoptic.models.heads.semantic import SemanticHead, at_cells
from panoptic.structures import IGNORE_INDEX, Category, Features, ImageStatistics
from panoptic.targets.semantic import SemanticTargets

pytestmark = pytest.mark.slow

VOC = [Category(number, f"name {number}", is_thing=number > 0) for number in range(21)]
DEEPLABV3 = ["decoder=deeplabv3", "heads=deeplabv3", "fusion=semantic"]
SCENES = Scenes(split="train", length=1, size=(48, 64), difficulty="easy")


def network_of(*choices, categories=VOC):
    return build_network(resolved(load_config("train", choices)), categories, ImageStatistics())


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("backbone", "trunk"), [("resnet50_multi_grid", 23_508_032), ("resnet101_multi_grid", 42_500_160)]
)
@torch.no_grad()
def test_the_papers_network_has_the_parameters_of_its_parts(backbone, trunk):
    """Those of a ResNet without its classifier as torchvision counts them; ASPP; 257 for each class."""
    with torch.device("meta"):
        network = network_of(f"backbone={backbone}", *DEEPLABV3)
        outputs, _ = network.eval()(torch.zeros(1, 3, 513, 513, dtype=torch.uint8), [(513, 513)])
    (path,) = network.paths
    assert num_parameters(path.backbone) == trunk
    aspp = 2 * 2048 * 256 + 3 * 2048 * 256 * 9 + 5 * 512 + 5 * 256 * 256 + 512
    assert num_parameters(path.decoder) == aspp
    assert num_parameters(network.heads["semantic"]) == 257 * 21
    assert outputs["semantic"].values.shape == (1, 21, 33, 33)


def test_a_cascade_has_one_1x1_behind_its_last_block():
    choices = ["decoder=none", "decoder.aspp=false", "backbone=resnet50_multi_grid", "backbone.num_blocks=7"]
    with torch.device("meta"):
        network = network_of("heads=deeplabv3", "fusion=semantic", *choices)
    assert num_parameters(network.paths[0].decoder) == 0
    assert num_parameters(network.heads["semantic"]) == 2049 * 21


def test_a_batch_of_one_trains_every_parameter():
    torch.manual_seed(0)
    small = ["backbone=resnet_small_multi_grid", "decoder=deeplabv3_small", "heads=deeplabv3", "fusion=semantic"]
    network = network_of(*small, categories=SCENES.categories).train()
    sample = SCENES[0]
    images = F.pad(sample.image, (0, 1, 0, 1))[None]  # 49 x 65
    outputs, features = network(images, [sample.size])
    head = network.heads["semantic"]
    losses = head.losses(outputs["semantic"], features["semantic"], [head.encode(sample)])
    losses["cross_entropy"].backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_the_loss_is_plain_cross_entropy():
    node = resolved(load_config("train", ["heads=deeplabv3"]))["heads"]["semantic"]
    assert {key: node[key] for key in ("deep_head", "hard_pixel_fraction", "small_instance_weight")} == {
        "deep_head": False,
        "hard_pixel_fraction": 1.0,
        "small_instance_weight": 1.0,
    }
    head, features, targets, values = head_and_targets(upsample_logits=True)
    found = head.losses(DenseOutput(values, features.padded_size), features, targets)["cross_entropy"]
    logits = F.interpolate(values, size=(9, 13), mode="bilinear", align_corners=True)
    labels = torch.stack([F.pad(target.semantic_map, (0, 0, 0, 1), value=IGNORE_INDEX) for target in targets]).long()
    each = [F.cross_entropy(a[None], b[None], ignore_index=IGNORE_INDEX) for a, b in zip(logits, labels, strict=True)]
    torch.testing.assert_close(found, torch.stack(each).mean())


def test_without_upsampling_labels_are_those_of_the_pixels_on_which_cells_lie():
    head, features, targets, values = head_and_targets(upsample_logits=False)
    found = head.losses(DenseOutput(values, features.padded_size), features, targets)["cross_entropy"]
    each = []
    for image, target in zip(values, targets, strict=True):
        losses = []
        for row in range(3):
            for column in range(4):
                inside = 4 * row < 8  # the image has 8 rows, its padding one more
                label = int(target.semantic_map[4 * row, 4 * column]) if inside else IGNORE_INDEX
                if label != IGNORE_INDEX:
                    losses.append(-image[:, row, column].log_softmax(0)[label])
        each.append(torch.stack(losses).mean())
    torch.testing.assert_close(found, torch.stack(each).mean())


def head_and_targets(**options):
    """Two images of 8 x 13 pixels, padded to 9 x 13, and logits of stride 4."""
    torch.manual_seed(0)
    head = SemanticHead(
        {"decoder": 5}, VOC[:3], deep_head=False, hard_pixel_fraction=1.0, small_instance_weight=1.0, **options
    )
    generator = torch.Generator().manual_seed(1)
    targets = []
    for _ in range(2):
        semantic_map = torch.randint(0, 3, (8, 13), dtype=torch.uint8, generator=generator)
        semantic_map[:, 8] = IGNORE_INDEX
        targets.append(SemanticTargets(semantic_map, torch.zeros(8, 13, dtype=torch.bool)))
    features = Features({}, [(8, 13)] * 2, (9, 13))
    return head, features, targets, torch.randn(2, 3, 3, 4, generator=generator)


def test_small_instances_are_taken_at_the_same_pixels():
    head, features, targets, values = head_and_targets(upsample_logits=False)
    head.small_instance_weight = 7.0
    before = head.losses(DenseOutput(values, features.padded_size), features, targets)["cross_entropy"]
    targets[0].small_instances[1:4] = True  # between the cells
    between = head.losses(DenseOutput(values, features.padded_size), features, targets)["cross_entropy"]
    assert torch.equal(before, between)
    targets[0].small_instances[4] = True
    assert head.losses(DenseOutput(values, features.padded_size), features, targets)["cross_entropy"] > before


def test_corner_cells_lie_on_corner_pixels():
    letters = draw("abcde", "fghij", "klmno").segment_ids
    assert at_cells(letters[None], (2, 3))[0].tolist() == [
        [letters[0, 0], letters[0, 2], letters[0, 4]],
        [letters[2, 0], letters[2, 2], letters[2, 4]],
    ]
    assert torch.equal(at_cells(letters[None], (3, 5))[0], letters)
    assert torch.equal(at_cells(letters[None], (1, 1))[0, 0, 0], letters[0, 0])


def test_labels_at_the_size_of_the_logits_are_chosen_by_name():
    small = ["backbone=resnet_small_multi_grid", "decoder=deeplabv3_small", "heads=deeplabv3"]
    assert network_of(*small).heads["semantic"].upsample_logits is True
    assert network_of(*small, "heads.semantic.upsample_logits=false").heads["semantic"].upsample_logits is False
