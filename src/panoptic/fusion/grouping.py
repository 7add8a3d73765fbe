"""Steps 3 and 4 of DeeperLab's instance prediction (Sec. 3.4.1): keypoints to instances.

Local maxima of the score maps are candidates; the middle-range offsets give each the other keypoints of its instance;
Expected-OKS scores them; a greedy pass keeps one candidate per instance. A few hundred candidates: the loops are
compiled and run on the CPU.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torchvision.ops import nms

from panoptic.fusion.arrays import float_array, in_threads, padded_array, split_range
from panoptic.fusion.refinement import sample_bilinear
from panoptic.structures import KeypointGraph


def find_peaks(scores: Tensor, *, threshold: float, window: int) -> tuple[Tensor, Tensor]:
    """Local maxima of each score map.

    A pixel is a peak if its score is at least `threshold` and no pixel up to `window` rows and columns away has a
    higher score, or the same at an earlier position (row by row): a plateau as large as the window has one peak.

    Args:
        scores: (P, H, W).
        threshold: positive.
        window: half the side of the window, in pixels; 0 makes every pixel above the threshold a peak.

    Returns:
        kinds: (K,) int64 keypoint kind of each peak, ascending.
        positions: (K, 2) int64, (y, x).
    """
    maps = float_array(scores.cpu())
    positions = in_threads(lambda kind: torch.from_numpy(_peaks(maps[kind], threshold, window)), range(len(maps)))
    counts = torch.tensor([len(found) for found in positions])
    kinds = torch.repeat_interleave(torch.arange(len(maps)), counts)
    return kinds.to(scores.device), torch.cat(positions).to(scores.device)


@njit(cache=True, nogil=True)
def _peaks(scores: np.ndarray, threshold: float, window: int) -> np.ndarray:
    """Peaks (K, 2) of one map; two of them are never in each other's window, which bounds their number."""
    height, width = scores.shape
    found = np.empty(((height // (window + 1) + 1) * (width // (window + 1) + 1), 2), dtype=np.int64)
    count = 0
    for y in range(height):
        for x in range(width):
            if scores[y, x] >= threshold and _is_peak(scores, y, x, window):
                found[count, 0], found[count, 1] = y, x
                count += 1
    return found[:count].copy()


@njit(cache=True, nogil=True)
def _is_peak(scores: np.ndarray, y: int, x: int, window: int) -> bool:
    """Whether nothing in the window is higher, or equal and earlier."""
    height, width = scores.shape
    score = scores[y, x]
    for row in range(max(0, y - window), min(height, y + window + 1)):
        for column in range(max(0, x - window), min(width, x + window + 1)):
            earlier = row < y or (row == y and column < x)
            if scores[row, column] > score or (earlier and scores[row, column] == score):
                return False
    return True


def breadth_first_edges(graph: KeypointGraph, start: int) -> tuple[int, ...]:
    """The edges, P - 1 of them, along which every other keypoint is reached from `start`, breadth first.

    In the star graph a corner reaches the centre first and the other corners from there; around the rectangle both
    neighbours come before the opposite corner.

    Raises:
        ValueError: a keypoint cannot be reached.
    """
    reached, edges = [start], []
    for source in reached:  # grows while it is read
        for number, (begin, end) in enumerate(graph.edges):
            if begin == source and end not in reached:
                reached.append(end)
                edges.append(number)
    if len(reached) < len(graph.keypoints):
        missing = [name for kind, name in enumerate(graph.keypoints) if kind not in reached]
        raise ValueError(
            f"expected a graph {graph.name!r} that joins all keypoints, got none of {missing} from "
            f"{graph.keypoints[start]!r}; add edges"
        )
    return tuple(edges)


def follow_edges(
    kinds: Tensor,
    positions: Tensor,
    middle_range: Tensor,
    short_range: Tensor,
    graph: KeypointGraph,
    *,
    refinements: int,
    max_correction: float,
) -> Tensor:
    """The keypoints of the instance that each candidate would form (step 4).

    Along an edge k -> l from y: m = M_{k,l}(y), then `refinements` times m <- m + S_l(y + m), sampled bilinearly and
    only where it is followed (the same as refining the whole map wherever y is a pixel).

    Args:
        kinds: (K,) int64.
        positions: (K, 2), (y, x) in pixels.
        middle_range: (E, 2, H, W), (dy, dx) in pixels.
        short_range: (P, 2, H, W), (dy, dx) in pixels.
        graph: its edges lead from a keypoint to the others.
        refinements: times that the short-range offsets refine; 2 in PersonLab.
        max_correction: longest correction that is believed, in pixels; infinity as in the paper.

    Returns:
        (K, P, 2), (y, x) in pixels; the candidate itself is in its own column.
    """
    num_kinds = len(graph.keypoints)
    paths = torch.tensor([breadth_first_edges(graph, start) for start in range(num_kinds)], device=kinds.device)
    ends = torch.tensor(graph.edges, device=kinds.device)
    candidates = torch.arange(len(kinds), device=kinds.device)
    keypoints = middle_range.new_zeros((len(kinds), num_kinds, 2), dtype=torch.float32)
    keypoints[candidates, kinds] = positions.float()
    for step in range(num_kinds - 1):
        edges = paths[kinds, step]  # (K,)
        sources, targets = ends[edges, 0], ends[edges, 1]
        start = keypoints[candidates, sources]
        reached = start + sample_bilinear(middle_range, edges, start)
        for _ in range(refinements):
            correction = sample_bilinear(short_range, targets, reached)
            believed = correction.square().sum(1, keepdim=True) <= max_correction**2
            reached = torch.where(believed, reached + correction, reached)
        keypoints[candidates, targets] = reached
    return keypoints


def keypoint_boxes(keypoints: Tensor) -> Tensor:
    """Boxes (N, 4) as x1 y1 x2 y2, x2 and y2 exclusive, of keypoints (N, P, 2) at pixel centres."""
    least, most = keypoints.amin(1), keypoints.amax(1) + 1
    return torch.stack([least[:, 1], least[:, 0], most[:, 1], most[:, 0]], dim=1)


def box_scales(keypoints: Tensor) -> Tensor:
    """The scale lambda of Expected-OKS, (N,): square root of the area of the box of keypoints (N, P, 2), at least 1."""
    left, top, right, bottom = keypoint_boxes(keypoints).unbind(1)
    return ((right - left) * (bottom - top)).sqrt()


def expected_oks(
    kinds: Tensor, positions: Tensor, scales: Tensor, heatmap: Tensor, scores: Tensor, *, radius: float, kappa: Tensor
) -> Tensor:
    """Expected-OKS of keypoints (PersonLab, Sec. 3.1.3): p(y) sum_x h(x) exp(-|x - y|^2 / (2 lambda^2 kappa^2)).

    The sum is over pixels x at most `radius` from y, where h is normalised to 1; p is the heatmap's probability.

    Args:
        kinds: (Q,) int64.
        positions: (Q, 2), (y, x) in pixels.
        scales: (Q,) lambda, from `box_scales` of the instance that the keypoint forms (`follow_edges`).
        heatmap: (P, H, W) logits.
        scores: (P, H, W), fused score maps h.
        radius: R, in pixels.
        kappa: (P,), how far a keypoint may be off, relative to the instance.

    Returns:
        (Q,), in [0, 1]; 0 where nothing voted in the disk.
    """
    rows, points = kinds.cpu().numpy(), float_array(positions.cpu())
    deviations = float_array((scales * kappa[kinds]).cpu())
    heatmaps, maps = padded_array(heatmap.cpu()), float_array(scores.cpu())

    def rescore(part: slice) -> np.ndarray:
        rescored: np.ndarray = _expected_oks(rows[part], points[part], deviations[part], heatmaps, maps, radius)
        return rescored

    return torch.from_numpy(np.concatenate(in_threads(rescore, split_range(len(rows))))).to(kinds.device)


@njit(cache=True, nogil=True)
def _expected_oks(
    kinds: np.ndarray,
    positions: np.ndarray,
    deviations: np.ndarray,
    heatmap: np.ndarray,
    scores: np.ndarray,
    radius: float,
) -> np.ndarray:
    """`expected_oks` of scores (P, H, W), heatmap (P, H', W'); deviations (Q,) are lambda times kappa, in pixels."""
    height, width = scores.shape[1:]
    result = np.zeros(kinds.size, dtype=np.float32)
    for number in range(kinds.size):
        kind, y, x = kinds[number], positions[number, 0], positions[number, 1]
        total, expected = 0.0, 0.0
        for row in range(max(0, math.ceil(y - radius)), min(height, math.floor(y + radius) + 1)):
            for column in range(max(0, math.ceil(x - radius)), min(width, math.floor(x + radius) + 1)):
                squared = (row - y) ** 2 + (column - x) ** 2
                score = scores[kind, row, column]
                if score > 0 and squared <= radius * radius:
                    total += score
                    expected += score * math.exp(-squared / (2 * deviations[number] ** 2))
        if total > 0:
            probability = _probability(heatmap[kind], height, width, y, x)
            result[number] = min(probability * expected / total, 1.0)
    return result


@njit(cache=True, nogil=True)
def _probability(heatmap: np.ndarray, height: int, width: int, y: float, x: float) -> float:
    """Probability at (y, x) of logits (H', W') of which (H, W) is the map, bilinear; outside, that of the border."""
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    probability = 0.0
    for row in range(top, min(top + 2, height)):
        for column in range(left, min(left + 2, width)):
            weight = (1 - abs(y - row)) * (1 - abs(x - column))
            probability += weight / (1 + math.exp(-heatmap[row, column]))
    return probability


def group_keypoints(
    kinds: Tensor, keypoints: Tensor, scores: Tensor, *, proximity: float, max_candidates: int | None = None
) -> Tensor:
    """The candidates that become instances, best first (step 4).

    Candidates come in the order of their scores, equal ones in the given order (a priority queue: scores do not change
    on the way). One is dropped if it is within `proximity` of the same keypoint of an instance already found.

    Args:
        kinds: (K,) int64.
        keypoints: (K, P, 2), (y, x) in pixels, from `follow_edges`.
        scores: (K,) of each candidate's own keypoint.
        proximity: r, in pixels, inclusive.
        max_candidates: stop after so many, the best; None goes on to the end. Time is quadratic without.

    Returns:
        (N,) int64 candidates.
    """
    arrays = (kinds.cpu().numpy(), float_array(keypoints.cpu()), float_array(scores.cpu()))
    most = len(kinds) if max_candidates is None else max_candidates
    return torch.from_numpy(_group(*arrays, proximity, most)).to(kinds.device)


@njit(cache=True, nogil=True)
def _group(kinds: np.ndarray, keypoints: np.ndarray, scores: np.ndarray, proximity: float, most: int) -> np.ndarray:
    kept = np.empty(kinds.size, dtype=np.int64)
    count = 0
    for candidate in np.argsort(-scores, kind="mergesort"):
        if count == most:
            break
        kind = kinds[candidate]
        is_new = True
        for instance in kept[:count]:
            dy = keypoints[candidate, kind, 0] - keypoints[instance, kind, 0]
            dx = keypoints[candidate, kind, 1] - keypoints[instance, kind, 1]
            if dy * dy + dx * dx <= proximity * proximity:
                is_new = False
                break
        if is_new:
            kept[count] = candidate
            count += 1
    return kept[:count]


def suppress_boxes(keypoints: Tensor, scores: Tensor, *, nms_threshold: float) -> Tensor:
    """Box non-maximum suppression of instances, best first: (N',) int64, those with no better one above the threshold.

    Args:
        keypoints: (N, P, 2), (y, x) in pixels.
        scores: (N,) of the instances.
        nms_threshold: intersection over union of boxes above which the lower score goes.
    """
    kept: Tensor = nms(keypoint_boxes(keypoints), scores, nms_threshold)
    return kept
