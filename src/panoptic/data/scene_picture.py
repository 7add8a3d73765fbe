"""From a random generator to a finished scene: picture, label map and amodal masks, painted from far to near."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from panoptic.data.scene_difficulty import Difficulty
from panoptic.data.scene_ground import GRASS, ROAD, draw_ground
from panoptic.data.scene_layout import Layout, Thing, unit_of
from panoptic.data.scene_sprites import Sprite, develop, paste, unlabel_rim
from panoptic.data.scene_things import DRAWERS, bounds_of, shading

FIRST_THING = GRASS + 1
"""Labels from here on are things."""

_NO_LABEL = -1


@dataclass(frozen=True)
class ThingMask:
    """One thing of the picture.

    Args:
        label: in the label map.
        kind: name of its category.
        mask: (H, W) bool, amodal: all of it inside the frame, hidden or not.
        is_crowd: a bunch of people nobody separated.
        wearer: label of the person who wears this tie, else None.
    """

    label: int
    kind: str
    mask: np.ndarray
    is_crowd: bool = False
    wearer: int | None = None


@dataclass(frozen=True)
class Picture:
    """A drawn scene.

    Args:
        image: (H, W, 3) uint8, RGB.
        labels: (H, W) int32; 0 void, 1..4 stuff as in `scene_ground`, then the labels of `things`.
        things: from far to near.
    """

    image: np.ndarray
    labels: np.ndarray
    things: list[ThingMask]


def draw_picture(rng: np.random.Generator, size: tuple[int, int], difficulty: Difficulty) -> Picture:
    """Draw one scene of (H, W) pixels."""
    ground = draw_ground(rng, size, difficulty)
    layout = Layout(rng, size, ground.horizon, ground.labels == ROAD, difficulty)
    layout.fill()
    easel = _Easel(rng, ground.image, ground.labels)
    for thing in layout.things:
        easel.add(thing)
    if rng.random() < difficulty.edge_strip:
        _unlabel_edge(rng, easel.image, easel.labels)
    gains = (rng.uniform(0.8, 1.1) * rng.uniform(0.93, 1.07, 3)).astype(np.float32)
    noise = np.frombuffer(rng.bytes(easel.image.size), np.uint8).reshape(easel.image.shape)
    develop(easel.image, gains, noise, difficulty.noise * rng.uniform(0.5, 1.0))
    return Picture(easel.image, easel.labels, easel.things)


class _Easel:
    """The picture while things are being added to it."""

    def __init__(self, rng: np.random.Generator, image: np.ndarray, labels: np.ndarray) -> None:
        self.rng = rng
        self.image = image
        self.labels = labels
        self.things: list[ThingMask] = []
        self._light = float(rng.uniform(-1, 1))
        self._crowd: ThingMask | None = None

    def add(self, thing: Thing) -> None:
        """Paint a thing and what it wears, with its shadow on the ground."""
        self._paint_shadow(thing)
        if thing.in_crowd:
            if self._crowd is None:
                self._crowd = self._new(thing.kind, is_crowd=True)
            self._paint(thing, thing.kind, self._crowd.mask, self._crowd.label)
        elif thing.kind == "post":
            self._paint(thing, thing.kind, np.zeros(self.labels.shape, bool), 0)
        else:
            body = self._new(thing.kind)
            self._paint(thing, thing.kind, body.mask, body.label)
            if thing.has_rim:
                unlabel_rim(self.labels, body.mask, body.label, max(1, round(unit_of(self.labels.shape) / 100)))
            if thing.has_tie:
                tie = self._new("tie", wearer=body.label)
                self._paint(thing, "tie", tie.mask, tie.label)
                np.logical_or(body.mask, tie.mask, out=body.mask)

    def _new(self, kind: str, *, is_crowd: bool = False, wearer: int | None = None) -> ThingMask:
        empty = np.zeros(self.labels.shape, bool)
        thing = ThingMask(FIRST_THING + len(self.things), kind, empty, is_crowd, wearer)
        self.things.append(thing)
        return thing

    def _paint(self, thing: Thing, kind: str, mask: np.ndarray, label: int) -> None:
        bounds = bounds_of(thing.kind, thing.length)
        sprite = Sprite((thing.x, thing.y), thing.height, bounds, self.labels.shape, mirrored=thing.mirrored)
        if sprite.is_empty:
            return
        DRAWERS[kind](sprite, self.rng, thing.length)
        shade = shading(self.rng, sprite.coverage.shape, kind, self._light)
        corner = (sprite.top, sprite.left)
        paste(self.image, self.labels, mask, sprite.paint, sprite.coverage, corner, shade, 1.0, label)

    def _paint_shadow(self, thing: Thing) -> None:
        """A dark ellipse on the ground; labels stay."""
        half = thing.length / 2
        bounds = (-half - 0.1, -0.12, half + 0.1, 0.12)
        sprite = Sprite((thing.x, thing.y), thing.height, bounds, self.labels.shape)
        if sprite.is_empty:
            return
        narrow = 0.4 if thing.kind in ("tree", "post") else 1.0
        sprite.ellipse(0.06 * self._light, -0.01, half * narrow * 1.05, 0.06, (12, 12, 16))
        shade = np.ones(sprite.coverage.shape, np.float32)
        corner = (sprite.top, sprite.left)
        unmarked = np.zeros((0, 0), bool)
        paste(self.image, self.labels, unmarked, sprite.paint, sprite.coverage, corner, shade, 0.45, _NO_LABEL)


def _unlabel_edge(rng: np.random.Generator, image: np.ndarray, labels: np.ndarray) -> None:
    """A thin unlabelled strip along one side of the picture, darkened as by a frame, in place."""
    width = max(1, round(min(labels.shape) * rng.uniform(0.012, 0.03)))
    side = int(rng.integers(4))
    strip = (slice(None), slice(None, width)) if side % 2 else (slice(None, width), slice(None))
    flipped = (slice(None, None, -1), slice(None, None, -1)) if side >= 2 else (slice(None), slice(None))
    image[flipped][strip] = image[flipped][strip] // 4
    labels[flipped][strip] = 0
