import colorsys

import numpy as np
import pytest
import torch
from drawn import draw

from panoptic.drawing.overlay import overlay
from panoptic.structures import Category, PanopticMap, Segment

SKY, CAR = (10, 120, 200), (200, 60, 20)
CATEGORIES = [Category(0, "sky", is_thing=False, colour=SKY), Category(1, "car", is_thing=True, colour=CAR)]
MAP = draw(
    "aaaaaaaaa",
    "abbbaccca",
    "abbbaccca",
    "abbbaccca",
    "aaaaaaa..",
    "aaaaaaa..",
    categories={"b": 1, "c": 1},
    first_id=1000,
)
HEIGHT, WIDTH = 6, 9
FACTOR = 62  # 560 / 9 = 62.2
GREY_IMAGE = torch.full((3, HEIGHT, WIDTH), 128, dtype=torch.uint8)


def centre(picture: np.ndarray, row: int, column: int) -> tuple[int, ...]:
    """The colour in the middle of one pixel of the map."""
    return tuple(picture[row * FACTOR + FACTOR // 2, column * FACTOR + FACTOR // 2].tolist())


def test_small_images_are_magnified_by_a_whole_factor_and_the_legend_comes_below():
    bare = overlay(GREY_IMAGE, MAP, CATEGORIES, legend=False)
    full = overlay(GREY_IMAGE, MAP, CATEGORIES)
    assert bare.shape == (HEIGHT * FACTOR, WIDTH * FACTOR, 3)
    assert bare.dtype == full.dtype == np.uint8
    assert full.shape[0] > bare.shape[0]
    assert np.array_equal(full[: bare.shape[0]], bare)


def test_large_images_keep_their_size():
    panoptic_map = PanopticMap(torch.ones(401, 603, dtype=torch.int64), [Segment(id=1, category_id=0)])
    picture = overlay(torch.zeros(3, 401, 603, dtype=torch.uint8), panoptic_map, CATEGORIES, legend=False)
    assert picture.shape == (401, 603, 3)


@pytest.mark.parametrize(("width", "times"), [(1200, 1), (2400, 2), (3500, 3)])
def test_the_legend_of_an_image_larger_than_screens_grows_with_it(width, times):
    drawn = overlay(torch.zeros(3, 40, width, dtype=torch.uint8), draw(*["a" * width] * 40), CATEGORIES)
    small = overlay(torch.zeros(3, 40, 600, dtype=torch.uint8), draw(*["a" * 600] * 40), CATEGORIES)
    assert drawn.shape[0] - 40 == times * (small.shape[0] - 40)


def test_full_opacity_shows_the_colours_themselves_and_instances_differ():
    picture = overlay(GREY_IMAGE, MAP, CATEGORIES, opacity=1.0)
    assert centre(picture, 0, 4) == SKY
    assert centre(picture, 5, 1) == SKY
    first, second = centre(picture, 2, 2), centre(picture, 2, 6)
    assert first == CAR
    assert second != CAR
    hue = colorsys.rgb_to_hls(*(channel / 255 for channel in CAR))[0]
    other_hue = colorsys.rgb_to_hls(*(channel / 255 for channel in second))[0]
    assert abs((hue - other_hue + 0.5) % 1 - 0.5) < 0.04  # a shade of the category's colour


def test_half_opacity_is_the_mean_of_colour_and_grey_image():
    picture = overlay(GREY_IMAGE, MAP, CATEGORIES, opacity=0.5)
    assert centre(picture, 0, 4) == pytest.approx([(128 + channel) / 2 for channel in SKY], abs=1)


def test_no_opacity_leaves_the_image_between_the_borders():
    image = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)
    image[0], image[1], image[2] = 30, 90, 210
    picture = overlay(image, MAP, CATEGORIES, opacity=0.0)
    for row, column in ((0, 4), (2, 2), (2, 6), (5, 8)):
        assert centre(picture, row, column) == (30, 90, 210)


def test_borders_lie_exactly_where_ids_change():
    picture = overlay(GREY_IMAGE, MAP, CATEGORIES, opacity=0.0, legend=False)
    ids = np.kron(MAP.segment_ids.numpy(), np.ones((FACTOR, FACTOR), int))
    border = np.zeros(ids.shape, bool)
    for axis in (0, 1):
        changes = np.diff(ids, axis=axis) != 0
        border |= np.pad(changes, [(0, 1) if a == axis else (0, 0) for a in (0, 1)])
        border |= np.pad(changes, [(1, 0) if a == axis else (0, 0) for a in (0, 1)])
    assert np.array_equal((picture != 128).any(-1), border)
    assert set(picture[border][:, 0].tolist()) == {25, 245}  # a dark line beside a light one


def test_touching_instances_of_one_category_have_a_border_between_them():
    panoptic_map = draw("bc", categories={"b": 1, "c": 1})
    picture = overlay(torch.zeros(3, 1, 2, dtype=torch.uint8), panoptic_map, CATEGORIES, legend=False)
    middle = picture.shape[1] // 2
    assert (picture[:, middle - 1] == 245).all()
    assert (picture[:, middle] == 25).all()


def test_void_is_hatched_with_two_greys():
    picture = overlay(GREY_IMAGE, MAP, CATEGORIES, opacity=1.0, legend=False)
    inside = picture[4 * FACTOR + 2 :, 7 * FACTOR + 2 :].reshape(-1, 3)
    colours, counts = np.unique(inside, axis=0, return_counts=True)
    assert colours.tolist() == [[70, 70, 70], [150, 150, 150]]
    assert counts.min() > 0.45 * len(inside)


def test_inputs_are_unchanged():
    image, segment_ids = GREY_IMAGE.clone(), MAP.segment_ids.clone()
    overlay(image, MAP, CATEGORIES)
    assert torch.equal(image, GREY_IMAGE)
    assert torch.equal(segment_ids, MAP.segment_ids)


def test_a_map_of_nothing_but_void_is_drawn():
    nothing = PanopticMap(torch.zeros(HEIGHT, WIDTH, dtype=torch.int64), [])
    picture = overlay(GREY_IMAGE, nothing, CATEGORIES, opacity=1.0, legend=False)
    assert np.unique(picture).tolist() == [70, 150]


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"expected a map of the image's size \(6, 8\), got \(6, 9\)"):
        overlay(GREY_IMAGE[:, :, :8], MAP, CATEGORIES)


def test_an_image_of_another_type_is_refused():
    with pytest.raises(ValueError, match=r"expected an image of shape \(3, H, W\) uint8, got \(3, 6, 9\) torch.float"):
        overlay(GREY_IMAGE.float(), MAP, CATEGORIES)


def test_an_opacity_beyond_one_is_refused():
    with pytest.raises(ValueError, match=r"expected an opacity in 0..1, got 1.5"):
        overlay(GREY_IMAGE, MAP, CATEGORIES, opacity=1.5)


def test_a_map_of_other_categories_is_refused():
    with pytest.raises(ValueError, match=r"segment 1001 has category id 1, but there are categories 0..0; pass"):
        overlay(GREY_IMAGE, MAP, CATEGORIES[:1])
