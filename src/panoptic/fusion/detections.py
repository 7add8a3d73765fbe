"""Detections as fusions read them: checked, in order of their scores, and as instances of the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from panoptic.fusion.masks import PastedMasks, full_masks, scaled_boxes
from panoptic.fusion.paste import named_output
from panoptic.structures import Category, Detections, Instances


def detections_of(
    outputs: Mapping[str, Any],
    categories: Sequence[Category],
    *,
    semantic_size: tuple[int, int] | None,
    size: tuple[int, int] | None,
) -> Detections:
    """The output "instances" of an image.

    Args:
        outputs: of one image.
        categories: of the data set.
        semantic_size: (h, w) of the semantic logits; None where they are not read.
        size: (H, W) of the result; None keeps the outputs', which must then be the same.

    Raises:
        KeyError: there is no output "instances".
        TypeError: it is not `Detections`.
        ValueError: detections of what is not a thing, or in an image of another size than the logits and no `size`.
    """
    detections = named_output(outputs, "instances")
    if not isinstance(detections, Detections):
        raise TypeError(f"expected instances as Detections, got {type(detections).__name__}; pass one image's outputs")
    things = {category.id for category in categories if category.is_thing}
    wrong = sorted(set(detections.category_ids.tolist()) - things)  # device sync: once per image
    if wrong:
        raise ValueError(
            f"expected detections of things {sorted(things)}, got category ids {wrong}; train the instance head with "
            "the same categories"
        )
    if size is None and semantic_size is not None and detections.image_size != semantic_size:
        raise ValueError(
            f"expected detections in an image of {semantic_size[0]}x{semantic_size[1]} like the semantic logits, got "
            f"{detections.image_size[0]}x{detections.image_size[1]}; pass the size of the result"
        )
    return detections


def best_first(detections: Detections, *, score_threshold: float, max_instances: int) -> np.ndarray:
    """Detections in descending order of their scores.

    Equal scores are ordered by category id and box, so that the order in which detections come does not matter.

    Args:
        detections: N of them.
        score_threshold: least score of those that are returned.
        max_instances: most that are returned.

    Returns:
        (M,) int64 rows.

    Raises:
        ValueError: `max_instances` is negative.
    """
    if max_instances < 0:
        raise ValueError(f"expected max_instances of at least 0, got {max_instances}")
    scores = detections.scores.detach().cpu().double().numpy()
    boxes = detections.boxes.detach().cpu().double().numpy()
    order = np.lexsort((*boxes.T, detections.category_ids.cpu().numpy(), -scores))
    return order[scores[order] >= score_threshold][:max_instances]


def as_instances(detections: Detections, masks: PastedMasks) -> Instances:
    """All detections (N) with their masks (N, H, W) as they were pasted, on the detections' device."""
    device = detections.boxes.device
    return Instances(
        category_ids=detections.category_ids,
        masks=full_masks(masks, device),
        boxes=scaled_boxes(detections, masks.size).float().to(device),
        scores=detections.scores,
        is_crowd=torch.zeros(len(detections), dtype=torch.bool, device=device),
    )
