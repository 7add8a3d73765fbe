"""How the things of a scene look: person, tie, car, truck, bus, ball and tree, each in a sprite of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from panoptic.data.scene_sprites import Sprite
from panoptic.data.scene_textures import Colour, hsv_colour, random_colour

_SKIN: tuple[Colour, ...] = ((244, 208, 177), (224, 172, 128), (188, 132, 92), (141, 92, 60), (92, 58, 40))
_TYRE: Colour = (28, 28, 30)
_HEADLIGHT: Colour = (250, 240, 190)
_TAIL_LIGHT: Colour = (190, 30, 25)
_HEIGHT_OF_DETAILS = 40
"""People smaller than this, in pixels, have no eyes: they would not be seen."""


def darker(colour: Colour, factor: float) -> Colour:
    """The colour at `factor` of its brightness, capped at white."""
    red, green, blue = (min(255, round(channel * factor)) for channel in colour)
    return red, green, blue


def bounds_of(kind: str, length: float) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) that hold the thing, in units of its height; `length` is its width in them."""
    if kind == "person":
        return -0.42, -1.02, 0.42, 0.02
    return -length / 2 - 0.03, -1.02, length / 2 + 0.03, 0.04


def draw_person(sprite: Sprite, rng: np.random.Generator, length: float) -> None:
    """A standing person from the front: legs, arms, torso, head, hair; `length` is unused, people vary in girth."""
    girth = rng.uniform(0.9, 1.2)
    skin, shirt, trousers = _SKIN[rng.integers(len(_SKIN))], random_colour(rng), random_colour(rng)
    sleeves = shirt if rng.random() < 0.7 else skin
    stride = rng.uniform(0.03, 0.13)
    for side in (-1, 1):
        hip, foot = (side * 0.055 * girth, -0.48), (side * (0.055 + stride), -0.03)
        sprite.limb(hip, foot, (0.125 * girth, 0.075), darker(trousers, 1.0 if side < 0 else 0.85))
        sprite.ellipse(foot[0] + side * 0.015, -0.025, 0.055, 0.028, (40, 32, 28))
        reach, lift = rng.uniform(0.02, 0.17), rng.choice([0.0, rng.uniform(0.0, 0.5)], p=[0.75, 0.25])
        shoulder = (side * 0.14 * girth, -0.775)
        hand = (side * (0.15 * girth + reach), -0.46 - lift)
        sprite.limb(shoulder, hand, (0.085 * girth, 0.055), darker(sleeves, 0.88))
        sprite.ellipse(hand[0], hand[1], 0.034, 0.036, skin)
    wide, waist = 0.165 * girth, 0.125 * girth
    sprite.box(-0.035, -0.87, 0.035, -0.78, darker(skin, 0.85))
    sprite.polygon(
        ((-wide, -0.77), (-0.06, -0.825), (0.06, -0.825), (wide, -0.77), (waist, -0.44), (-waist, -0.44)), shirt
    )
    style = rng.random()
    if style < 0.3:
        sprite.polygon(((-0.05, -0.82), (0.05, -0.82), (0.0, -0.72)), darker(skin, 0.95), inside=True)
    elif style < 0.5:
        sprite.box(-0.012, -0.82, 0.012, -0.44, darker(shirt, 0.55), inside=True)
    sprite.box(-waist, -0.47, waist, -0.445, darker(trousers, 0.5), inside=True)
    _draw_head(sprite, rng, skin)


def _draw_head(sprite: Sprite, rng: np.random.Generator, skin: Colour) -> None:
    """Head with hair or a hat, and eyes."""
    hair = hsv_colour(rng.uniform(0.02, 0.12), rng.uniform(0.1, 0.8), rng.uniform(0.1, 0.75))
    sprite.ellipse(0, -0.925, 0.068, 0.073, hair)
    sprite.ellipse(0, -0.905, 0.06, 0.072, skin)
    if rng.random() < 0.3:
        hat = random_colour(rng)
        sprite.polygon(((-0.085, -0.94), (-0.06, -0.995), (0.06, -0.995), (0.085, -0.94)), hat)
    else:
        sprite.polygon(((-0.064, -0.93), (-0.045, -0.985), (0.045, -0.985), (0.064, -0.93)), hair)
    if sprite.height < _HEIGHT_OF_DETAILS:
        return
    for side in (-1, 1):
        sprite.ellipse(side * 0.024, -0.905, 0.009, 0.01, (20, 18, 18), inside=True)


