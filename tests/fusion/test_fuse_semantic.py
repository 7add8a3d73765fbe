import pytest
import torch
from bottom_up_scenes import CATEGORIES

from panoptic.fusion.semantic import fuse_semantic
from panoptic.structures import Category, Segment


def test_each_category_present_is_one_segment():
    semantic_map = torch.tensor([[0, 0, 2], [1, 0, 2]])
    outputs = {"semantic": torch.eye(4)[semantic_map].movedim(2, 0)}
    result = fuse_semantic(outputs, CATEGORIES)
    assert torch.equal(result.semantic_map, semantic_map)
    assert result.panoptic_map.segment_ids.tolist() == [[1, 1, 3], [2, 1, 3]]
    assert result.panoptic_map.segments == (Segment(1, 0, area=3), Segment(2, 1, area=1), Segment(3, 2, area=2))
    assert result.instances is None


@pytest.mark.parametrize(("min_area", "ids"), [(1, [[1, 2, 3]]), (2, [[0, 1, 0]])])
def test_small_stuff_becomes_void(min_area, ids):
    outputs = {"semantic": torch.eye(4)[torch.tensor([[0, 1, 3]])].movedim(2, 0)}
    assert fuse_semantic(outputs, CATEGORIES, min_area=min_area).panoptic_map.segment_ids.tolist() == ids


def test_one_pixel():
    result = fuse_semantic({"semantic": torch.zeros(4, 1, 1)}, CATEGORIES)
    assert result.panoptic_map.segments == (Segment(1, 0, area=1),)


def test_categories_that_are_not_numbered_are_refused():
    with pytest.raises(ValueError, match="renumber the categories"):
        fuse_semantic({"semantic": torch.zeros(1, 2, 3)}, [Category(1, "sky", False)])
