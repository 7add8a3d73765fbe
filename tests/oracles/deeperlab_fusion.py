"""DeeperLab's fusion step by step (Sec. 3.4), one pixel, keypoint or instance at a time, in double precision."""

import heapq
import math

import numpy as np


def bilinear(field: np.ndarray, y: float, x: float) -> np.ndarray:
    """Value (D,) of a field (D, H, W) at (y, x): hat functions of the pixels; outside goes to the border."""
    _, height, width = field.shape
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    total = np.zeros(len(field))
    for row in range(max(0, int(y) - 1), min(height, int(y) + 3)):
        for column in range(max(0, int(x) - 1), min(width, int(x) + 3)):
            total += max(0, 1 - abs(y - row)) * max(0, 1 - abs(x - column)) * field[:, row, column]
    return total


def corrected(vector: np.ndarray, correction: np.ndarray, longest: float) -> np.ndarray:
    """The vector plus a correction that is not too long."""
    return vector + correction if np.linalg.norm(correction) <= longest else vector


def refine_long_range(
    long_range: np.ndarray, short_range: np.ndarray, is_thing: np.ndarray, refinements: int, longest: float
) -> np.ndarray:
    """x + L(x) (P, H, W, 2), after both refinements; L is 0 outside things."""
    num_kinds, _, height, width = long_range.shape
    located = np.zeros((num_kinds, height, width, 2))
    for kind in range(num_kinds):
        field = np.where(is_thing, long_range[kind], 0).astype(float)
        for source in [None] * refinements + [short_range[kind]] * refinements:
            before = field.copy()
            for y, x in np.argwhere(is_thing):
                at = before[:, y, x] + (y, x)
                correction = bilinear(before if source is None else source, *at)
                field[:, y, x] = corrected(before[:, y, x], correction, longest)
        for y, x in np.ndindex(height, width):
            located[kind, y, x] = field[:, y, x] + (y, x)
    return located


def hough_map(votes: list[tuple[float, float, float]], size: tuple[int, int], radius: float) -> np.ndarray:
    """1 / (pi R^2) times the sum of weights (y, x, weight) under the bilinear kernel at every pixel (H, W)."""
    scores = np.zeros(size)
    for y, x in np.ndindex(*size):
        for vote_y, vote_x, weight in votes:
            scores[y, x] += weight * max(0, 1 - abs(vote_y - y)) * max(0, 1 - abs(vote_x - x))
    return scores / (math.pi * radius**2)


def short_range_votes(
    probabilities: np.ndarray, short_range: np.ndarray, threshold: float
) -> list[tuple[float, float, float]]:
    """Votes of one kind: probabilities (H, W), short_range (2, H, W)."""
    return [
        (y + short_range[0, y, x], x + short_range[1, y, x], probabilities[y, x])
        for y, x in np.ndindex(*probabilities.shape)
        if probabilities[y, x] >= threshold
    ]


def peaks(scores: np.ndarray, threshold: float, window: int) -> list[tuple[int, int]]:
    """Pixels of (H, W) that come first in their window by (higher score, earlier position)."""
    found = []
    for y, x in np.ndindex(*scores.shape):
        neighbours = [
            (-scores[row, column], row, column)
            for row, column in np.ndindex(*scores.shape)
            if max(abs(row - y), abs(column - x)) <= window
        ]
        if scores[y, x] >= threshold and min(neighbours) == (-scores[y, x], y, x):
            found.append((y, x))
    return found


def all_keypoints(
    kind: int,
    position: np.ndarray,
    middle_range: np.ndarray,
    short_range: np.ndarray,
    edges: tuple[tuple[int, int], ...],
    refinements: int,
    longest: float,
) -> np.ndarray:
    """All keypoints reached from one, (P, 2): in each round, edges leave those found in the round before."""
    found = {kind: np.asarray(position, dtype=float)}
    frontier = [kind]
    while frontier:
        following = []
        for source in frontier:
            for number, (begin, end) in enumerate(edges):
                if begin == source and end not in found:
                    vector = bilinear(middle_range[number], *found[source])
                    for _ in range(refinements):
                        vector = corrected(vector, bilinear(short_range[end], *(found[source] + vector)), longest)
                    found[end] = found[source] + vector
                    following.append(end)
        frontier = following
    return np.stack([found[number] for number in range(len(short_range))])


def expected_oks(
    position: np.ndarray,
    keypoints: np.ndarray,
    probabilities: np.ndarray,
    scores: np.ndarray,
    radius: float,
    kappa: float,
) -> float:
    """Expected-OKS of a keypoint of the instance `keypoints` (P, 2); probabilities and scores (H, W) of its kind."""
    extent = keypoints.max(0) - keypoints.min(0) + 1
    scale = math.sqrt(extent[0] * extent[1])
    disk = [
        (pixel, math.dist(pixel, position))
        for pixel in np.ndindex(*scores.shape)
        if math.dist(pixel, position) <= radius
    ]
    total = sum(scores[pixel] for pixel, _ in disk)
    if total == 0:
        return 0.0
    expected = sum(scores[pixel] / total * math.exp(-(d**2) / (2 * scale**2 * kappa**2)) for pixel, d in disk)
    return float(bilinear(probabilities[None], *position)[0] * expected)


