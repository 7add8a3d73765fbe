"""The Fusion Scheme (Sec. IV) one pixel at a time, from the text of the paper."""

import numpy as np
from oracles.merging import areas_of_one_value

Owner = tuple[str, int]
"""("detection", number), ("region", number) or ("stuff", category)."""


def fuse(
    probabilities: np.ndarray,
    masks: list[np.ndarray],
    category_ids: list[int],
    scores: list[float],
    *,
    groups: list[str | None],
    is_thing: list[bool],
    min_area: int,
) -> tuple[dict[tuple[int, int], Owner], np.ndarray, list[tuple[int, float]]]:
    """Owners of the pixels, the semantic map, and (category, score) of the regions that became instances.

    Args:
        probabilities: (C, H, W) of each pixel.
        masks: N of (H, W).
        category_ids: N, of things.
        scores: N, all different.
        groups: C names; None is a group of its own.
        is_thing: C.
        min_area: of regions.
    """
    semantic_map = probabilities.argmax(0)
    foreground = {pixel for pixel in np.ndindex(*semantic_map.shape) if is_thing[semantic_map[pixel]]}
    group_of = {
        pixel: groups[semantic_map[pixel]] or f"the group of {semantic_map[pixel]} alone" for pixel in foreground
    }
    labels: dict[tuple[int, int], int] = {}
    for pixel in foreground:
        matching = [
            number
            for number, category_id in enumerate(category_ids)
            if masks[number][pixel] and (groups[category_id] or f"the group of {category_id} alone") == group_of[pixel]
        ]
        if matching:
            labels[pixel] = max(matching, key=lambda number: scores[number])
    filled = {pixel: nearest_label(pixel, group_of, labels, scores) for pixel in foreground}
    owners: dict[tuple[int, int], Owner] = {
        pixel: ("stuff", int(semantic_map[pixel])) for pixel in np.ndindex(*semantic_map.shape) if pixel not in group_of
    }
    refined = semantic_map.copy()
    for pixel, label in filled.items():
        if label is not None:
            owners[pixel] = ("detection", label)
            refined[pixel] = category_ids[label]
    isolated = {pixel for pixel in foreground if filled[pixel] is None}
    regions = []
    for region in areas_of_one_value(semantic_map, isolated, diagonal=False):
        if len(region) >= min_area:
            category_id = int(semantic_map[min(region)])
            owners |= dict.fromkeys(region, ("region", len(regions)))
            regions.append((category_id, float(np.mean([probabilities[(category_id, *pixel)] for pixel in region]))))
    return owners, refined, regions


def nearest_label(
    pixel: tuple[int, int],
    group_of: dict[tuple[int, int], str],
    labels: dict[tuple[int, int], int],
    scores: list[float],
) -> int | None:
    """The best label at the least number of steps from a pixel, between pixels of its group; None if none is reached.

    All pixels at 0, 1, 2, ... steps from this one are looked at, until some of them have a label.
    """
    seen, front = {pixel}, {pixel}
    while front:
        found = {labels[other] for other in front if other in labels}
        if found:
            return max(found, key=lambda number: scores[number])
        around = {(y + down, x + along) for y, x in front for down, along in ((-1, 0), (0, -1), (0, 1), (1, 0))}
        front = {other for other in around if group_of.get(other) == group_of[pixel]} - seen
        seen |= front
    return None
