"""The Fusion Scheme of Costea, Petrovai and Nedevschi (Sec. IV): instances guided by the groups of semantic pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from panoptic.fusion.arrays import in_threads, split_range
from panoptic.fusion.connected_regions import connected_regions
from panoptic.fusion.detections import best_first, detections_of
from panoptic.fusion.growth import BACKGROUND, grow, match_rows, measure_rows, write_rows
from panoptic.fusion.logits import SemanticPrediction, best_probabilities, predict_semantic
from panoptic.fusion.masks import PastedMasks, paste_masks
from panoptic.structures import (
    IGNORE_INDEX,
    Category,
    FusionResult,
    Instances,
    PanopticMap,
    Segment,
    check_categories,
)


@dataclass(frozen=True, eq=False)
class _Things:
    """Instances of one image: detections best first, then those that left-over regions make.

    Args:
        category_ids: (N,) int64.
        scores: (N,) float64.
    """

    category_ids: np.ndarray
    scores: np.ndarray


def fuse_region_growing(
    outputs: Mapping[str, Any],
    categories: Sequence[Category],
    *,
    size: tuple[int, int] | None = None,
    min_area: int = 1024,
    score_threshold: float = 0.0,
) -> FusionResult:
    """Panoptic map from semantic logits and detections, each of which refines the other (Sec. IV).

    Background is what the semantic pixels say. A mask keeps its pixels where they are things of the group of the
    instance's category; where masks overlap, the higher score has the pixel. Other pixels of things go to the nearest
    instance along a path inside their group. What no path reaches becomes new instances, by 4-connected regions of one
    category. The order of detections does not matter: equal scores go by category id and box.

    Args:
        outputs: of one image at the network's input resolution: "semantic" (C, h, w) logits, "instances"
            `Detections`.
        categories: of the data set, C of them; a thing without a group is a group of its own.
        size: (H, W) of the result in pixels, to which masks and logits are brought before; None keeps the outputs'.
        min_area: a left-over region of fewer pixels than this is void; not stated in the paper, chosen as 32 * 32,
            below which COCO calls an object small, in pixels of the result.
        score_threshold: least score of a detection that takes part; not in the paper (0 takes all).

    Returns:
        The map; the semantic map, in which each pixel of an instance has the instance's category; the refined
        instances, which do not overlap, with their scores. Instances without pixels are left out.

    Raises:
        KeyError: an output is missing.
        TypeError: "instances" are not `Detections`.
        ValueError: an output of the wrong shape or not finite, detections of stuff, or a negative `min_area`.
    """
    check_categories(categories)
    if min_area < 0:
        raise ValueError(f"expected min_area of at least 0, got {min_area}")
    prediction = predict_semantic(outputs, categories, size)
    detections = detections_of(outputs, categories, semantic_size=prediction.logits_size, size=size)
    masks = paste_masks(detections, prediction.size)
    order = best_first(detections, score_threshold=score_threshold, max_instances=len(detections))
    things = _Things(
        detections.category_ids.cpu().numpy()[order], detections.scores.detach().cpu().double().numpy()[order]
    )
    groups = category_groups(categories)
    owners, num_free = match_masks(masks.select(order), groups[things.category_ids], groups, prediction.categories)
    if grow(owners, groups[things.category_ids], num_free) > 0:
        things = _add_left_over(owners, things, prediction, min_area)
    return _result(owners, things, prediction, len(categories))


def category_groups(categories: Sequence[Category]) -> np.ndarray:
    """(C,) int32: 0 for stuff, 1, 2, ... for the groups of things; a thing without a group is one of its own."""
    numbers: dict[tuple[str | None, int | None], int] = {}
    groups = np.zeros(len(categories), dtype=np.int32)
    for category in categories:
        if category.is_thing:
            key = (category.group, category.id if category.group is None else None)
            groups[category.id] = numbers.setdefault(key, len(numbers) + 1)
    return groups


def match_masks(
    masks: PastedMasks, instance_groups: np.ndarray, groups: np.ndarray, semantic_map: np.ndarray
) -> tuple[np.ndarray, int]:
    """Each pixel of a thing to the first instance that has it in its mask and is of the pixel's group.

    Args:
        masks: N of them, best first, in an image (H, W).
        instance_groups: (N,) int32 group of each.
        groups: (C,) int32 from `category_groups`.
        semantic_map: (H, W) uint8 category ids.

    Returns:
        owners: (H + 2, W + 2) int32 as in `growth`.
        num_free: how many pixels of things have no owner.
    """
    height, width = semantic_map.shape
    owners = np.empty((height + 2, width + 2), dtype=np.int32)
    owners[[0, -1]] = BACKGROUND
    owners[:, [0, -1]] = BACKGROUND

    def match(band: slice) -> int:
        arrays = (masks.windows, masks.starts, masks.pixels)
        return int(match_rows(*arrays, instance_groups, groups, semantic_map, owners, band.start, band.stop))

    return owners, sum(in_threads(match, split_range(height)))


def _add_left_over(owners: np.ndarray, things: _Things, prediction: SemanticPrediction, min_area: int) -> _Things:
    """Large regions of one category among things without owner become instances, in place in owners (H + 2, W + 2).

    Their score is the mean softmax probability of their category.
    """
    inner = owners[1:-1, 1:-1]
    is_free = inner < BACKGROUND
    regions = connected_regions(np.where(is_free, prediction.categories, np.uint8(IGNORE_INDEX)), diagonal=False)
    is_large = regions.areas >= min_area
    if not is_large.any():
        return things
    needed = np.zeros(prediction.size, dtype=np.bool_)
    regions.paint(needed, np.ones(len(regions), dtype=np.bool_), is_large)
    scores = regions.sums(best_probabilities(prediction.logits, needed))[is_large] / regions.areas[is_large]
    numbers = np.zeros(len(regions), dtype=np.int32)
    numbers[is_large] = len(things.scores) + np.arange(is_large.sum())
    regions.paint(inner, numbers, is_large)
    return _Things(
        np.concatenate([things.category_ids, regions.labels[is_large].astype(np.int64)]),
        np.concatenate([things.scores, np.minimum(scores, 1.0)]),
    )


def _result(owners: np.ndarray, things: _Things, prediction: SemanticPrediction, num_categories: int) -> FusionResult:
    """Maps and instances of owners (H + 2, W + 2); instances have the first segment ids, then come categories."""
    areas, background_areas, boxes = _measure(owners, len(things.scores), prediction, num_categories)
    kept = np.flatnonzero(areas)
    rows = np.zeros(len(areas), dtype=np.int64)
    rows[kept] = np.arange(len(kept))
    present = np.flatnonzero(background_areas)
    background_ids = np.zeros(num_categories, dtype=np.int64)
    background_ids[present] = len(kept) + 1 + np.arange(len(present))
    segment_ids, semantic_map = np.empty((2, *prediction.size), dtype=np.int64)
    masks = np.zeros((len(kept), *prediction.size), dtype=np.bool_)

    def write(band: slice) -> None:
        arrays = (owners, prediction.categories, rows, things.category_ids, background_ids)
        write_rows(*arrays, segment_ids, semantic_map, masks, band.start, band.stop)

    in_threads(write, split_range(prediction.size[0]))
    ids, scores = things.category_ids[kept].tolist(), things.scores[kept].tolist()
    table = zip(ids, scores, areas[kept].tolist(), strict=True)
    segments = [Segment(number, i, score=score, area=area) for number, (i, score, area) in enumerate(table, 1)]
    segments += [Segment(int(background_ids[i]), int(i), area=int(background_areas[i])) for i in present]
    device = prediction.logits.device
    return FusionResult(
        PanopticMap(torch.from_numpy(segment_ids).to(device), segments),
        torch.from_numpy(semantic_map).to(device),
        Instances(
            category_ids=torch.tensor(ids, dtype=torch.int64, device=device),
            masks=torch.from_numpy(masks).to(device),
            boxes=torch.from_numpy(boxes[kept]).float().to(device),
            scores=torch.tensor(scores, device=device),
            is_crowd=torch.zeros(len(kept), dtype=torch.bool, device=device),
        ),
    )


def _measure(
    owners: np.ndarray, num_instances: int, prediction: SemanticPrediction, num_categories: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Areas (N,) of instances and (C,) of background, and boxes (N, 4) int64 of the instances that have pixels."""
    height, width = prediction.size
    bands = split_range(height)
    boxes = np.tile(np.array([width, height, 0, 0]), (len(bands), num_instances, 1))

    def measure(number: int) -> tuple[np.ndarray, np.ndarray]:
        band, extended = bands[number], boxes[number]
        measured: tuple[np.ndarray, np.ndarray] = measure_rows(
            owners, prediction.categories, num_categories, extended, band.start, band.stop
        )
        return measured

    parts = zip(*in_threads(measure, range(len(bands))), strict=True)
    areas, background_areas = (np.stack(part).sum(axis=0) for part in parts)
    return areas, background_areas, np.concatenate([boxes[..., :2].min(0), boxes[..., 2:].max(0)], axis=1)
