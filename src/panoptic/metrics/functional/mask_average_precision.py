"""Average precision of instance masks, COCO's definition, by faster-coco-eval on run lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import faster_coco_eval.core.mask as coco_mask
import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray
from torch import Tensor

from panoptic.structures import Category, Instances, PanopticMap

NUM_THRESHOLDS = 10
"""IoU 0.5, 0.55, .. 0.95."""

MAX_DETECTIONS = 100
"""Of each category in an image, those of the highest scores."""


@dataclass(frozen=True, eq=False)
class EncodedInstances:
    """Instances of one image whose masks are run lengths: some hundred bytes each, whatever the size of the image.

    Args:
        size: (H, W) of the image in pixels.
        category_ids: N contiguous ids.
        scores: N numbers in [0, 1].
        is_crowd: N of them.
        run_lengths: N, COCO's compressed form, row by row.
    """

    size: tuple[int, int]
    category_ids: list[int]
    scores: list[float]
    is_crowd: list[bool]
    run_lengths: list[bytes]


def encode_masks(instances: Instances) -> EncodedInstances:
    """Instances of any device with their masks as run lengths."""
    height, width = instances.masks.shape[-2:]
    return EncodedInstances(
        size=(int(height), int(width)),
        category_ids=instances.category_ids.tolist(),
        scores=instances.scores.tolist(),
        is_crowd=instances.is_crowd.tolist(),
        run_lengths=_run_lengths(instances.masks),
    )


def encode_things(panoptic_map: PanopticMap, categories: Sequence[Category]) -> EncodedInstances:
    """The things of a panoptic map, groups too, with their masks as run lengths; scores are 1 where there are none."""
    things = [segment for segment in panoptic_map.segments if categories[segment.category_id].is_thing]
    return EncodedInstances(
        size=panoptic_map.size,
        category_ids=[segment.category_id for segment in things],
        scores=[1.0 if segment.score is None else segment.score for segment in things],
        is_crowd=[segment.is_crowd for segment in things],
        run_lengths=_segment_run_lengths(panoptic_map, [segment.id for segment in things]),
    )


def _run_lengths(masks: Tensor) -> list[bytes]:
    """Run lengths of masks (N, H, W) bool. COCO's go down the columns: those of the transposed masks need no copy."""
    if not len(masks):
        return []
    transposed = masks.cpu().contiguous().view(torch.uint8).numpy().T  # (W, H, N)
    return [runs["counts"] for runs in coco_mask.encode(transposed)]


def _segment_run_lengths(panoptic_map: PanopticMap, ids: Sequence[int]) -> list[bytes]:
    """As `_run_lengths` of the masks of these segments, in one pass over the map."""
    height, width = panoptic_map.size
    flat = panoptic_map.segment_ids.cpu().numpy().reshape(-1)
    edges = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    owners = flat[edges[:-1]]
    encoded = []
    for segment_id in ids:
        rows = np.flatnonzero(owners == segment_id)
        borders = np.stack([edges[rows], edges[rows + 1]], axis=1).reshape(-1)  # begin and end of each run
        counts = np.diff(borders, prepend=0, append=flat.size).tolist()
        counts = counts if counts[-1] else counts[:-1]  # nothing follows the last run
        encoded.append(coco_mask.frPyObjects({"size": [width, height], "counts": counts}, width, height)["counts"])
    return encoded


def mask_average_precision(
    predictions: Sequence[EncodedInstances], truths: Sequence[EncodedInstances], *, num_categories: int
) -> NDArray[np.float64]:
    """AP of each category at each IoU threshold: the mean precision at 101 recalls, COCO's definition.

    A detection counts for a truth of its category, the best free one; one that lies on a crowd and finds no other is
    ignored. What lies on void counts as wrong.

    Args:
        predictions: one entry per image.
        truths: as many, of the same sizes.
        num_categories: C.

    Returns:
        (10, C) in [0, 1]; nan for a category without truth beside crowds.
    """
    if not truths:
        return np.full((NUM_THRESHOLDS, num_categories), np.nan)
    category_ids = list(range(num_categories))
    images = [
        {"id": number, "height": truth.size[1], "width": truth.size[0]}  # transposed, as the run lengths are
        for number, truth in enumerate(truths)
    ]
    described = {"images": images, "categories": [{"id": number, "name": str(number)} for number in category_ids]}
    truth = COCO({**described, "annotations": _annotations(truths)})
    prediction = COCO({**described, "annotations": _annotations(predictions)})
    evaluator = COCOeval_faster(truth, prediction, "segm")
    evaluator.params.imgIds = [image["id"] for image in images]
    evaluator.params.catIds = category_ids
    evaluator.params.maxDets = [MAX_DETECTIONS]
    evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluator.evaluate()
    evaluator.accumulate()
    precision = np.asarray(evaluator.eval["precision"], dtype=np.float64)[:, :, :, 0, 0]  # (10, 101, C), -1: no truth
    return np.where(precision[:, 0] < 0, np.nan, precision.mean(axis=1))


def _annotations(images: Sequence[EncodedInstances]) -> list[dict[str, Any]]:
    """COCO's entries, numbered from 1: 0 would mean that nothing was matched."""
    entries: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        rows = zip(image.category_ids, image.scores, image.is_crowd, image.run_lengths, strict=True)
        for category_id, score, is_crowd, run_lengths in rows:
            segmentation = {"size": [image.size[1], image.size[0]], "counts": run_lengths}
            entries.append(
                {
                    "id": len(entries) + 1,
                    "image_id": number,
                    "category_id": category_id,
                    "score": score,
                    "iscrowd": int(is_crowd),
                    "segmentation": segmentation,
                    "area": int(coco_mask.area(segmentation)),
                }
            )
    return entries
