"""DeeperLab's fusion (Sec. 3.4): keypoints to instances, thing pixels to instances, categories by majority vote."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from panoptic.fusion.assignment import assign_pixels
from panoptic.fusion.grouping import (
    box_scales,
    expected_oks,
    find_peaks,
    follow_edges,
    group_keypoints,
    suppress_boxes,
)
from panoptic.fusion.hough_voting import hough_scores
from panoptic.fusion.paste import (
    check_finite,
    look_up,
    majority_vote,
    output_of,
    paste_categories,
    paste_instances,
    predicted_categories,
    thing_pixels,
)
from panoptic.fusion.refinement import locate_keypoints
from panoptic.fusion.resize import resize_nearest
from panoptic.structures import STAR, Category, FusionResult, KeypointGraph, PanopticMap, Segment, check_categories


@dataclass(frozen=True)
class _Fields:
    """The instance outputs of one image, shapes checked."""

    heatmap: Tensor
    short_range: Tensor
    middle_range: Tensor
    long_range: Tensor


@dataclass(frozen=True)
class _Constants:
    """Constants of the detection, as in `fuse_bottom_up`, defaults resolved."""

    radius: float
    refinements: int
    max_correction: float
    vote_threshold: float
    short_weight: float
    long_weight: float
    peak_threshold: float
    peak_window: int
    kappa: tuple[float, ...]
    proximity: float
    nms_threshold: float
    score_threshold: float
    max_instances: int

    def __post_init__(self) -> None:
        if not self.peak_threshold > 0:
            raise ValueError(f"expected a positive peak_threshold, got {self.peak_threshold}")
        if not 0 <= self.vote_threshold < 1:
            raise ValueError(f"expected a vote_threshold in [0, 1), got {self.vote_threshold}")
        if not all(kappa > 0 for kappa in self.kappa):
            raise ValueError(f"expected positive kappa, got {self.kappa}")
        for name in ("refinements", "max_correction", "short_weight", "long_weight", "peak_window", "proximity",
                     "nms_threshold", "max_instances"):  # fmt: skip
            if not vars(self)[name] >= 0:
                raise ValueError(f"expected {name} of at least 0, got {vars(self)[name]}")


def fuse_bottom_up(
    outputs: Mapping[str, Tensor],
    categories: Sequence[Category],
    *,
    size: tuple[int, int] | None = None,
    graph: KeypointGraph = STAR,
    radius: float = 25.0,
    min_area: int = 0,
    refinements: int = 2,
    max_correction: float | None = None,
    vote_threshold: float = 0.01,
    short_weight: float = 1.0,
    long_weight: float = 1.0,
    peak_threshold: float | None = None,
    peak_window: int | None = None,
    kappa: float | Sequence[float] = 0.1,
    proximity: float | None = None,
    nms_threshold: float = 0.5,
    score_threshold: float = 0.0,
    max_instances: int = 300,
) -> FusionResult:
    """Panoptic map from semantic logits and keypoints (DeeperLab, Sec. 3.4.1 and 3.4.2).

    Stuff: one segment per category. Pixels of things go to the instance whose keypoints are nearest to where they see
    them; the instance's category is the majority of its pixels' categories. If no instance is found, each thing
    category present is one segment. No void unless `min_area` asks for it.

    Args:
        outputs: of one image at the network's input resolution: "semantic" (C, H, W) logits, "heatmap" (P, H, W)
            logits, "short_range" (P, 2, H, W), "middle_range" (E, 2, H, W), "long_range" (P, 2, H, W), offsets (dy, dx)
            in pixels.
        categories: of the data set, C of them.
        size: (H, W) of the result in pixels, to which it is brought by nearest neighbour; None keeps the outputs'.
        graph: P keypoint kinds and E edges.
        radius: R of the disks in pixels, as in training; 25 in the paper. What else is in pixels is a multiple of it.
        min_area: stuff of fewer pixels than this becomes void; 0 as in the paper (no small-region removal).
        refinements: of the offsets by each other; 2 in PersonLab, not stated in the paper.
        max_correction: longest correction by a refinement, in pixels; not stated in the paper, chosen as R (None): a
            longer one comes from another instance. Infinity as in PersonLab.
        vote_threshold: least heatmap probability that votes; not in the paper (0), chosen as 0.01: less is noise.
        short_weight: a of the fused score map; not stated in the paper, chosen as 1.
        long_weight: b of the fused score map; not stated in the paper, chosen as 1.
        peak_threshold: least fused score of a keypoint; not stated in the paper, chosen (None) as 0.01, at least
            4 / (pi R^2): four certain votes for one pixel.
        peak_window: rows and columns within which a peak is the highest; not stated in the paper, chosen (None) as
            R / 5 rounded, at least 1.
        kappa: of Expected-OKS, one or P of them; not stated in the paper, chosen as 0.1 (COCO's largest is 0.107).
        proximity: r within which a keypoint belongs to an instance already found; not stated in the paper, chosen
            (None) as 0.4 R: PersonLab's 10 px at R = 25.
        nms_threshold: intersection over union of boxes above which the lower score goes; not stated in the paper,
            chosen as 0.5.
        score_threshold: least score of an instance; not in the paper (0 keeps all).
        max_instances: most instances, by score; not in the paper, chosen as 300. Ten times as many reach the box
            suppression: bounds untrained networks' time.

    Returns:
        The map, instances with their score in [0, 1], and the network's own semantic map.

    Raises:
        KeyError: an output is missing.
        ValueError: an output of the wrong shape, a value that is read and not finite, or a constant out of its range.
    """
    check_categories(categories)
    if not radius > 0:
        raise ValueError(f"expected a positive radius, got {radius}")
    kappas = tuple(kappa) if isinstance(kappa, Sequence) else (kappa,) * len(graph.keypoints)
    if len(kappas) != len(graph.keypoints):
        raise ValueError(f"expected {len(graph.keypoints)} kappa, one per keypoint of the graph, got {len(kappas)}")
    constants = _Constants(
        radius=radius,
        refinements=refinements,
        max_correction=radius if max_correction is None else max_correction,
        vote_threshold=vote_threshold,
        short_weight=short_weight,
        long_weight=long_weight,
        peak_threshold=max(0.01, 4 / (math.pi * radius**2)) if peak_threshold is None else peak_threshold,
        peak_window=max(1, round(radius / 5)) if peak_window is None else peak_window,
        kappa=kappas,
        proximity=0.4 * radius if proximity is None else proximity,
        nms_threshold=nms_threshold,
        score_threshold=score_threshold,
        max_instances=max_instances,
    )
    return resize_nearest(_fuse(outputs, categories, graph, constants, min_area), size)


def _fuse(
    outputs: Mapping[str, Tensor],
    categories: Sequence[Category],
    graph: KeypointGraph,
    constants: _Constants,
    min_area: int,
) -> FusionResult:
    """`fuse_bottom_up` with its constants resolved."""
    semantic_map = predicted_categories(outputs, categories)
    if not any(category.is_thing for category in categories):
        return _fuse_categories(semantic_map, categories, min_area)
    fields = _fields(outputs, graph, semantic_map.shape)
    pixels = thing_pixels(semantic_map, categories)
    if len(pixels) == 0:
        return _fuse_categories(semantic_map, categories, min_area)
    located = locate_keypoints(
        fields.long_range,
        fields.short_range,
        pixels,
        refinements=constants.refinements,
        max_correction=constants.max_correction,
    )
    keypoints, scores = _detect(fields, located, graph, constants)
    if len(keypoints) == 0:
        return _fuse_categories(semantic_map, categories, min_area)
    return _fuse_instances(semantic_map, pixels, assign_pixels(located, keypoints), scores, categories, min_area)


def _fields(outputs: Mapping[str, Tensor], graph: KeypointGraph, size: torch.Size) -> _Fields:
    num_kinds, num_edges = len(graph.keypoints), len(graph.edges)
    return _Fields(
        heatmap=output_of(outputs, "heatmap", (num_kinds, *size)),
        short_range=output_of(outputs, "short_range", (num_kinds, 2, *size)),
        middle_range=output_of(outputs, "middle_range", (num_edges, 2, *size)),
        long_range=output_of(outputs, "long_range", (num_kinds, 2, *size)),
    )


def _detect(fields: _Fields, located: Tensor, graph: KeypointGraph, constants: _Constants) -> tuple[Tensor, Tensor]:
    """Keypoints (N, P, 2) of the instances and their scores (N,), best first (steps 2 to 4).

    Candidates are few and their loops run on the CPU: both maps that they read are brought there once.
    """
    device, num_kinds = located.device, len(graph.keypoints)
    scores = hough_scores(
        fields.heatmap,
        fields.short_range,
        located,
        radius=constants.radius,
        short_weight=constants.short_weight,
        long_weight=constants.long_weight,
        vote_threshold=constants.vote_threshold,
    ).cpu()
    heatmap, kappa = fields.heatmap.cpu(), torch.tensor(constants.kappa)

    def rescore(kinds: Tensor, positions: Tensor, scales: Tensor) -> Tensor:
        return expected_oks(kinds, positions, scales, heatmap, scores, radius=constants.radius, kappa=kappa)

    kinds, positions = find_peaks(scores, threshold=constants.peak_threshold, window=constants.peak_window)
    keypoints = follow_edges(
        kinds.to(device),
        positions.to(device),
        fields.middle_range,
        fields.short_range,
        graph,
        refinements=constants.refinements,
        max_correction=constants.max_correction,
    ).cpu()
    check_finite(bool(keypoints.isfinite().all()), "middle_range")
    scales = box_scales(keypoints)
    found = group_keypoints(
        kinds,
        keypoints,
        rescore(kinds, positions.float(), scales),
        proximity=constants.proximity,
        max_candidates=10 * constants.max_instances,
    )
    keypoints, scales = keypoints[found], scales[found]
    every_kind = torch.arange(num_kinds).repeat(len(found))
    all_scores = rescore(every_kind, keypoints.flatten(0, 1), scales.repeat_interleave(num_kinds))
    instance_scores = all_scores.view(len(found), num_kinds).mean(1)
    kept = suppress_boxes(keypoints, instance_scores, nms_threshold=constants.nms_threshold)
    kept = kept[instance_scores[kept] >= constants.score_threshold][: constants.max_instances]
    return keypoints[kept].to(device), instance_scores[kept].to(device)


def _fuse_categories(semantic_map: Tensor, categories: Sequence[Category], min_area: int) -> FusionResult:
    """No instance: each category present is one segment."""
    segment_ids, segments = paste_categories(semantic_map, categories, min_area=min_area)
    return FusionResult(PanopticMap(segment_ids, segments), semantic_map)


def _fuse_instances(
    semantic_map: Tensor,
    pixels: Tensor,
    owners: Tensor,
    scores: Tensor,
    categories: Sequence[Category],
    min_area: int,
) -> FusionResult:
    """Stuff, and over it the instances that have pixels (Sec. 3.4.2).

    Args:
        semantic_map: (H, W) int64.
        pixels: (M,) int64, y * W + x of each pixel of a thing.
        owners: (M,) int64, instance 0..N-1 of each.
        scores: (N,).
        categories: of the data set.
        min_area: least area of stuff.
    """
    stuff = [category for category in categories if not category.is_thing]
    segment_ids, segments = paste_categories(semantic_map, stuff, min_area=min_area)
    winners, areas = majority_vote(
        owners, look_up(semantic_map.flatten(), pixels), num_instances=len(scores), num_categories=len(categories)
    )
    ids = torch.zeros(len(scores), dtype=torch.int64)
    table = zip(winners.tolist(), areas.tolist(), scores.tolist(), strict=True)  # device sync: once per image
    for instance, (category_id, area, score) in enumerate(table):
        if area > 0:
            segments.append(Segment(len(segments) + 1, category_id, score=score, area=area))
            ids[instance] = len(segments)
    pasted = paste_instances(segment_ids, pixels, owners, ids.to(owners.device))
    return FusionResult(PanopticMap(pasted, segments), semantic_map)
