"""How hard scenes are to read: how many things, how large, how crowded, how noisy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difficulty:
    """How full and how hard to read scenes are; ranges are inclusive, shares and probabilities in [0, 1].

    Args:
        people, vehicles, ball_groups, trees, posts: how many of each.
        balls: in one group.
        nearest, farthest: where things stand, 1 at the lower edge of the image, 0 at the horizon.
        smallest: {kind: least height as a share of the scene's unit}.
        smallest_ball: diameter in pixels.
        overlap: largest share of a thing's box that an earlier one may cover when it is placed.
        tie, row, crowd, rim, edge_strip, kerb: probabilities of a tie on a person, cars parked in a row, a far
            crowd, an unlabelled rim around a thing, at an image edge and along the road.
        windows: probability that the wall has windows and the ground litter.
        noise: half the width of the sensor noise, in grey levels.
    """

    people: tuple[int, int]
    vehicles: tuple[int, int]
    ball_groups: tuple[int, int]
    balls: tuple[int, int]
    trees: tuple[int, int]
    posts: tuple[int, int]
    farthest: float
    nearest: float
    smallest: dict[str, float]
    smallest_ball: float
    overlap: float
    tie: float
    row: float
    crowd: float
    rim: float
    edge_strip: float
    kerb: float
    windows: float
    noise: float


DIFFICULTIES = {
    "easy": Difficulty(
        people=(0, 2),
        vehicles=(0, 2),
        ball_groups=(0, 2),
        balls=(1, 4),
        trees=(0, 1),
        posts=(0, 0),
        farthest=0.38,
        nearest=0.9,
        smallest={"person": 0.52, "car": 0.2, "truck": 0.32, "bus": 0.32, "tree": 0.5, "ball": 0.115},
        smallest_ball=10.0,
        overlap=0.08,
        tie=0.75,
        row=0.12,
        crowd=0.08,
        rim=0.1,
        edge_strip=0.15,
        kerb=0.3,
        windows=0.0,
        noise=8.0,
    ),
    "hard": Difficulty(
        people=(0, 5),
        vehicles=(0, 4),
        ball_groups=(0, 3),
        balls=(2, 10),
        trees=(0, 3),
        posts=(0, 3),
        farthest=0.08,
        nearest=1.1,
        smallest={},
        smallest_ball=4.0,
        overlap=0.75,
        tie=0.6,
        row=0.35,
        crowd=0.3,
        rim=0.12,
        edge_strip=0.25,
        kerb=0.4,
        windows=0.6,
        noise=16.0,
    ),
}
