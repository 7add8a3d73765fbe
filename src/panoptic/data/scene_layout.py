"""What is where in a scene: the ground plan, and things standing on it in perspective."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from panoptic.data.scene_difficulty import Difficulty

VEHICLES = ("car", "truck", "bus")

_HEIGHTS = {"person": 0.72, "car": 0.34, "truck": 0.55, "bus": 0.52, "tree": 0.95, "ball": 0.15, "post": 0.85}
"""Height of each kind at the lower edge of the image, as a share of the scene's unit."""


@dataclass(frozen=True)
class Thing:
    """One thing to draw.

    Args:
        kind: name of its category, or "post" (clutter without one).
        x, y: where it stands, in pixels of the image, possibly outside it.
        height: in pixels.
        length: width in units of the height.
        mirrored: faces left.
        has_tie: a person wears one.
        in_crowd: part of the one crowd segment.
        has_rim: an unlabelled rim surrounds it.
    """

    kind: str
    x: float
    y: float
    height: float
    length: float
    mirrored: bool
    has_tie: bool = False
    in_crowd: bool = False
    has_rim: bool = False

    @cached_property
    def box(self) -> tuple[float, float, float, float]:
        """x1 y1 x2 y2 in pixels."""
        half = self.length * self.height / 2
        return self.x - half, self.y - self.height, self.x + half, self.y


def unit_of(size: tuple[int, int]) -> float:
    """The length in pixels that things and textures scale with, for an image of (H, W)."""
    return min(size[0], 0.75 * size[1])


def _draw_length(rng: np.random.Generator, kind: str) -> float:
    """Width of a thing of this kind in units of its height."""
    low, high = {
        "person": (0.5, 0.5),
        "car": (2.2, 2.7),
        "truck": (1.9, 2.5),
        "bus": (2.4, 3.1),
        "tree": (0.6, 0.9),
        "ball": (1.0, 1.0),
        "post": (0.14, 0.24),
    }[kind]
    return float(rng.uniform(low, high))


