import cv2
import numpy as np
import pytest
import torch

from panoptic.drawing.colours import category_colours, segment_colours
from panoptic.structures import Category, PanopticMap, Segment


def lab(colours: list[tuple[int, int, int]]) -> np.ndarray:
    """(N, 3) CIELAB."""
    return cv2.cvtColor(np.array([colours], np.float32) / 255, cv2.COLOR_RGB2LAB)[0]


def smallest_distance(colours: list[tuple[int, int, int]]) -> float:
    places = lab(colours)
    return min(float(np.linalg.norm(a - b)) for i, a in enumerate(places) for b in places[:i])


def test_a_categorys_own_colour_is_kept_and_the_others_get_one():
    categories = [Category(0, "a", True), Category(1, "b", True, colour=(1, 2, 3)), Category(2, "c", False)]
    colours = category_colours(categories)
    assert colours[1] == (1, 2, 3)
    assert len(set(colours)) == 3
    assert colours == category_colours(categories)


@pytest.mark.parametrize(("count", "least"), [(11, 45), (19, 35), (133, 12)])
def test_palette_colours_are_far_apart_and_far_from_grey(count, least):
    colours = category_colours([Category(number, str(number), True) for number in range(count)])
    assert smallest_distance(colours) > least  # CIELAB: 2.3 is just noticeable
    assert np.linalg.norm(lab(colours)[:, 1:], axis=1).min() > 24


def test_a_longer_palette_begins_with_the_shorter():
    categories = [Category(number, str(number), True) for number in range(40)]
    assert category_colours(categories)[:7] == category_colours(categories[:7])


@pytest.mark.parametrize("colour", [(220, 20, 60), (0, 0, 0), (255, 255, 255), (128, 128, 128), (0, 0, 142)])
def test_sixty_instances_have_sixty_shades(colour):
    segments = [Segment(id=5 * number + 7, category_id=0) for number in range(60)]
    table = PanopticMap(torch.zeros(1, 1, dtype=torch.int64), segments)
    shades = segment_colours(table, [Category(0, "car", True, colour=colour)])
    assert shades[7] == colour
    assert len(set(shades.values())) == 60


def test_stuff_has_one_colour():
    segments = [Segment(id=3, category_id=0), Segment(id=4, category_id=0)]
    table = PanopticMap(torch.zeros(1, 1, dtype=torch.int64), segments)
    assert segment_colours(table, [Category(0, "sky", False, colour=(9, 8, 7))]) == {3: (9, 8, 7), 4: (9, 8, 7)}
