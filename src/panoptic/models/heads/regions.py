"""What is in a region: class, box and mask, by torchvision's parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import (
    RoIHeads,
    fastrcnn_loss,
    maskrcnn_inference,
    project_masks_on_boxes,
)
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from panoptic.models.heads.box_sampling import ignore_crowds, sample_balanced
from panoptic.targets.instances import InstanceTargets

LEVELS = ("p2", "p3", "p4", "p5")
"""What regions are cut out of."""

MASK_LAYERS = 4


def make_roi_heads(
    filters: int,
    num_channels: int,
    *,
    num_sampled: int,
    box_filters: int,
    mask_filters: int,
    canonical_size: float,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
) -> RoIHeads:
    """Torchvision's heads with its thresholds for matching; arguments as of `MaskRCNNHead`."""
    roi_pool, mask_pool = (_pool(cells, canonical_size) for cells in (7, 14))
    return RoIHeads(
        roi_pool,
        TwoMLPHead(filters * 7**2, box_filters),
        FastRCNNPredictor(box_filters, num_channels),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=num_sampled,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=score_threshold,
        nms_thresh=nms_threshold,
        detections_per_img=max_detections,
        mask_roi_pool=mask_pool,
        mask_head=MaskRCNNHeads(filters, [mask_filters] * MASK_LAYERS, dilation=1),
        mask_predictor=MaskRCNNPredictor(mask_filters, mask_filters, num_channels),
    )


def _pool(cells: int, canonical_size: float) -> MultiScaleRoIAlign:
    """RoIAlign at the strides that the levels have; left alone, it would guess them from its first batch."""
    pool = MultiScaleRoIAlign(list(LEVELS), cells, sampling_ratio=2)
    pool.scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    pool.map_levels = LevelMapper(2, 5, canonical_scale=canonical_size)
    return pool


def _cut_out(
    pool: MultiScaleRoIAlign, levels: Mapping[str, Tensor], boxes: list[Tensor], image_sizes: list[tuple[int, int]]
) -> Tensor:
    """Features of regions (R, D, cells, cells); RoIAlign wants boxes in the precision of features of fp64."""
    precision = torch.promote_types(boxes[0].dtype, levels["p2"].dtype)
    cells: Tensor = pool(levels, [box.to(precision) for box in boxes], image_sizes)
    return cells


@dataclass(frozen=True, eq=False)
class SampledRegions:
    """The regions of one image that carry loss, positive ones first.

    Args:
        boxes: (R, 4), x1 y1 x2 y2 in pixels.
        channels: (R,) int64, 0 for background.
        box_deltas: (R, 4) from the region to its instance; 0 for background.
        instances: (P,) int64, the row among the targets that each of the P positive regions is matched with.
    """

    boxes: Tensor
    channels: Tensor
    box_deltas: Tensor
    instances: Tensor


@torch.no_grad()
def sample_regions(
    roi_heads: RoIHeads,
    proposals: Tensor,
    targets: InstanceTargets,
    channels: Tensor,
    generator: torch.Generator,
) -> SampledRegions:
    """Regions for the losses of one image, from its proposals and the boxes of its instances.

    Args:
        roi_heads: for its way to match, and how many to draw.
        proposals: (R, 4); those on a crowd are left out, the boxes of instances are not.
        targets: N instances and the crowds.
        channels: (N,) int64, class channel of each instance.
        generator: decides which are drawn.
    """
    boxes = torch.cat([proposals, targets.boxes])
    matched, matched_channels = roi_heads.assign_targets_to_proposals([boxes], [targets.boxes], [channels])
    on_proposals, on_instances = matched_channels[0].split([len(proposals), len(targets.boxes)])
    labels = torch.cat([ignore_crowds(on_proposals, proposals, targets.crowd_boxes), on_instances])
    positive, negative = sample_balanced(labels, roi_heads.fg_bg_sampler, generator)
    sampled = torch.cat([positive, negative])
    instances = matched[0][positive]
    box_deltas = torch.zeros_like(boxes[sampled])
    box_deltas[: len(positive)] = roi_heads.box_coder.encode_single(targets.boxes[instances], boxes[positive])
    return SampledRegions(boxes[sampled], labels[sampled], box_deltas, instances)


