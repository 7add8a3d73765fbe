"""Small networks composed from `conf/`, and batches of drawn scenes for them."""

import torch
from torch import Tensor

from panoptic.configuration import config_folder, load_config, resolved
from panoptic.data.loading import Collate, Encoders, LoadedSample, map_tensors
from panoptic.data.masks import mask_boxes
from panoptic.data.scenes import Scenes
from panoptic.data.transforms import mean_colour
from panoptic.models.build import build_network
from panoptic.structures import VOID, Batch, Features, Instances, PanopticMap, Sample, Segment

SMALL = ["backbone.name=test_resnet", "decoder.filters=16", "keypoints.radius=6.0"]
SCENES = Scenes(split="train", length=30, size=(48, 64), difficulty="hard")
CATEGORIES = SCENES.categories


def pyramid(decoder):
    """A feature pyramid, and a semantic head that reads it."""
    return [f"decoder={decoder}", "backbone.output_stride=32", "head@heads.semantic=semantic_two_conv"]


def small_mask_rcnn(name):
    """What makes a Mask R-CNN quick on small images."""
    options = {
        "anchor_sizes": "[8,16,32,64,128]",
        "num_proposals": 50,
        "num_training_proposals": 60,
        "num_sampled_regions": 32,
        "box_filters": 32,
        "mask_filters": 16,
    }
    return [f"heads.{name}.{option}={value}" for option, value in options.items()]


RANKING = [*pyramid("fpn"), "+head@heads.instances=mask_rcnn", *small_mask_rcnn("instances")]
PARTS = {
    "mask_rcnn": [*pyramid("fpn"), *small_mask_rcnn("tested")],
    "semantic_asp_rp": pyramid("fpn"),
    "semantic_asp_rp_small": pyramid("fpn"),
    "semantic_stuff_branch": pyramid("fpn_rpn_features"),
    "semantic_two_conv": pyramid("fpn"),
    "semantic_two_conv_small": pyramid("fpn"),
    "spatial_ranking": RANKING,
    "spatial_ranking_1x1": RANKING,
    "spatial_ranking_3x3": RANKING,
}
"""What heads of `conf/head`, as `heads.tested`, need beside them instead of the default decoder and semantic head."""


def choices(group):
    """The names of the yaml files of a group."""
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


def compose(*overrides):
    return resolved(load_config("train", [*SMALL, *overrides]))


def network_of(config, seed=0):
    """The same random weights for the same seed."""
    torch.manual_seed(seed)
    return build_network(config, CATEGORIES, SCENES.image_statistics)


def scene(index, size=(48, 64)):
    return Scenes(split="train", length=index + 1, size=size, difficulty="hard")[index]


def without_things(sample):
    """The same scene with its things unlabelled."""
    stuff = [segment for segment in sample.panoptic_map.segments if not CATEGORIES[segment.category_id].is_thing]
    ids = sample.panoptic_map.segment_ids
    kept = torch.isin(ids, torch.tensor([segment.id for segment in stuff]))
    return with_map(sample, PanopticMap(torch.where(kept, ids, VOID), stuff))


def unlabelled(sample):
    return with_map(sample, PanopticMap(torch.full(sample.size, VOID), []))


def with_map(sample, panoptic_map):
    """The same image with another map, and its things as instances."""
    instances = things_of(panoptic_map)
    return Sample(sample.image, sample.image_id, sample.file_name, panoptic_map, instances, sample.size)


def things_of(panoptic_map) -> Instances:
    things = [segment for segment in panoptic_map.segments if CATEGORIES[segment.category_id].is_thing]
    ids = torch.tensor([segment.id for segment in things], dtype=torch.int64)
    masks = panoptic_map.segment_ids == ids[:, None, None]
    return Instances(
        category_ids=torch.tensor([segment.category_id for segment in things], dtype=torch.int64),
        masks=masks,
        boxes=mask_boxes(masks),
        scores=torch.ones(len(things)),
        is_crowd=torch.tensor([segment.is_crowd for segment in things], dtype=torch.bool),
    )


def as_tensors(value):
    """The tensors of a dataclass, or of a tensor itself, in a list."""
    found: list[Tensor] = []
    map_tensors(value, lambda tensor: found.append(tensor) or tensor, {})
    return found


def batch_of(network, samples) -> Batch:
    encode = Encoders.of(network.encoders)
    loaded = [LoadedSample(sample, encode(sample), sample.panoptic_map) for sample in samples]
    return Collate(network.size_rule, mean_colour(SCENES.image_statistics), keep_truths=True)(loaded)


def perfect_outputs(network, sample) -> dict[str, Tensor]:
    """What fusion reads of one image when every head is perfect."""
    features = Features({}, [sample.size], network.size_rule.pad(*sample.size))
    perfect = {name: head.as_outputs([head.encode(sample)], features) for name, head in network.heads.items()}
    return {name: output.image(0, sample.size) for name, output in perfect.items()}


def separate_things(seed) -> PanopticMap:
    """Twelve rectangles and ellipses, at least 14 pixels apart, on two stripes of stuff."""
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)

    def draw_int(low, high):
        return int(torch.randint(low, high + 1, (), generator=generator))

    ids = torch.full((96, 160), 5)
    ids[41:] = 9
    segments = [Segment(5, 0), Segment(9, 1)]
    for number in range(12):
        height, width = draw_int(9, 18), draw_int(13, 26)
        top, left = 32 * (number // 4) + 7 + draw_int(0, 18 - height), 40 * (number % 4) + 7 + draw_int(0, 26 - width)
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        shape = (y**2 + x**2 <= 1.1) | bool(draw_int(0, 1))
        ids[top : top + height, left : left + width][shape] = 20 + number
        segments.append(Segment(20 + number, draw_int(4, len(CATEGORIES) - 1)))
    return PanopticMap(ids, segments)
