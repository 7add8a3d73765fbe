"""Semantic logits and detections to fuse, drawn and random."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from panoptic.fusion.region_growing import fuse_region_growing
from panoptic.structures import Category, Detections, FusionResult

CATEGORIES = (
    Category(0, "sky", False),
    Category(1, "car", True, "vehicle"),
    Category(2, "truck", True, "vehicle"),
    Category(3, "grass", False),
    Category(4, "person", True, "human"),
    Category(5, "tie", True),
    Category(6, "ball", True),
)
THINGS = [category.id for category in CATEGORIES if category.is_thing]
STUFF = [category.id for category in CATEGORIES if not category.is_thing]
ALL = {"min_area": 0, "score_threshold": 0.0}
"""Options of fusions by which nothing is left out for its size or score."""


def logits_of(semantic_map, certainty=8.0):
    """(C, H, W): one category of each pixel, and one that comes second."""
    one_hot = F.one_hot(semantic_map.long(), len(CATEGORIES)).movedim(2, 0).float()
    second = F.one_hot((semantic_map.long() + 3) % len(CATEGORIES), len(CATEGORIES)).movedim(2, 0).float()
    return certainty * (one_hot + second / 2)


def drawn_map(*rows):
    """(H, W) int64 of digits."""
    return torch.tensor([[int(digit) for digit in row] for row in rows])


def drawn_mask(*rows):
    """(H, W) bool, True where a row has '#'."""
    return torch.tensor([[letter == "#" for letter in row] for row in rows])


def detections_from(masks, category_ids, scores, size=None):
    """Detections of full masks (H, W) bool, each on a grid with one cell for each pixel of its box."""
    size = tuple(masks[0].shape) if size is None else size
    boxes, grids = [], []
    for mask in masks:
        if not mask.any():
            boxes.append([2, 1, 5, 3])
            grids.append(torch.zeros(2, 3))
            continue
        y, x = mask.nonzero().unbind(1)
        left, top, right, bottom = int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1
        boxes.append([left, top, right, bottom])
        grids.append(mask[top:bottom, left:right].float())
    return Detections(
        torch.tensor(category_ids, dtype=torch.int64),
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        grids,
        size,
    )


def random_scene(seed, size, num_instances, cell=3):
    """Random logits in cells of a few pixels, and masks that are unions of a rectangle and an ellipse.

    Returns:
        logits: (C, H, W).
        masks: list of (H, W) bool.
        category_ids: list of things.
        scores: list of different ones.
    """
    print("seed", seed)
    generator = np.random.default_rng(seed)
    cells = generator.normal(0, 3, (len(CATEGORIES), -(-size[0] // cell), -(-size[1] // cell)))
    logits = np.kron(cells, np.ones((1, cell, cell)))[:, : size[0], : size[1]] + generator.normal(
        0, 0.5, (len(CATEGORIES), *size)
    )
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    masks = []
    for _ in range(num_instances):
        centre = generator.uniform(0, size)
        radius = generator.uniform(1, np.maximum(1, np.array(size) / 3))
        ellipse = (((y - centre[0]) / radius[0]) ** 2 + ((x - centre[1]) / radius[1]) ** 2) <= 1
        rectangle = (abs(y - centre[0]) <= radius[0] / 2) & (abs(x - centre[1]) <= radius[1])
        masks.append(torch.from_numpy(ellipse | rectangle))
    scores = (generator.permutation(num_instances) + 1) / (num_instances + 1)
    category_ids = generator.choice(THINGS, num_instances).tolist()
    return torch.from_numpy(logits).float(), masks, category_ids, scores.tolist()


def picked(detections, order):
    """The same detections in another order, or some of them."""
    rows = torch.tensor(order, dtype=torch.int64)
    return Detections(
        detections.category_ids[rows],
        detections.boxes[rows],
        detections.scores[rows],
        [detections.masks[row] for row in order],
        detections.image_size,
    )


def shown_by(result):
    """{pixel: (category, score rounded, or None)} of what is not void."""
    shown = {}
    for segment in result.panoptic_map.segments:
        score = None if segment.score is None else round(segment.score, 5)
        for y, x in (result.panoptic_map.segment_ids == segment.id).nonzero().tolist():
            shown[y, x] = (segment.category_id, score)
    return shown


def check_table(panoptic_map):
    """The table lists what is in the map, with its area, and nothing else."""
    ids, areas = panoptic_map.segment_ids.unique(return_counts=True)
    counted = {i: area for i, area in zip(ids.tolist(), areas.tolist(), strict=True) if i > 0}
    assert counted == {segment.id: segment.area for segment in panoptic_map.segments}


def same_result(one, other):
    """Whether two results are equal to the last pixel and score."""
    return (
        torch.equal(one.panoptic_map.segment_ids, other.panoptic_map.segment_ids)
        and one.panoptic_map.segments == other.panoptic_map.segments
        and torch.equal(one.semantic_map, other.semantic_map)
    )


def grow_regions(semantic_map, masks, category_ids, scores, min_area=0, **options) -> FusionResult:
    """`fuse_region_growing` of drawn maps and masks."""
    detections = detections_from(masks, category_ids, scores, tuple(semantic_map.shape))
    outputs = {"semantic": logits_of(semantic_map), "instances": detections}
    return fuse_region_growing(outputs, CATEGORIES, min_area=min_area, **options)


def check_refined(result):
    """The table, the semantic map and the refined instances say the same as the map."""
    check_table(result.panoptic_map)
    instances = [s for s in result.panoptic_map.segments if CATEGORIES[s.category_id].is_thing]
    found = result.instances
    assert [s.category_id for s in instances] == found.category_ids.tolist()
    assert [s.score for s in instances] == pytest.approx(found.scores.tolist())
    assert not found.is_crowd.any()
    for segment, mask, box in zip(instances, found.masks, found.boxes.tolist(), strict=True):
        assert torch.equal(mask, result.panoptic_map.segment_ids == segment.id)
        y, x = mask.nonzero().unbind(1)
        assert box == [x.min(), y.min(), x.max() + 1, y.max() + 1]
    for segment in result.panoptic_map.segments:
        assert (result.semantic_map[result.panoptic_map.segment_ids == segment.id] == segment.category_id).all()
