import numpy as np
from drawn import draw

from panoptic.drawing.legend import LegendEntry, draw_legend, legend_entries
from panoptic.structures import Category

CATEGORIES = [
    Category(0, "sky", is_thing=False, colour=(10, 120, 200)),
    Category(1, "car", is_thing=True, colour=(200, 60, 20)),
    Category(2, "dog", is_thing=True, colour=(20, 160, 70)),
]


def test_a_legend_lists_what_is_there_with_counts_of_things():
    panoptic_map = draw("aabbc.", categories={"b": 1, "c": 1})
    assert legend_entries([panoptic_map], CATEGORIES) == [
        LegendEntry("sky", (10, 120, 200)),
        LegendEntry("car 2", (200, 60, 20)),
        LegendEntry("void", None),
    ]


def test_a_crowd_is_listed_but_not_counted():
    panoptic_map = draw("bbc", categories={"b": 1, "c": 1}, crowd="c")
    assert legend_entries([panoptic_map], CATEGORIES) == [LegendEntry("car 1", (200, 60, 20))]


def test_two_maps_share_a_legend_with_both_counts():
    truth = draw("bbcd", categories={"b": 1, "c": 1, "d": 2})
    prediction = draw("aabb", categories={"b": 1})
    texts = [entry.text for entry in legend_entries([truth, prediction], CATEGORIES)]
    assert texts == ["sky", "car 2 / 1", "dog 1 / 0"]


def test_swatches_have_the_colours_of_their_entries_and_texts_differ():
    strip = draw_legend([LegendEntry("sky", (10, 120, 200)), LegendEntry("void", None)], width=300)
    pixels = set(map(tuple, strip.reshape(-1, 3).tolist()))
    assert strip.shape[1] == 300
    assert {(10, 120, 200), (70, 70, 70), (150, 150, 150)} <= pixels
    assert not np.array_equal(strip, draw_legend([LegendEntry("sea", (10, 120, 200)), LegendEntry("void", None)], 300))


def test_entries_that_do_not_fit_in_one_row_go_to_the_next():
    entries = [LegendEntry(f"category {number}", (number, 0, 0)) for number in range(9)]
    wide, narrow = draw_legend(entries, width=2000), draw_legend(entries, width=240)
    assert narrow.shape[0] == 5 * wide.shape[0]  # two entries a row
    for number in range(1, 9):
        assert (narrow == (number, 0, 0)).all(-1).sum() > 100


def test_a_legend_of_twice_the_scale_is_twice_as_large():
    entries = [LegendEntry(f"category {number}", (number, 0, 0)) for number in range(5)]
    usual, large = draw_legend(entries, width=300), draw_legend(entries, width=600, scale=2)
    assert large.shape == (2 * usual.shape[0], 600, 3)
    for number in range(1, 5):  # a swatch has an outline of one pixel
        assert (usual == (number, 0, 0)).all(-1).sum() == 14 * 14
        assert (large == (number, 0, 0)).all(-1).sum() == 30 * 30
