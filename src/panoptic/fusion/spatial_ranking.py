"""Merging by spatial ranking score (OANet, Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from panoptic.fusion.detections import best_first, detections_of
from panoptic.fusion.logits import mean_probabilities, predict_semantic
from panoptic.fusion.masks import PastedMasks, paste_masks
from panoptic.fusion.merging import merge
from panoptic.fusion.paste import output_of
from panoptic.structures import Category, Detections, FusionResult, check_categories


def fuse_spatial_ranking(
    outputs: Mapping[str, Any],
    categories: Sequence[Category],
    *,
    size: tuple[int, int] | None = None,
    overlap_threshold: float = 0.5,
    score_threshold: float = 0.5,
    max_instances: int = 100,
    min_area: int = 4900,
    rank_within_class: bool = True,
) -> FusionResult:
    """Panoptic map from semantic logits, detections and the ranking of things that cover each other (Sec. 3.2).

    As `fuse_detection_score`, but instances come in descending order of their ranking score. At equal ranking, as of
    instances of one class where nothing covers them, they come in the order of their detection scores.

    Args:
        outputs: of one image at the network's input resolution: "semantic" (C, h, w) logits, "instances"
            `Detections`, "ranking" (T, h, w) logits of the T thing categories in ascending category id.
        categories: of the data set, C of them.
        size: (H, W) of the result in pixels, to which masks and logits are brought before; None keeps the outputs'.
            Ranking scores are computed at the network's input resolution, whatever this is.
        overlap_threshold: least part of an instance's mask that is free; not stated in the paper, chosen as 0.5.
        score_threshold: least detection score that takes part; not stated in the paper, chosen as 0.5.
        max_instances: most detections that take part, by detection score; 100 in the paper.
        min_area: 8-connected areas of stuff of fewer pixels than this become void; 4900 in the paper, pixels of the
            result. 8-connected is chosen.
        rank_within_class: False is a DEVIATION: the places that a class has in the order go to its instances by
            detection score, as the module has one channel for a class and is not taught to rank these.

    Returns:
        The map, instances with their detection score; the network's own semantic map; all detections as pasted.

    Raises:
        KeyError: an output is missing.
        TypeError: "instances" are not `Detections`.
        ValueError: an output of the wrong shape, a value that is read and not finite, detections of stuff, or a
            constant out of its range.
    """
    check_categories(categories)
    prediction = predict_semantic(outputs, categories, size)
    detections = detections_of(outputs, categories, semantic_size=prediction.logits_size, size=size)
    masks = paste_masks(detections, prediction.size)
    by_score = best_first(detections, score_threshold=score_threshold, max_instances=max_instances)
    is_same_size = prediction.size == detections.image_size
    input_masks = masks if is_same_size else paste_masks(detections, detections.image_size)
    ranking = ranking_scores(outputs, categories, detections, input_masks, by_score)
    places = np.argsort(-ranking, kind="stable")
    if not rank_within_class:
        places = _by_score_within_class(places, detections.category_ids.cpu().numpy()[by_score])
    order = by_score[places]
    return merge(
        detections, masks, order, prediction, categories, overlap_threshold=overlap_threshold, min_area=min_area
    )


def ranking_scores(
    outputs: Mapping[str, Any],
    categories: Sequence[Category],
    detections: Detections,
    masks: PastedMasks,
    rows: np.ndarray,
) -> np.ndarray:
    """Mean over an instance's mask of the softmax probability of its class (Eq. 3; Eq. 4 with 1 inside the mask).

    Args:
        outputs: of one image, "ranking" (T, h, w) logits.
        categories: of the data set, T of them things.
        detections: N of them.
        masks: theirs, at (h, w), the network's input resolution.
        rows: (M,) int64, detections that are asked for.

    Returns:
        (M,) float64 in [0, 1]; 0 for a mask without pixels.
    """
    things = [category.id for category in categories if category.is_thing]
    logits = output_of(outputs, "ranking", (len(things), *detections.image_size))
    channel_of = torch.zeros(len(categories), dtype=torch.int64)
    channel_of[things] = torch.arange(len(things))
    channels = channel_of[detections.category_ids.cpu()[torch.from_numpy(rows)]]
    means: np.ndarray = mean_probabilities(logits, masks.select(rows), channels).numpy()
    return means


def _by_score_within_class(places: np.ndarray, category_ids: np.ndarray) -> np.ndarray:
    """Of M instances numbered by detection score, their order (M,) with those of each class (M,) among each other."""
    places = places.copy()
    for category_id in np.unique(category_ids):
        of_class = category_ids[places] == category_id
        places[of_class] = np.sort(places[of_class])
    return places