def region_losses(
    roi_heads: RoIHeads,
    levels: Mapping[str, Tensor],
    regions: Sequence[SampledRegions],
    targets: Sequence[InstanceTargets],
    image_sizes: list[tuple[int, int]],
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Class, box and mask loss of each image.

    Args:
        roi_heads: whose layers are trained.
        levels: "p2".."p5", (B, D, h, w).
        regions: of each image.
        targets: of each image.
        image_sizes: (h, w) of each image before padding.
    """
    logits, deltas = _classes_and_boxes(roi_heads, levels, [region.boxes for region in regions], image_sizes)
    masks = _masks(roi_heads, levels, [region.boxes[: len(region.instances)] for region in regions], image_sizes)
    numbers = [len(region.boxes) for region in regions]
    of_images = zip(
        torch.split(logits, numbers),
        torch.split(deltas, numbers),
        torch.split(masks, [len(region.instances) for region in regions]),
        regions,
        targets,
        image_sizes,
        strict=True,
    )
    return [
        (*_class_and_box_loss(image_logits, image_deltas, region), _mask_loss(image_masks, region, target, size))
        for image_logits, image_deltas, image_masks, region, target, size in of_images
    ]


def _classes_and_boxes(
    roi_heads: RoIHeads, levels: Mapping[str, Tensor], boxes: list[Tensor], image_sizes: list[tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """Logits (R, K) and box deltas (R, 4K) in fp32 of the regions of all images, R of them."""
    logits, deltas = roi_heads.box_predictor(
        roi_heads.box_head(_cut_out(roi_heads.box_roi_pool, levels, boxes, image_sizes))
    )
    return logits.float(), deltas.float()


def _masks(
    roi_heads: RoIHeads, levels: Mapping[str, Tensor], boxes: list[Tensor], image_sizes: list[tuple[int, int]]
) -> Tensor:
    """Mask logits (R, K, 28, 28) in fp32 of the regions of all images, R of them."""
    pooled = _cut_out(roi_heads.mask_roi_pool, levels, boxes, image_sizes)
    logits: Tensor = roi_heads.mask_predictor(roi_heads.mask_head(pooled)).float()
    return logits


def _class_and_box_loss(logits: Tensor, box_deltas: Tensor, region: SampledRegions) -> tuple[Tensor, Tensor]:
    """Cross entropy over the regions of one image, and smooth L1 of those that are positive."""
    if not len(region.boxes):  # a crowd lies on all proposals; the parameters stay in the graph
        return logits.sum() * 0, box_deltas.sum() * 0
    losses: tuple[Tensor, Tensor] = fastrcnn_loss(logits, box_deltas, [region.channels], [region.box_deltas])
    return losses


def _mask_loss(logits: Tensor, region: SampledRegions, targets: InstanceTargets, image_size: tuple[int, int]) -> Tensor:
    """Sigmoid cross entropy (P, 28, 28) of the masks of the channels that the positive regions have."""
    count = len(region.instances)
    if not count:
        return logits.sum() * 0  # the parameters stay in the graph
    instances, rows = torch.unique(region.instances, return_inverse=True)
    full = targets.full_masks(image_size, instances)
    wanted = project_masks_on_boxes(full, region.boxes[:count], rows, logits.shape[-1])
    own = logits[torch.arange(count, device=logits.device), region.channels[:count]]
    return F.binary_cross_entropy_with_logits(own, wanted)


@dataclass(frozen=True, eq=False)
class DetectedRegions:
    """What was found in one image, by descending score.

    Args:
        boxes: (N, 4), x1 y1 x2 y2 in pixels, within the image.
        scores: (N,) in [0, 1].
        channels: (N,) int64, 1 or more.
        masks: (N, 28, 28) probabilities on a grid over each box.
    """

    boxes: Tensor
    scores: Tensor
    channels: Tensor
    masks: Tensor


@torch.no_grad()
def detect_regions(
    roi_heads: RoIHeads, levels: Mapping[str, Tensor], proposals: list[Tensor], image_sizes: list[tuple[int, int]]
) -> list[DetectedRegions]:
    """Instances of each image, by class after suppression of doubles; masks of the boxes that are left.

    Args:
        roi_heads: with the thresholds.
        levels: "p2".."p5", (B, D, h, w).
        proposals: (R, 4) of each image.
        image_sizes: (h, w) of each image before padding.

    Raises:
        ValueError: a value that is not finite, of which comparisons would make nothing at all.
    """
    logits, deltas = _classes_and_boxes(roi_heads, levels, proposals, image_sizes)
    check_finite([logits, deltas])
    boxes, scores, channels = roi_heads.postprocess_detections(logits, deltas, proposals, image_sizes)
    mask_logits = _masks(roi_heads, levels, boxes, image_sizes)
    check_finite([mask_logits])
    masks = maskrcnn_inference(mask_logits, channels)
    return [
        DetectedRegions(image_boxes, image_scores, image_channels, image_masks[:, 0])
        for image_boxes, image_scores, image_channels, image_masks in zip(boxes, scores, channels, masks, strict=True)
    ]


def check_finite(tensors: Sequence[Tensor]) -> None:
    """Raise ValueError if a value is not finite."""
    if not all(tensor.isfinite().all() for tensor in tensors):  # device sync: once per tensor
        raise ValueError("expected finite outputs of every head, got nan or infinity; the network has diverged")
