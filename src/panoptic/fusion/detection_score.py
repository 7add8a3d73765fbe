"""Merging by detection score: the heuristic of Kirillov et al. (Panoptic Segmentation), OANet's baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from panoptic.fusion.detections import best_first, detections_of
from panoptic.fusion.logits import predict_semantic
from panoptic.fusion.masks import paste_masks
from panoptic.fusion.merging import merge
from panoptic.structures import Category, FusionResult, check_categories


def fuse_detection_score(
    outputs: Mapping[str, Any],
    categories: Sequence[Category],
    *,
    size: tuple[int, int] | None = None,
    overlap_threshold: float = 0.5,
    score_threshold: float = 0.5,
    max_instances: int = 100,
    min_area: int = 4900,
) -> FusionResult:
    """Panoptic map from semantic logits and detections, which come in descending order of their scores.

    Each instance takes its pixels that are still free, and is dropped if those are too small a part of its mask. Stuff,
    the most probable category of stuff alone, fills what is free then; what is left is void. The order of detections
    does not matter: equal scores go by category id and box.

    Args:
        outputs: of one image at the network's input resolution: "semantic" (C, h, w) logits, "instances"
            `Detections`.
        categories: of the data set, C of them.
        size: (H, W) of the result in pixels, to which masks and logits are brought before; None keeps the outputs'.
        overlap_threshold: least part of an instance's mask that is free; not stated in the paper, chosen as 0.5.
        score_threshold: least score of a detection that takes part; not stated in the paper, chosen as 0.5.
        max_instances: most detections that take part, by score; 100 in the paper.
        min_area: 8-connected areas of stuff of fewer pixels than this become void; 4900 in the paper, pixels of the
            result. 8-connected is chosen.

    Returns:
        The map, instances with their score; the network's own semantic map; all detections as they were pasted.

    Raises:
        KeyError: an output is missing.
        TypeError: "instances" are not `Detections`.
        ValueError: an output of the wrong shape or not finite, detections of stuff, or a constant out of its range.
    """
    check_categories(categories)
    prediction = predict_semantic(outputs, categories, size)
    detections = detections_of(outputs, categories, semantic_size=prediction.logits_size, size=size)
    masks = paste_masks(detections, prediction.size)
    order = best_first(detections, score_threshold=score_threshold, max_instances=max_instances)
    return merge(
        detections, masks, order, prediction, categories, overlap_threshold=overlap_threshold, min_area=min_area
    )
