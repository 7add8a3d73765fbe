"""Mask R-CNN (He et al., 2017) on a feature pyramid, of torchvision's parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor

from panoptic.models.heads.base import Head, Output
from panoptic.models.heads.region_proposals import RegionProposals
from panoptic.models.heads.regions import (
    LEVELS,
    check_finite,
    detect_regions,
    make_roi_heads,
    region_losses,
    sample_regions,
)
from panoptic.structures import Category, Detections, Features, Sample
from panoptic.targets.instances import SOURCES, InstanceTargets, encode_instances


@dataclass(eq=False)
class MaskRCNNOutput:
    """What the RPN made of a batch; what is in its proposals is computed when it is first asked for.

    Args:
        objectness: for each level "p2".."p6", (B, A, h, w) logits of the A anchors at each cell.
        box_deltas: for each level, (B, 4A, h, w).
        detect: this output to what is in each image.
    """

    objectness: list[Tensor]
    box_deltas: list[Tensor]
    detect: Callable[[MaskRCNNOutput], list[Detections]] = field(repr=False)

    @cached_property
    def detections(self) -> list[Detections]:
        """What is in each image; raises ValueError for a network that has diverged."""
        return self.detect(self)

    def image(self, index: int, image_size: tuple[int, int]) -> Detections:
        """What is in image `index`."""
        return self.detections[index]


@dataclass(eq=False)
class GivenDetections:
    """The output of a head that is known beforehand.

    Args:
        detections: what is in each image.
    """

    detections: list[Detections]

    def image(self, index: int, image_size: tuple[int, int]) -> Detections:
        """What is in image `index`."""
        return self.detections[index]


class MaskRCNNHead(Head):
    """Boxes, classes, scores and masks of things; torchvision's `maskrcnn_resnet50_fpn` by default.

    Losses are computed per image and averaged over images. What they sample depends on `InstanceTargets.seed` alone.
    Class channel 0 is background, then come the things in ascending category id.

    Args:
        channels: {level: D}; reads "p2".."p6" of equal D, and "r2".."r6" without `rpn_convolution`.
        categories: of the data set, T of them things.
        instances_from: "own" learns from the data set's masks, which may overlap; "panoptic" from the things of the
            panoptic map (OANet, Table 3).
        rpn_convolution: False leaves out the 3x3 convolution of the RPN and reads "r2".."r6", which the decoder has
            convolved (OANet, Sec. 3.1).
        anchor_sizes: square root of an anchor's area in pixels, for each level.
        aspect_ratios: height over width of the anchors at each cell.
        num_proposals: kept of each level by objectness, and in all after suppression, for detections.
        num_training_proposals: the same for losses.
        num_sampled_anchors: that carry loss, per image; at most half of them positive.
        num_sampled_regions: that carry loss, per image; at most a quarter of them positive.
        box_filters: of the two layers before class and box.
        mask_filters: of the layers before the mask.
        canonical_size: side in pixels of the regions that are cut out of "p4"; half of it is cut out of "p3".
        score_threshold: detections need a higher score.
        nms_threshold: of two detections of a class with a greater intersection over union, the better one stays.
        max_detections: per image.

    Raises:
        ValueError: a level is missing, levels of unequal D, no thing among the categories, or an unknown
            `instances_from`.
    """

    reads_levels = ()
    terms = ("rpn_objectness", "rpn_box", "class", "box", "mask")

    def __init__(
        self,
        channels: Mapping[str, int],
        categories: Sequence[Category],
        *,
        instances_from: str = "own",
        rpn_convolution: bool = True,
        anchor_sizes: Sequence[float] = (32, 64, 128, 256, 512),
        aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        num_proposals: int = 1000,
        num_training_proposals: int = 2000,
        num_sampled_anchors: int = 256,
        num_sampled_regions: int = 512,
        box_filters: int = 1024,
        mask_filters: int = 256,
        canonical_size: float = 224.0,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        if instances_from not in SOURCES:
            raise ValueError(f"expected instances_from to be one of {', '.join(SOURCES)}, got {instances_from!r}")
        things = [category.id for category in categories if category.is_thing]
        if not things:
            raise ValueError(f"expected at least one thing among the {len(categories)} categories, got stuff alone")
        self.categories = tuple(categories)
        self.instances_from = instances_from
        self.rpn_levels = tuple(f"{'p' if rpn_convolution else 'r'}{number}" for number in range(2, 7))
        filters = _equal_channels(channels, (*LEVELS, *self.rpn_levels))
        self.rpn = RegionProposals(
            filters,
            convolution=rpn_convolution,
            anchor_sizes=anchor_sizes,
            aspect_ratios=aspect_ratios,
            num_proposals=num_proposals,
            num_training_proposals=num_training_proposals,
            num_sampled=num_sampled_anchors,
        )
        self.roi_heads = make_roi_heads(
            filters,
            1 + len(things),
            num_sampled=num_sampled_regions,
            box_filters=box_filters,
            mask_filters=mask_filters,
            canonical_size=canonical_size,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_detections=max_detections,
        )
        channel_of = [1 + things.index(category.id) if category.is_thing else 0 for category in categories]
        # Not buffers: a moving average over these would no longer be whole numbers.
        self.thing_ids, self.channel_of = tuple(things), tuple(channel_of)

    @property
    def encode(self) -> Callable[[Sample], InstanceTargets]:
        """Instances and crowds of a sample."""
        return partial(encode_instances, categories=self.categories, instances_from=self.instances_from)

    def forward(self, features: Features, outputs: Mapping[str, Output]) -> MaskRCNNOutput:
        """What the RPN says; detections follow when they are asked for, in training they are not."""
        objectness, box_deltas = self.rpn([features.levels[level] for level in self.rpn_levels])
        return MaskRCNNOutput(objectness, box_deltas, partial(self._detect, features))

    def losses(
        self, output: MaskRCNNOutput, features: Features, targets: Sequence[InstanceTargets]
    ) -> dict[str, Tensor]:
        """The five terms, averaged over images."""
        rpn_losses, regions = [], []
        for index, (target, size) in enumerate(zip(targets, features.image_sizes, strict=True)):
            generator = torch.Generator().manual_seed(target.seed)
            predicted = self.rpn.of_image(output.objectness, output.box_deltas, index, size)
            rpn_losses.append(self.rpn.losses(predicted, target, generator))
            proposals = self.rpn.proposals(predicted, self.rpn.for_losses)
            channels = torch.tensor(self.channel_of, device=target.category_ids.device)[target.category_ids]
            regions.append(sample_regions(self.roi_heads, proposals, target, channels, generator))
        levels = {level: features.levels[level] for level in LEVELS}
        others = region_losses(self.roi_heads, levels, regions, targets, features.image_sizes)
        by_term = zip(*((*first, *second) for first, second in zip(rpn_losses, others, strict=True)), strict=True)
        return {term: torch.stack(losses).mean() for term, losses in zip(self.terms, by_term, strict=True)}

    def as_outputs(self, targets: Sequence[InstanceTargets], features: Features) -> GivenDetections:
        """Every instance with score 1 and a mask of the size of its box, so that pasting it is exact."""
        return GivenDetections(
            [
                Detections(
                    category_ids=target.category_ids,
                    boxes=target.boxes,
                    scores=torch.ones_like(target.boxes[:, 0]),
                    masks=[mask.float() for mask in target.masks],
                    image_size=size,
                )
                for target, size in zip(targets, features.image_sizes, strict=True)
            ]
        )

    def _detect(self, features: Features, output: MaskRCNNOutput) -> list[Detections]:
        """What is in each image of a batch."""
        check_finite([*output.objectness, *output.box_deltas])
        proposals = [
            self.rpn.proposals(
                self.rpn.of_image(output.objectness, output.box_deltas, index, size), self.rpn.for_detections
            )
            for index, size in enumerate(features.image_sizes)
        ]
        levels = {level: features.levels[level] for level in LEVELS}
        found = detect_regions(self.roi_heads, levels, proposals, features.image_sizes)
        thing_ids = torch.tensor(self.thing_ids, device=features.levels["p2"].device)
        return [
            Detections(thing_ids[regions.channels - 1], regions.boxes, regions.scores, regions.masks, size)
            for regions, size in zip(found, features.image_sizes, strict=True)
        ]


def _equal_channels(channels: Mapping[str, int], levels: Sequence[str]) -> int:
    """D of the levels; raises ValueError if one is missing or D differs."""
    missing = sorted(set(levels) - set(channels))
    if missing:
        raise ValueError(
            f"expected levels {', '.join(dict.fromkeys(levels))}, got {', '.join(channels)} without {missing}; choose "
            "decoder=fpn, or decoder=fpn_rpn_features for a head without rpn_convolution"
        )
    found = {level: channels[level] for level in levels}
    if len(set(found.values())) != 1:
        raise ValueError(f"expected one number of channels in all levels, got {found}")
    return next(iter(found.values()))
