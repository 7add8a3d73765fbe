"""Compiled loops of the region growing: matching, growth, and the maps that come of them.

All of them work on owners, (H + 2, W + 2) int32 with a border of background: an instance 0..N-1, -1 on background, and
-1 - g on pixels of things of group g >= 1 that have no owner.
"""

from __future__ import annotations

import numpy as np
from numba import njit

BACKGROUND = -1


@njit(cache=True, nogil=True)
def match_rows(
    windows: np.ndarray,
    starts: np.ndarray,
    pixels: np.ndarray,
    instance_groups: np.ndarray,
    groups: np.ndarray,
    semantic_map: np.ndarray,
    owners: np.ndarray,
    start: int,
    stop: int,
) -> int:
    """Pixels of rows start..stop to the first instance whose mask has them and whose group is theirs.

    Args:
        windows: (N, 4) of `PastedMasks`, best first.
        starts: (N,) of `PastedMasks`.
        pixels: (K,) of `PastedMasks`.
        instance_groups: (N,) int32 group of each instance.
        groups: (C,) int32 group of each category, 0 for stuff.
        semantic_map: (H, W) uint8 category ids.
        owners: (H + 2, W + 2), written; its border is not.
        start: first row.
        stop: last row, exclusive.

    Returns:
        How many pixels of things have no owner.
    """
    for y in range(start, stop):
        inner, row = owners[y + 1, 1:-1], semantic_map[y]
        for x in range(row.size):
            inner[x] = BACKGROUND - groups[row[x]]
    for number in range(len(windows)):
        left, top, right, bottom = windows[number]
        free, width = BACKGROUND - instance_groups[number], right - left
        for y in range(max(top, start), min(bottom, stop)):
            first = starts[number] + (y - top) * width
            inner, mask = owners[y + 1, left + 1 : right + 1], pixels[first : first + width]
            for x in range(width):
                inner[x] = number if mask[x] & (inner[x] == free) else inner[x]
    count = 0
    for y in range(start, stop):
        inner = owners[y + 1, 1:-1]
        for x in range(inner.size):
            count += inner[x] < BACKGROUND
    return count


@njit(cache=True, nogil=True)
def grow(owners: np.ndarray, instance_groups: np.ndarray, num_free: int) -> int:
    """Give pixels without owner that of the nearest owned pixel of their group, in place.

    Nearest along paths of 4-neighbours inside the group; of several as near, the first instance's. The queue is in the
    order of distance and, at the same distance, of instances: it starts so, and what is reached is appended in the
    order of what it is reached from. Therefore the first to reach a pixel is the one that it belongs to.

    Args:
        owners: (H + 2, W + 2), C-contiguous.
        instance_groups: (N,) int32 group of each instance.
        num_free: how many pixels have no owner.

    Returns:
        How many still have none.
    """
    flat, width = owners.reshape(-1), owners.shape[1]
    neighbours = np.array([-width, -1, 1, width])
    queue = np.empty(num_free, dtype=np.int32)
    first, last = 0, _start_queue(owners, instance_groups, queue)
    while first < last:
        pixel = queue[first]
        owner = flat[pixel]
        free = BACKGROUND - instance_groups[owner]
        for offset in neighbours:
            if flat[pixel + offset] == free:
                flat[pixel + offset] = owner
                queue[last] = pixel + offset
                last += 1
        first += 1
    return num_free - last


