"""A data set of noise and a data module over it, to check loaders without files."""

from functools import partial

import torch

from panoptic.data.datamodule import PanopticDataModule
from panoptic.data.transforms import EvalTransform, TrainTransform
from panoptic.structures import Category, ImageStatistics, PanopticMap, Sample, Segment, SizeRule

CATEGORIES = [Category(0, "car", True), Category(1, "road", False)]

ANY_SIZE = SizeRule()


class Noise:
    """Images of noise and of unequal sizes; the odd ones have no thing."""

    def __init__(self, count, categories=CATEGORIES):
        self.count = count
        self.categories = list(categories)
        self.image_statistics = ImageStatistics(mean=(0.2, 0.4, 0.6))

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        size = (8 + index % 3, 11 + index % 4)
        image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(index))
        ids = torch.full(size, 7)
        segments = [Segment(7, 1)]
        if index % 2 == 0:
            ids[2:5, 3:9] = 9
            segments.append(Segment(9, 0))
        return Sample(image, index, f"noise {index}", PanopticMap(ids, segments), None, size)


def encode_ids(sample, offset):
    """A stand-in for a head's encoder: what the network sees, and a number that says how it was configured."""
    return {"ids": sample.panoptic_map.segment_ids + offset, "count": len(sample.panoptic_map.segments)}


def datamodule(train=None, val=None, *, size_rule=ANY_SIZE, encoders=None, **settings):
    module = PanopticDataModule(
        Noise(23) if train is None else train,
        Noise(7) if val is None else val,
        train_transform=TrainTransform((9, 10), scale=(0.8, 1.25)),
        eval_transform=EvalTransform(),
        **{"batch_size": 6, "num_workers": 0, "seed": 3, **settings},
    )
    module.connect(encoders or {"semantic": partial(encode_ids, offset=0)}, size_rule)
    return module
