"""Small networks composed from `conf/`, and batches of drawn scenes for them."""

import torch
from torch import Tensor

from panoptic.configuration import config_folder, load_config, resolved
from panoptic.data.loading import Collate, Encoders, LoadedSample
from panoptic.data.scenes import Scenes
from panoptic.data.transforms import mean_colour
from panoptic.models.build import build_network
from panoptic.structures import VOID, Batch, Features, PanopticMap, Sample, Segment

SMALL = ["backbone.name=test_resnet", "decoder.filters=16", "keypoints.radius=6.0"]
SCENES = Scenes(split="train", length=30, size=(48, 64), difficulty="hard")
CATEGORIES = SCENES.categories


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
    return Sample(sample.image, sample.image_id, sample.file_name, panoptic_map, None, sample.size)


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