def group(kinds: list[int], keypoints: np.ndarray, scores: list[float], proximity: float) -> list[int]:
    """Greedy grouping of candidates (K, P, 2) with a priority queue."""
    queue = [(-score, candidate) for candidate, score in enumerate(scores)]
    heapq.heapify(queue)
    kept: list[int] = []
    while queue:
        _, candidate = heapq.heappop(queue)
        kind = kinds[candidate]
        if all(math.dist(keypoints[candidate, kind], keypoints[other, kind]) > proximity for other in kept):
            kept.append(candidate)
    return kept


def suppress(boxes: np.ndarray, scores: list[float], threshold: float) -> list[int]:
    """Boxes (N, 4) as y1 x1 y2 x2 that no better one overlaps by more than the threshold, best first."""
    kept: list[int] = []
    for number in sorted(range(len(boxes)), key=lambda n: -scores[n]):
        if all(_box_iou(boxes[number], boxes[other]) <= threshold for other in kept):
            kept.append(number)
    return kept


def _box_iou(one: np.ndarray, other: np.ndarray) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = np.prod(np.maximum(sides, 0))
    return float(shared / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared))


def nearest_instance(located: np.ndarray, keypoints: np.ndarray) -> tuple[int, float]:
    """The instance of (N, P, 2) nearest to keypoints (P, 2) seen by one pixel, and by how much it is nearer."""
    distances = [math.sqrt(((located - points) ** 2).sum()) for points in keypoints]
    ordered = sorted(distances)
    return distances.index(ordered[0]), ordered[1] - ordered[0] if len(ordered) > 1 else math.inf


def majority(owners: list[int], category_ids: list[int], instance: int) -> int | None:
    """The most frequent category among the pixels of an instance, the lowest of equal ones; None without pixels."""
    labels = [label for owner, label in zip(owners, category_ids, strict=True) if owner == instance]
    return min(sorted(set(labels)), key=lambda label: -labels.count(label)) if labels else None


def fuse(
    outputs: dict[str, np.ndarray],
    is_thing: list[bool],
    edges: tuple[tuple[int, int], ...],
    *,
    radius: float,
    peak_threshold: float,
    vote_threshold: float,
    nms_threshold: float,
    kappa: float = 0.1,
) -> tuple[np.ndarray, dict[int, tuple[int, float | None]]]:
    """A whole image with the default weights and refinements: ids (H, W) and {id: (category, score)}.

    Ids: stuff by category, then instances by score; without instances all categories in order.
    """
    semantic = outputs["semantic"].argmax(0)
    size, num_kinds = semantic.shape, len(outputs["heatmap"])
    things = np.array(is_thing)[semantic]
    located = refine_long_range(outputs["long_range"], outputs["short_range"], things, 2, radius)
    probabilities = 1 / (1 + np.exp(-outputs["heatmap"]))
    scores, kinds, positions, forms = [], [], [], []
    for kind in range(num_kinds):
        votes = short_range_votes(probabilities[kind], outputs["short_range"][kind], vote_threshold)
        votes += [(*located[kind, y, x], 1.0) for y, x in np.argwhere(things)]
        scores.append(hough_map(votes, size, radius))
        for position in peaks(scores[kind], peak_threshold, max(1, round(radius / 5))):
            kinds.append(kind)
            positions.append(position)
            fields = (outputs["middle_range"], outputs["short_range"])
            forms.append(all_keypoints(kind, np.array(position), *fields, edges, 2, radius))

    def score(kind: int, position: np.ndarray, form: np.ndarray) -> float:
        return expected_oks(position, form, probabilities[kind], scores[kind], radius, kappa)

    singles = [score(kind, position, form) for kind, position, form in zip(kinds, positions, forms, strict=True)]
    found = [forms[n] for n in (group(kinds, np.array(forms), singles, 0.4 * radius) if forms else [])]
    means = [float(np.mean([score(kind, form[kind], form) for kind in range(num_kinds)])) for form in found]
    kept = suppress(np.array([[*f.min(0), *(f.max(0) + 1)] for f in found]), means, nms_threshold)
    return _paste(semantic, things, is_thing, located, [found[n] for n in kept], [means[n] for n in kept])


def _paste(
    semantic: np.ndarray,
    things: np.ndarray,
    is_thing: list[bool],
    located: np.ndarray,
    instances: list[np.ndarray],
    scores: list[float],
) -> tuple[np.ndarray, dict[int, tuple[int, float | None]]]:
    ids = np.zeros(semantic.shape, dtype=np.int64)
    table: dict[int, tuple[int, float | None]] = {}
    for category in range(len(is_thing)):
        if (semantic == category).any() and not (instances and is_thing[category]):
            table[len(table) + 1] = (category, None)
            ids[semantic == category] = len(table)
    if instances:
        pixels = [tuple(pixel) for pixel in np.argwhere(things)]
        owners = [nearest_instance(located[:, y, x], np.stack(instances))[0] for y, x in pixels]
        for instance, score in enumerate(scores):
            winner = majority(owners, [int(semantic[pixel]) for pixel in pixels], instance)
            if winner is not None:
                table[len(table) + 1] = (winner, score)
                for pixel, owner in zip(pixels, owners, strict=True):
                    if owner == instance:
                        ids[pixel] = len(table)
    return ids, table
