import numpy as np
import pytest
from oracles.merging import areas_of_one_value
from scipy import ndimage

from panoptic.fusion.connected_regions import connected_regions
from panoptic.structures import IGNORE_INDEX

STRUCTURES = {False: ndimage.generate_binary_structure(2, 1), True: np.ones((3, 3))}


def drawn_labels(*rows):
    return np.array([[IGNORE_INDEX if letter == "." else int(letter) for letter in row] for row in rows], np.uint8)


def region_map(labels, diagonal):
    """(H, W): the region of each pixel, -1 where there is none."""
    regions = connected_regions(labels, diagonal=diagonal)
    painted = np.full(labels.shape, -1)
    regions.paint(painted, np.arange(len(regions)), np.ones(len(regions), dtype=bool))
    return regions, painted


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("size", [(1, 1), (1, 17), (19, 1), (37, 53)])
def test_equals_scipys_labels_of_each_value(size, share, diagonal):
    generator = np.random.default_rng(7)
    labels = np.where(generator.random(size) < share, generator.integers(0, 3, size), IGNORE_INDEX).astype(np.uint8)
    regions, painted = region_map(labels, diagonal)
    assert np.array_equal(painted < 0, labels == IGNORE_INDEX)
    total = 0
    for value in range(3):
        expected, count = ndimage.label(labels == value, STRUCTURES[diagonal])
        total += count
        pairs = {(int(a), int(b)) for a, b in zip(expected[labels == value], painted[labels == value], strict=True)}
        assert len(pairs) == count == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert len(regions) == total
    assert regions.areas.tolist() == np.bincount(painted[painted >= 0], minlength=total).tolist()
    assert all((labels[painted == number] == label).all() for number, label in enumerate(regions.labels))


@pytest.mark.parametrize("diagonal", [False, True])
def test_regions_come_in_the_order_of_their_first_pixels(diagonal):
    labels = drawn_labels("0.1.0", "0.1.0", "00.00", "10001")
    regions, painted = region_map(labels, diagonal)
    pixels = {(int(y), int(x)) for y, x in np.argwhere(labels != IGNORE_INDEX)}
    expected = areas_of_one_value(labels.astype(int), pixels, diagonal=diagonal)  # from their first pixels too
    assert [{(int(y), int(x)) for y, x in np.argwhere(painted == n)} for n in range(len(regions))] == expected


def test_corners_connect_only_if_they_are_asked_to():
    labels = drawn_labels("0.", ".0", "0.")
    assert connected_regions(labels, diagonal=True).areas.tolist() == [3]
    assert connected_regions(labels, diagonal=False).areas.tolist() == [1, 1, 1]


def test_runs_that_end_in_the_same_column_connect_at_both_corners():
    labels = drawn_labels("001", "110")
    assert connected_regions(labels, diagonal=True).areas.tolist() == [3, 3]
    assert connected_regions(labels, diagonal=False).areas.tolist() == [2, 1, 2, 1]


def test_a_run_joins_those_at_its_corners():
    labels = drawn_labels("00.0", "11.1", "00.0", "..0.", "000.")
    assert sorted(connected_regions(labels, diagonal=True).areas.tolist()) == [1, 1, 2, 2, 7]


def test_only_chosen_regions_are_painted():
    labels = drawn_labels("00.1", "0..1")
    target = np.full(labels.shape, 9)
    connected_regions(labels, diagonal=False).paint(target, np.array([5, 6]), np.array([False, True]))
    assert target.tolist() == [[9, 9, 9, 6], [9, 9, 9, 6]]


def test_sums_are_those_over_the_pixels_of_each_region():
    labels = drawn_labels("00.1", "0.11")
    values = np.array([[1, 2, 100, 4], [8, 100, 16, 32]], dtype=np.float32)
    assert connected_regions(labels, diagonal=False).sums(values).tolist() == [11, 52]


def test_nothing_has_no_regions():
    regions = connected_regions(np.full((4, 5), IGNORE_INDEX, dtype=np.uint8), diagonal=True)
    assert len(regions) == 0
    assert regions.sums(np.ones((4, 5), dtype=np.float32)).tolist() == []
