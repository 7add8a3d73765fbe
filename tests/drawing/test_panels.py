import numpy as np
import pytest
import torch
from drawn import draw

from panoptic.drawing.panels import comparison
from panoptic.structures import Category

CATEGORIES = [
    Category(0, "sky", is_thing=False, colour=(10, 120, 200)),
    Category(1, "car", is_thing=True, colour=(200, 60, 20)),
]
TRUTH = draw("aaaab", "aaabb", "aaabb", categories={"b": 1})
PREDICTION = draw("bbbbb", "bbbbb", "bb...", categories={"b": 1})
IMAGE = torch.full((3, 3, 5), 90, dtype=torch.uint8)


def test_image_truth_and_prediction_stand_side_by_side():
    picture = comparison(IMAGE, TRUTH, PREDICTION, CATEGORIES, opacity=1.0)
    factor = 560 // 5
    assert picture.dtype == np.uint8
    assert picture.shape[1] == 3 * 5 * factor + 2 * 6
    row = picture[26 + factor // 2]  # in the first row of the map, below the titles
    starts = [panel * (5 * factor + 6) for panel in range(3)]
    assert row[starts[0] + factor // 2].tolist() == [90, 90, 90]
    assert row[starts[1] + factor // 2].tolist() == [10, 120, 200]
    assert row[starts[2] + factor // 2].tolist() == [200, 60, 20]


def test_titles_and_legend_surround_the_panels():
    picture = comparison(IMAGE, TRUTH, PREDICTION, CATEGORIES)
    panels = 3 * (560 // 5)
    assert picture.shape[0] > panels + 26
    assert len(np.unique(picture[:26])) > 5  # smooth text
    legend = picture[26 + panels :].reshape(-1, 3)
    for colour in ((10, 120, 200), (200, 60, 20), (150, 150, 150)):
        assert (legend == colour).all(-1).any()


def test_a_prediction_of_another_size_is_refused():
    other = draw("bb", categories={"b": 1})
    with pytest.raises(ValueError, match=r"expected a map of the image's size \(3, 5\), got \(1, 2\)"):
        comparison(IMAGE, TRUTH, other, CATEGORIES)


def test_inputs_are_unchanged():
    image = IMAGE.clone()
    ids = TRUTH.segment_ids.clone(), PREDICTION.segment_ids.clone()
    comparison(image, TRUTH, PREDICTION, CATEGORIES)
    assert torch.equal(image, IMAGE)
    assert torch.equal(ids[0], TRUTH.segment_ids)
    assert torch.equal(ids[1], PREDICTION.segment_ids)
