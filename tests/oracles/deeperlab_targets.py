"""DeeperLab's targets pixel by pixel (Sec. 3.3), from the ids of a map."""

import numpy as np

from panoptic.structures import PanopticMap


def instance_ids(panoptic_map: PanopticMap, is_thing: list[bool]) -> list[int]:
    """Ids of non-crowd things with at least a pixel, by their first pixel in reading order."""
    wanted = {s.id for s in panoptic_map.segments if is_thing[s.category_id] and not s.is_crowd}
    found: list[int] = []
    for row in panoptic_map.segment_ids.tolist():
        for segment_id in row:
            if segment_id in wanted and segment_id not in found:
                found.append(segment_id)
    return found


def keypoints_of(panoptic_map: PanopticMap, segment_id: int) -> dict[str, tuple[float, float]]:
    """Extreme pixels and mean pixel of one segment, as (y, x)."""
    pixels = [tuple(pixel) for pixel in (panoptic_map.segment_ids == segment_id).nonzero().tolist()]
    ys, xs = [y for y, _ in pixels], [x for _, x in pixels]
    return {
        "top_left": (min(ys), min(xs)),
        "top_right": (min(ys), max(xs)),
        "bottom_right": (max(ys), max(xs)),
        "bottom_left": (max(ys), min(xs)),
        "centre": (sum(ys) / len(ys), sum(xs) / len(xs)),
    }


def disk_owner(keypoints: np.ndarray, size: tuple[int, int], radius: float) -> np.ndarray:
    """(P, H, W) owners from keypoints (N, P, 2) float32: the least of all distances within the radius."""
    num_instances, num_kinds, _ = keypoints.shape
    owner = np.zeros((num_kinds, *size), dtype=np.int64)
    for kind, y, x in np.ndindex(*owner.shape):
        best = np.float32(radius) ** 2
        for row in range(num_instances):
            dy, dx = np.float32(y) - keypoints[row, kind, 0], np.float32(x) - keypoints[row, kind, 1]
            squared = dy * dy + dx * dx
            if squared < best or (squared == best and owner[kind, y, x] == 0):
                best, owner[kind, y, x] = squared, row + 1
    return owner


def offsets_to(
    keypoints: np.ndarray, owner: np.ndarray, valid: np.ndarray, kinds: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (K, 2, H, W) to keypoint kinds[k] of the owner (K, H, W) of each valid pixel, and where active."""
    offsets = np.zeros((len(owner), 2, *owner.shape[1:]), dtype=np.float32)
    active = np.zeros(owner.shape, dtype=bool)
    for k, y, x in np.ndindex(*owner.shape):
        if owner[k, y, x] > 0 and valid[y, x]:
            target_y, target_x = keypoints[owner[k, y, x] - 1, kinds[k]]
            offsets[k, :, y, x] = target_y - y, target_x - x
            active[k, y, x] = True
    return offsets, active
