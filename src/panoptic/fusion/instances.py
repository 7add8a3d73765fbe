"""Fusion without a semantic head: instances alone, void beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from panoptic.fusion.detections import best_first, detections_of
from panoptic.fusion.logits import SemanticPrediction
from panoptic.fusion.masks import paste_masks
from panoptic.fusion.merging import merge
from panoptic.structures import IGNORE_INDEX, Category, FusionResult, check_categories


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
    unknown = np.full(masks.size, IGNORE_INDEX, dtype=np.uint8)
    nothing = SemanticPrediction(detections.scores.new_empty(0, *detections.image_size), unknown, unknown)
    result = merge(detections, masks, order, nothing, categories, overlap_threshold=overlap_threshold, min_area=0)
    segment_ids, segments = result.panoptic_map.segment_ids, result.panoptic_map.segments
    of_ids = torch.full((len(segments) + 1,), IGNORE_INDEX)
    of_ids[[segment.id for segment in segments]] = torch.tensor([s.category_id for s in segments], dtype=torch.int64)
    return replace(result, semantic_map=of_ids.to(segment_ids.device)[segment_ids])