@njit(cache=True, nogil=True)
def _start_queue(owners: np.ndarray, instance_groups: np.ndarray, queue: np.ndarray) -> int:
    """Pixels without owner beside owned ones of their group: owned by the first of these, and queued by owner.

    Returns:
        How many there are.
    """
    flat, width = owners.reshape(-1), owners.shape[1]
    neighbours = np.array([-width, -1, 1, width])
    pixels, new_owners = np.empty_like(queue), np.empty_like(queue)
    places = np.zeros(instance_groups.size + 1, dtype=np.int64)
    count = 0
    for y in range(1, owners.shape[0] - 1):
        for pixel in range(y * width + 1, (y + 1) * width - 1):
            free = flat[pixel]
            if free >= BACKGROUND:
                continue
            owner = instance_groups.size
            for offset in neighbours:
                found = flat[pixel + offset]
                if 0 <= found < owner and BACKGROUND - instance_groups[found] == free:
                    owner = found
            if owner < instance_groups.size:
                pixels[count], new_owners[count] = pixel, owner
                places[owner + 1] += 1
                count += 1
    places = np.cumsum(places)  # where the pixels of each owner begin in the queue
    for number in range(count):
        owner = new_owners[number]
        flat[pixels[number]] = owner
        queue[places[owner]] = pixels[number]
        places[owner] += 1
    return count


@njit(cache=True, nogil=True)
def measure_rows(
    owners: np.ndarray, semantic_map: np.ndarray, num_categories: int, boxes: np.ndarray, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of each instance and of each category of background in rows start..stop.

    Args:
        owners: (H + 2, W + 2).
        semantic_map: (H, W) uint8 category ids.
        num_categories: C.
        boxes: (N, 4) int64, extended so that they hold the pixels of each instance: x1 y1 x2 y2, x2 and y2 exclusive.
        start: first row.
        stop: last row, exclusive.

    Returns:
        areas: (N,) int64.
        background_areas: (C,) int64.
    """
    areas, background_areas = np.zeros(len(boxes), dtype=np.int64), np.zeros(num_categories, dtype=np.int64)
    for y in range(start, stop):
        inner, row = owners[y + 1, 1:-1], semantic_map[y]
        begin = 0
        for x in range(1, row.size + 1):
            if x < row.size and inner[x] == inner[begin] and row[x] == row[begin]:
                continue
            owner = inner[begin]
            if owner == BACKGROUND:
                background_areas[row[begin]] += x - begin
            elif owner >= 0:
                areas[owner] += x - begin
                box = boxes[owner]
                box[0], box[1] = min(box[0], begin), min(box[1], y)
                box[2], box[3] = max(box[2], x), max(box[3], y + 1)
            begin = x
    return areas, background_areas


@njit(cache=True, nogil=True)
def write_rows(
    owners: np.ndarray,
    categories: np.ndarray,
    rows_of_instances: np.ndarray,
    category_ids: np.ndarray,
    background_ids: np.ndarray,
    segment_ids: np.ndarray,
    semantic_map: np.ndarray,
    masks: np.ndarray,
    start: int,
    stop: int,
) -> None:
    """What `owners` say, as the maps of the result, in rows start..stop.

    Args:
        owners: (H + 2, W + 2).
        categories: (H, W) uint8 category ids, of the pixels by themselves.
        rows_of_instances: (N,) int64 row in `masks` of each instance that has pixels; its segment id less one.
        category_ids: (N,) int64 category of each instance.
        background_ids: (C,) int64 segment id of each category of background.
        segment_ids: (H, W) int64, written; things without owner are void.
        semantic_map: (H, W) int64, written; things without owner keep their category.
        masks: (M, H, W) bool, written where an instance is.
        start: first row.
        stop: last row, exclusive.
    """
    width = categories.shape[1]
    for y in range(start, stop):
        inner, row = owners[y + 1, 1:-1], categories[y]
        begin = 0
        while begin < width:
            owner, end = inner[begin], begin
            if owner >= 0:
                while end < width and inner[end] == owner:
                    end += 1
                instance = rows_of_instances[owner]
                segment_ids[y, begin:end] = instance + 1
                semantic_map[y, begin:end] = category_ids[owner]
                masks[instance, y, begin:end] = True
            else:
                while end < width and inner[end] < 0:
                    segment_ids[y, end] = background_ids[row[end]] if inner[end] == BACKGROUND else 0
                    semantic_map[y, end] = row[end]
                    end += 1
            begin = end
