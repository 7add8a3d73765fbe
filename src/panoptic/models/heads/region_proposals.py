"""Region proposals: torchvision's parts, image by image, at the strides of a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers

from panoptic.models.heads.box_sampling import ignore_crowds, sample_balanced
from panoptic.targets.instances import InstanceTargets

STRIDES = (4, 8, 16, 32, 64)
"""Pixels per cell of "p2".."p6"."""


@dataclass(frozen=True, eq=False)
class AnchorPredictions:
    """What is said of the anchors of one image.

    Args:
        anchors: (T, 4), x1 y1 x2 y2 in pixels; level by level, row by row, T of them.
        objectness: (T,) logits in fp32.
        box_deltas: (T, 4) in fp32, from the anchor to the object.
        num_per_level: their numbers add up to T.
        image_size: (h, w) of the network's input without padding.
    """

    anchors: Tensor
    objectness: Tensor
    box_deltas: Tensor
    num_per_level: list[int]
    image_size: tuple[int, int]


class RegionProposals(nn.Module):
    """Where something is: anchors at every cell of the pyramid, their objectness and their way to an object's box.

    The head reads a batch; everything else works on one image at a time, on the cells that lie in it. What is added to
    an image as padding has no anchors, so neighbours in a batch do not matter (torchvision's anchors reach into it).

    Args:
        filters: D of every level.
        convolution: False leaves out the 3x3 convolution before the two predictions, for features that come out of one.
        anchor_sizes: square root of an anchor's area in pixels, one for each of `STRIDES`.
        aspect_ratios: height over width of the anchors at each cell.
        num_proposals: kept of each level by objectness, and in all after suppression, for detections.
        num_training_proposals: the same for losses.
        num_sampled: anchors that carry loss, per image, at most half of them positive.
    """

    def __init__(
        self,
        filters: int,
        *,
        convolution: bool,
        anchor_sizes: Sequence[float],
        aspect_ratios: Sequence[float],
        num_proposals: int,
        num_training_proposals: int,
        num_sampled: int,
    ) -> None:
        super().__init__()
        if len(anchor_sizes) != len(STRIDES):
            raise ValueError(f"expected {len(STRIDES)} anchor sizes, one per level p2 to p6, got {list(anchor_sizes)}")
        self.head = RPNHead(filters, len(aspect_ratios), conv_depth=1 if convolution else 0)
        self.anchor_generator = AnchorGenerator(
            tuple((size,) for size in anchor_sizes), (tuple(aspect_ratios),) * len(STRIDES)
        )
        self.for_losses = _steps(self.anchor_generator, num_training_proposals, num_sampled)
        self.for_detections = _steps(self.anchor_generator, num_proposals, num_sampled)

    def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Levels (B, D, h, w) to objectness (B, A, h, w) and box deltas (B, 4A, h, w), A anchors at each cell."""
        objectness, box_deltas = self.head(levels)
        return objectness, box_deltas

    def of_image(
        self, objectness: Sequence[Tensor], box_deltas: Sequence[Tensor], index: int, image_size: tuple[int, int]
    ) -> AnchorPredictions:
        """Predictions of image `index` of a batch, for the cells that begin within (h, w) = `image_size`."""
        grids = [(-(-image_size[0] // stride), -(-image_size[1] // stride)) for stride in STRIDES]
        inside = [(slice(index, index + 1), slice(None), slice(rows), slice(columns)) for rows, columns in grids]
        cropped = [level[cells].float() for level, cells in zip(objectness, inside, strict=True)]
        cropped_deltas = [level[cells].float() for level, cells in zip(box_deltas, inside, strict=True)]
        num_per_level = [level.numel() for level in cropped]
        flat, flat_deltas = concat_box_prediction_layers(cropped, cropped_deltas)  # (T, 1), (T, 4)
        self.anchor_generator.set_cell_anchors(torch.float32, flat.device)
        strides = [[stride, stride] for stride in STRIDES]
        anchors = torch.cat(self.anchor_generator.grid_anchors([list(grid) for grid in grids], strides))
        return AnchorPredictions(anchors, flat.flatten(), flat_deltas, num_per_level, image_size)

    def losses(
        self, predicted: AnchorPredictions, targets: InstanceTargets, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Objectness and box loss of one image, over the anchors that are sampled."""
        matched_labels, matched_boxes = self.for_losses.assign_targets_to_anchors(
            [predicted.anchors], [{"boxes": targets.boxes}]
        )
        labels = ignore_crowds(matched_labels[0], predicted.anchors, targets.crowd_boxes)
        positive, negative = sample_balanced(labels, self.for_losses.fg_bg_sampler, generator)
        sampled = torch.cat([positive, negative])
        count = max(len(sampled), 1)  # a crowd may lie on all anchors
        objectness = F.binary_cross_entropy_with_logits(predicted.objectness[sampled], labels[sampled], reduction="sum")
        wanted = self.for_losses.box_coder.encode_single(matched_boxes[0][positive], predicted.anchors[positive])
        box = F.smooth_l1_loss(predicted.box_deltas[positive], wanted, beta=1 / 9, reduction="sum")
        return objectness / count, box / count

    @torch.no_grad()
    def proposals(self, predicted: AnchorPredictions, steps: RegionProposalNetwork) -> Tensor:
        """Boxes (R, 4) within the image by descending objectness; `steps` is `for_losses` or `for_detections`."""
        boxes = steps.box_coder.decode(predicted.box_deltas, [predicted.anchors])  # (T, 1, 4)
        kept, _ = steps.filter_proposals(
            boxes.view(1, -1, 4), predicted.objectness, [predicted.image_size], predicted.num_per_level
        )
        proposals: Tensor = kept[0]
        return proposals


def _steps(anchor_generator: AnchorGenerator, count: int, num_sampled: int) -> RegionProposalNetwork:
    """Torchvision's steps with its thresholds; without the head, and the same in training and evaluation."""
    both = {"training": count, "testing": count}
    return RegionProposalNetwork(
        anchor_generator,
        nn.Identity(),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=num_sampled,
        positive_fraction=0.5,
        pre_nms_top_n=both,
        post_nms_top_n=both,
        nms_thresh=0.7,
    )
