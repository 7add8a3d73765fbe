"""Small Mask R-CNN heads with random features and drawn instances."""

import math

import torch

from panoptic.models.heads.mask_rcnn import MaskRCNNHead
from panoptic.models.heads.region_proposals import STRIDES
from panoptic.structures import Category, Features
from panoptic.targets.instances import InstanceTargets

CATEGORIES = (
    Category(0, "sky", False),
    Category(1, "cat", True),
    Category(2, "road", False),
    Category(3, "dog", True),
)
FILTERS = 6
PADDED = (96, 128)
SIZES = [(70, 100), (96, 128), (50, 111)]
SMALL = {
    "anchor_sizes": (8, 16, 32, 64, 128),
    "num_proposals": 50,
    "num_training_proposals": 80,
    "num_sampled_anchors": 32,
    "num_sampled_regions": 24,
    "box_filters": 16,
    "mask_filters": 8,
    "canonical_size": 56.0,
}


def make_head(seed=0, **options):
    torch.manual_seed(seed)
    channels = {f"{letter}{number}": FILTERS for letter in "pr" for number in range(2, 7)}
    return MaskRCNNHead(channels, CATEGORIES, **{**SMALL, **options})


def make_features(sizes=SIZES, seed=0, padded=PADDED):
    generator = torch.Generator().manual_seed(seed)
    levels = {}
    for letter in "pr":
        for number, stride in enumerate(STRIDES, start=2):
            cells = [math.ceil(side / stride) for side in padded]
            levels[f"{letter}{number}"] = torch.randn(len(sizes), FILTERS, *cells, generator=generator)
    return Features(levels, list(sizes), padded)


def make_targets(boxes, category_ids=None, crowds=(), seed=5):
    """Instances that fill their boxes but for the pixel at the top left."""
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1).long().tolist()
    pixels = torch.ones(sum(areas), dtype=torch.bool)
    for start in torch.tensor([0, *areas])[:-1].cumsum(0).tolist() if areas else []:
        pixels[start] = False
    ids = category_ids if category_ids is not None else [1 + 2 * (row % 2) for row in range(len(boxes))]
    crowd_boxes = torch.tensor(crowds, dtype=torch.float32).reshape(-1, 4)
    return InstanceTargets(boxes, torch.tensor(ids, dtype=torch.int64), pixels, crowd_boxes, seed)


TARGETS = [
    make_targets([[10, 12, 40, 50], [60, 5, 75, 30], [20, 30, 90, 68]], seed=1),
    make_targets([[0, 0, 128, 96], [100, 80, 110, 96]], seed=2),
    make_targets([[30, 10, 36, 17]], seed=2**64 - 1),
]


def losses_of(head, features, targets):
    return head.losses(head(features, {}), features, targets)


def image_of(features, index):
    levels = {name: level[index : index + 1] for name, level in features.levels.items()}
    return Features(levels, [features.image_sizes[index]], features.padded_size)
