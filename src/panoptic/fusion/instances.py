"""Fusion without a semantic head: instances alone, void beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from panoptic.fusion.detections import as_instances, best_first, detections_of
from panoptic.fusion.masks import paste_masks
from panoptic.fusion.merging import paste_instances
from panoptic.structures import IGNORE_INDEX, Category, FusionResult, PanopticMap, check_categories


def fuse_instances(
    outputs: Mapping[str, Any],
    categories: Sequence[Category],
    *,
    size: tuple[int, int] | None = None,
    overlap_threshold: float = 0.5,
    score_threshold: float = 0.5,
    max_instances: int = 100,
) -> FusionResult:
    """Detections in descending order of their scores, as `fuse_detection_score` merges them; the rest is void.

    It trains and scores an instance head alone, such as the single-task row of the Fusion Scheme (Table I).

    Args:
        outputs: of one image, {"instances": `Detections`}; others are not read.
        categories: of the data set.
        size: (H, W) of the result in pixels, to which masks are brought before; None keeps the outputs'.
        overlap_threshold: least part of an instance's mask that is free.
        score_threshold: least score of a detection that takes part in the map.
        max_instances: most detections that take part in the map, by score.

    Returns:
        The map; for each pixel the category of its instance, `IGNORE_INDEX` where there is none; all detections as they
        were pasted.

    Raises:
        KeyError: there is no output "instances".
        TypeError: it is not `Detections`.
        ValueError: detections of stuff, or a constant out of its range.
    """
    check_categories(categories)
    detections = detections_of(outputs, categories, semantic_size=None, size=size)
    masks = paste_masks(detections, detections.image_size if size is None else size)
    order = best_first(detections, score_threshold=score_threshold, max_instances=max_instances)
    segment_ids, segments = paste_instances(detections, masks, order, overlap_threshold=overlap_threshold)
    category_of = np.array([IGNORE_INDEX, *(segment.category_id for segment in segments)], dtype=np.int64)
    device = detections.scores.device
    panoptic_map = PanopticMap(torch.from_numpy(segment_ids).to(device), segments)
    semantic_map = torch.from_numpy(category_of[segment_ids]).to(device)
    return FusionResult(panoptic_map, semantic_map, as_instances(detections, masks))