def draw_tie(sprite: Sprite, rng: np.random.Generator, length: float) -> None:
    """A tie on the chest of the person who stands at the same foot, with the same height; `length` is unused."""
    colour, stripe = random_colour(rng, neutral_share=0.15), random_colour(rng)
    tip = rng.uniform(-0.52, -0.48)
    sprite.polygon(((-0.036, -0.825), (0.036, -0.825), (0.026, -0.775), (-0.026, -0.775)), darker(colour, 0.8))
    sprite.polygon(((-0.025, -0.78), (0.025, -0.78), (0.058, tip - 0.05), (0, tip), (-0.058, tip - 0.05)), colour)
    if rng.random() < 0.6:
        for y in (-0.74, -0.67, -0.6):
            sprite.polygon(((-0.029, y), (0.029, y - 0.03), (0.029, y - 0.01), (-0.029, y + 0.02)), stripe, inside=True)


def _draw_wheels(sprite: Sprite, positions: tuple[float, ...], radius: float) -> None:
    for x in positions:
        sprite.ellipse(x, -radius, radius, radius, _TYRE)
        sprite.ellipse(x, -radius, radius * 0.52, radius * 0.52, (150, 150, 155), inside=True)


def _draw_lights(sprite: Sprite, length: float, y: float, size: float) -> None:
    """Headlight at the right end, tail light at the left."""
    sprite.box(length / 2 - 0.8 * size, y - size / 2, length / 2, y + size / 2, _HEADLIGHT, inside=True)
    sprite.box(-length / 2, y - size / 2, -length / 2 + 0.6 * size, y + size / 2, _TAIL_LIGHT, inside=True)


def _glass(rng: np.random.Generator) -> Colour:
    return hsv_colour(rng.uniform(0.5, 0.62), rng.uniform(0.1, 0.4), rng.uniform(0.25, 0.75))


def draw_car(sprite: Sprite, rng: np.random.Generator, length: float) -> None:
    """A car from the side, facing right: a low body and a cabin with two or three windows."""
    paint, glass, half = random_colour(rng), _glass(rng), length / 2
    rear, front = rng.uniform(0.68, 0.9) * half, rng.uniform(0.42, 0.55) * half
    roof_rear, roof_front = rear - rng.uniform(0.1, 0.3) * half, front - rng.uniform(0.2, 0.35) * half
    sprite.polygon(((-rear, -0.6), (-roof_rear, -1.0), (roof_front, -1.0), (front, -0.6)), darker(paint, 0.95))
    sprite.polygon(
        (
            (-half, -0.22),
            (-half, -0.52),
            (-half + 0.08, -0.64),
            (front, -0.63),
            (half - 0.1, -0.53),
            (half, -0.42),
            (half, -0.2),
            (half - 0.06, -0.15),
            (-half + 0.06, -0.15),
        ),
        paint,
    )
    middle = (roof_front - roof_rear) / 2
    sprite.polygon(
        ((-rear + 0.09, -0.62), (-roof_rear + 0.04, -0.94), (middle - 0.03, -0.94), (middle - 0.03, -0.62)),
        glass,
        inside=True,
    )
    sprite.polygon(
        ((middle + 0.03, -0.62), (middle + 0.03, -0.94), (roof_front - 0.03, -0.94), (front - 0.09, -0.62)),
        glass,
        inside=True,
    )
    sprite.box(middle - 0.01, -0.62, middle + 0.01, -0.2, darker(paint, 0.6), inside=True)
    _draw_lights(sprite, length, -0.47, 0.11)
    _draw_wheels(sprite, (-0.58 * half, 0.6 * half), rng.uniform(0.18, 0.22))