class Layout:
    """Places the things of one scene, one call after the other, and keeps them in `things`.

    Args:
        rng: consumed.
        size: (H, W) in pixels.
        horizon: row of the horizon in pixels.
        is_road: (H, W) bool.
        difficulty: how many, how large, how crowded.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        size: tuple[int, int],
        horizon: float,
        is_road: np.ndarray,
        difficulty: Difficulty,
    ) -> None:
        self.rng = rng
        self.size = size
        self.horizon = horizon
        self.is_road = is_road
        self.difficulty = difficulty
        self.things: list[Thing] = []

    def fill(self) -> None:
        """Place everything, large groups first, then sort from far to near."""
        rng, rules = self.rng, self.difficulty
        if rng.random() < rules.crowd:
            self._place_crowd()
        if rng.random() < rules.row:
            self._place_car_row()
        kinds = [VEHICLES[rng.integers(3)] for _ in range(rng.integers(rules.vehicles[0], rules.vehicles[1] + 1))]
        kinds += ["person"] * int(rng.integers(rules.people[0], rules.people[1] + 1))
        kinds += ["tree"] * int(rng.integers(rules.trees[0], rules.trees[1] + 1))
        kinds += ["post"] * int(rng.integers(rules.posts[0], rules.posts[1] + 1))
        groups = int(rng.integers(rules.ball_groups[0], rules.ball_groups[1] + 1))
        if not kinds and not groups:
            kinds = ["person"]
        for kind in kinds:
            self._place(kind)
        for _ in range(groups):
            self._place_balls(int(rng.integers(rules.balls[0], rules.balls[1] + 1)))
        self.things.sort(key=lambda thing: (thing.y, thing.x))

    def _height(self, kind: str, depth: float) -> float:
        """Pixels of a thing at `depth`, 1 at the lower edge and 0 at the horizon, not below its smallest."""
        unit = unit_of(self.size)
        share = _HEIGHTS[kind] * (0.12 + 0.88 * depth) * self.rng.uniform(0.85, 1.15)
        least = self.difficulty.smallest_ball if kind == "ball" else 0.0
        smallest = self.difficulty.smallest.get(kind, 0.0) * self.rng.uniform(1.0, 1.25) * unit
        return max(share * unit, smallest, least)

    def _candidate(self, kind: str, far: float, near: float, margin: float = 0.0) -> Thing:
        """A thing at random depth and place; it may reach out of the frame by some of its width."""
        rng, (height, width) = self.rng, self.size
        depth = float(rng.uniform(far, near))
        y = self.horizon + (height - self.horizon) * depth
        tall, length = self._height(kind, depth), _draw_length(rng, kind)
        inset = tall * length * (0.5 if self.difficulty.overlap < 0.5 else 0.1) + margin
        x = rng.uniform(min(inset, width / 2), max(width - inset, width / 2))
        return Thing(
            kind=kind,
            x=float(x),
            y=float(y),
            height=float(tall),
            length=length,
            mirrored=bool(rng.random() < 0.5),
            has_tie=kind == "person" and bool(rng.random() < self.difficulty.tie),
            has_rim=kind != "post" and bool(rng.random() < self.difficulty.rim),
        )

    def _fits(self, thing: Thing, strict_ground: bool) -> bool:
        """Stands on the right ground and is not hidden, nor hides another, too much."""
        row = min(max(int(thing.y) - 1, 0), self.size[0] - 1)
        column = min(max(int(thing.x), 0), self.size[1] - 1)
        if strict_ground and thing.kind in VEHICLES and not self.is_road[row, column]:
            return False
        if strict_ground and thing.kind in ("tree", "post") and self.is_road[row, column]:
            return False
        return all(_covered_share(thing, other) <= self.difficulty.overlap for other in self.things)

    def _place(self, kind: str) -> None:
        """Try some places; a thing that finds none is left out."""
        for attempt in range(12):
            thing = self._candidate(kind, self.difficulty.farthest, self.difficulty.nearest)
            if self._fits(thing, strict_ground=attempt < 8):
                self.things.append(thing)
                return

    def _place_row(self, first: Thing, count: int, spacing: float) -> None:
        """The thing and its neighbours to the right, side by side and touching."""
        rng = self.rng
        step = first.height * first.length * spacing
        row = [
            replace(first, x=first.x + number * step, y=first.y + float(rng.uniform(-0.01, 0.01)) * first.height)
            for number in range(count)
        ]
        if all(_covered_share(thing, other) <= self.difficulty.overlap for thing in row for other in self.things):
            self.things.extend(row)

    def _place_car_row(self) -> None:
        """Two to four parked cars, bumper to bumper."""
        rng, rules = self.rng, self.difficulty
        middle = (rules.farthest + rules.nearest) / 2
        count = int(rng.integers(2, 3 if rules.overlap < 0.5 else 5))
        first = replace(self._candidate("car", rules.farthest, middle), has_rim=False)
        self._place_row(replace(first, x=float(rng.uniform(0.1, 0.3)) * self.size[1]), count, 0.985)

    def _place_balls(self, count: int) -> None:
        """Balls lying together: in a touching row, or strewn over a patch."""
        rng, rules = self.rng, self.difficulty
        far, near = rules.farthest, min(rules.nearest, 0.98)
        if rng.random() < 0.4:
            first = replace(self._candidate("ball", far, near), has_rim=False)
            start = min(first.x, max(first.height, self.size[1] - count * first.height))
            self._place_row(replace(first, x=start), count, 0.96)
            return
        centre = self._candidate("ball", far, near)
        spread = centre.height * 1.2 * count**0.5
        for _ in range(count):
            y = min(max(centre.y + rng.normal(0, 0.5) * spread, self.horizon + 2), self.size[0] - 1)
            depth = (y - self.horizon) / (self.size[0] - self.horizon)
            tall = self._height("ball", depth)
            x = centre.x + float(rng.normal(0, 1)) * spread
            ball = Thing(kind="ball", x=x, y=float(y), height=tall, length=1.0, mirrored=False)
            if self._fits(ball, strict_ground=False) and 0 < x < self.size[1]:
                self.things.append(ball)

    def _place_crowd(self) -> None:
        """People far away, in one overlapping bunch that nobody separated."""
        rng, unit, (height, width) = self.rng, unit_of(self.size), self.size
        tall = unit * float(rng.uniform(0.16, 0.22))
        x, y = float(rng.uniform(0.05, 0.75)) * width, self.horizon + 0.06 * (height - self.horizon)
        for number in range(int(rng.integers(5, 11))):
            self.things.append(
                Thing(
                    kind="person",
                    x=x + tall * 0.32 * (number + float(rng.uniform(-0.3, 0.3))),
                    y=y + tall * float(rng.uniform(0, 0.2)),
                    height=tall * float(rng.uniform(0.85, 1.1)),
                    length=0.5,
                    mirrored=False,
                    in_crowd=True,
                )
            )


def _covered_share(first: Thing, second: Thing) -> float:
    """Overlap of two boxes as a share of the smaller one."""
    a, b = first.box, second.box
    columns, rows = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if columns <= 0 or rows <= 0:
        return 0.0
    return columns * rows / max(1e-9, min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])))
