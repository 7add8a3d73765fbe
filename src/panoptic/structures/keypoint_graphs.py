"""Keypoints of an instance and the edges between them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KeypointGraph:
    """Keypoints of an instance and the directed edges along which middle-range offsets point (DeeperLab, Sec. 3.3.2).

    Args:
        name: "star" or "rectangle".
        keypoints: names of the P keypoint kinds, out of `top_left, top_right, bottom_right, bottom_left, centre`.
        edges: E directed edges (source, target), indices into `keypoints`.
    """

    name: str
    keypoints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]


STAR = KeypointGraph(
    name="star",
    keypoints=("top_left", "top_right", "bottom_right", "bottom_left", "centre"),
    edges=((4, 0), (4, 1), (4, 2), (4, 3), (0, 4), (1, 4), (2, 4), (3, 4)),
)
"""The mass centre joined with each corner, both ways: P = 5, E = 8 (DeeperLab, Fig. 4d)."""

RECTANGLE = KeypointGraph(
    name="rectangle",
    keypoints=("top_left", "top_right", "bottom_right", "bottom_left"),
    edges=((0, 1), (1, 2), (2, 3), (3, 0), (1, 0), (2, 1), (3, 2), (0, 3)),
)
"""The corners around the box, both ways, without the centre: P = 4, E = 8 (DeeperLab, Table 6)."""