def draw_truck(sprite: Sprite, rng: np.random.Generator, length: float) -> None:
    """A lorry from the side, facing right: a cab with one window before a tall closed box without windows."""
    paint, half = random_colour(rng), length / 2
    cargo = paint if rng.random() < 0.5 else random_colour(rng, neutral_share=0.5)
    split = half - rng.uniform(0.5, 0.6)
    cab_top = rng.uniform(-0.82, -0.7)
    sprite.box(-half + 0.04, -0.24, half - 0.03, -0.12, (55, 55, 58))
    sprite.polygon(((split, -0.14), (split, cab_top), (half - 0.14, cab_top), (half, -0.46), (half, -0.14)), paint)
    sprite.box(-half, -1.0, split - 0.05, -0.22, cargo)
    if rng.random() < 0.5:
        y = rng.uniform(-0.8, -0.5)
        sprite.box(-half, y, split - 0.05, y + rng.uniform(0.06, 0.16), random_colour(rng), inside=True)
    sprite.polygon(
        (
            (split + 0.12, cab_top + 0.06),
            (half - 0.16, cab_top + 0.06),
            (half - 0.05, -0.48),
            (split + 0.12, -0.48),
        ),
        _glass(rng),
        inside=True,
    )
    sprite.box(split + 0.07, cab_top + 0.04, split + 0.085, -0.18, darker(paint, 0.6), inside=True)
    _draw_lights(sprite, length, -0.3, 0.08)
    _draw_wheels(sprite, (-half + 0.3, -half + 0.6, half - 0.26), rng.uniform(0.115, 0.14))


def draw_bus(sprite: Sprite, rng: np.random.Generator, length: float) -> None:
    """A bus from the side, facing right: one long box with a row of windows along all of it, and doors."""
    paint, glass, half = random_colour(rng), _glass(rng), length / 2
    sprite.polygon(
        (
            (-half, -0.12),
            (-half, -0.95),
            (-half + 0.05, -1.0),
            (half - 0.08, -1.0),
            (half, -0.9),
            (half, -0.12),
        ),
        paint,
    )
    if rng.random() < 0.5:
        sprite.box(-half, -0.42, half, -0.42 + rng.uniform(0.05, 0.12), random_colour(rng), inside=True)
    windows = int(rng.integers(5, 8))
    pitch = (length - 0.1) / windows
    doors = {int(rng.integers(1, windows - 1)), windows - 1}
    for number in range(windows):
        x0 = -half + 0.05 + number * pitch
        bottom = -0.17 if number in doors else -0.5
        sprite.box(x0 + 0.03, -0.88, x0 + pitch - 0.03, bottom, glass, inside=True)
    sprite.box(-half, -0.485, half, -0.455, darker(paint, 0.6), inside=True)
    _draw_lights(sprite, length, -0.3, 0.08)
    _draw_wheels(sprite, (-0.6 * half, 0.62 * half), rng.uniform(0.12, 0.15))


def draw_ball(sprite: Sprite, rng: np.random.Generator, length: float) -> None:
    """A ball: one colour, a band, segments or patches; `length` is unused."""
    colour, other = random_colour(rng, neutral_share=0.2), random_colour(rng, neutral_share=0.5)
    sprite.ellipse(0, -0.5, 0.5, 0.5, colour)
    style, turn = rng.random(), rng.uniform(0, 2 * np.pi)
    if style < 0.35:
        angles = turn + np.array([-0.3, 0.3, np.pi - 0.3, np.pi + 0.3])
        sprite.polygon(np.stack([np.cos(angles), np.sin(angles)], 1) * 0.49 + (0, -0.5), other, inside=True)
    elif style < 0.6:
        for third in range(3):
            angles = turn + third * 2 * np.pi / 3 + np.linspace(0, np.pi / 3, 5)
            rim = np.stack([0.49 * np.cos(angles), 0.49 * np.sin(angles) - 0.5], 1)
            sprite.polygon(np.concatenate([[[0.0, -0.5]], rim]), other, inside=True)
    elif style < 0.75:
        for number in range(3):
            angle = turn + number * 2 * np.pi / 3
            sprite.ellipse(0.25 * np.cos(angle), -0.5 + 0.25 * np.sin(angle), 0.12, 0.12, other, inside=True)


def draw_tree(sprite: Sprite, rng: np.random.Generator, length: float) -> None:
    """A trunk under a crown of leaves, green to autumnal."""
    bark = hsv_colour(rng.uniform(0.04, 0.1), rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.5))
    leaves = hsv_colour(rng.choice([rng.uniform(0.2, 0.4), rng.uniform(0.0, 0.17)], p=[0.75, 0.25]), 0.6, 0.5)
    sprite.limb((0, 0), (0, -0.5), (0.11, 0.08), bark)
    half = length / 2
    for number in range(9):
        angle, distance = number * 2.4, 0.62 * np.sqrt(number / 9)
        x, y = distance * np.cos(angle) * half * 0.95, -0.65 + distance * np.sin(angle) * 0.33
        tint = darker(leaves, rng.uniform(0.75, 1.35))
        sprite.ellipse(x, y, half * rng.uniform(0.38, 0.5), rng.uniform(0.13, 0.17), tint)


def draw_post(sprite: Sprite, rng: np.random.Generator, length: float) -> None:
    """A lamp post or a sign: clutter that has no category; `length` is the width of its head."""
    metal = hsv_colour(rng.random(), 0.1, rng.uniform(0.2, 0.7))
    sprite.box(-0.018, -0.98, 0.018, 0, metal)
    if rng.random() < 0.5:
        sprite.ellipse(0, -0.93, length / 2, length / 2 * 0.8, random_colour(rng, neutral_share=0.1))
    else:
        sprite.box(-length / 2, -1.0, length / 2, -0.8, random_colour(rng, neutral_share=0.1))


DRAWERS: dict[str, Callable[[Sprite, np.random.Generator, float], None]] = {
    "person": draw_person,
    "tie": draw_tie,
    "car": draw_car,
    "truck": draw_truck,
    "bus": draw_bus,
    "ball": draw_ball,
    "tree": draw_tree,
    "post": draw_post,
}


def shading(rng: np.random.Generator, size: tuple[int, int], kind: str, light: float) -> np.ndarray:
    """Brightness factors over a sprite: light from one side and above, and a grain of the thing's own.

    Args:
        rng: consumed.
        size: (h, w) in pixels.
        kind: balls are round, trees have leaves, the others are nearly flat.
        light: -1 (from the left) to 1 (from the right).

    Returns:
        (h, w) float32 around 1.
    """
    fine, coarse = (0.5, 0.25) if kind == "tree" else (0.14, 0.2)
    grain = rng.random(size, dtype=np.float32)
    blotches = rng.random((4, 4), dtype=np.float32)
    return _shade(grain, blotches, fine, coarse, light, kind == "ball")


@njit(cache=True, nogil=True)
def _shade(
    grain: np.ndarray, blotches: np.ndarray, fine: float, coarse: float, light: float, is_round: bool
) -> np.ndarray:
    """Light times grain (h, w) and blotches (4, 4), both in [0, 1], of amplitudes `fine` and `coarse`."""
    height, width = grain.shape
    shade = np.empty((height, width), np.float32)
    for y in range(height):
        v = np.float32(y / max(height - 1, 1))
        row, down = min(int(v * 3), 2), v * 3 - min(int(v * 3), 2)
        for x in range(width):
            u = np.float32(x / max(width - 1, 1))
            column, along = min(int(u * 3), 2), u * 3 - min(int(u * 3), 2)
            upper = blotches[row, column] * (1 - along) + blotches[row, column + 1] * along
            lower = blotches[row + 1, column] * (1 - along) + blotches[row + 1, column + 1] * along
            texture = 1 + (grain[y, x] - 0.5) * fine + (upper * (1 - down) + lower * down - 0.5) * coarse
            if is_round:
                lit = 1.25 - 0.55 * ((2 * u - 1 - 0.35 * light) ** 2 + (2 * v - 0.6) ** 2)
            else:
                lit = 1.0 + 0.12 * light * (2 * u - 1) - 0.16 * (2 * v - 1)
            shade[y, x] = lit * texture
    return shade
