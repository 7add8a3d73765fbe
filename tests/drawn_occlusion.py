"""A tie on a person, as OANet draws them (Fig. 7): two masks that overlap, and the map of what is seen."""

import torch
from drawn import draw

from panoptic.structures import Category, Instances, Sample

CATEGORIES = (
    Category(0, "person", True),
    Category(1, "wall", False),
    Category(2, "tie", True),
    Category(3, "dog", True),
)

MEETING = [[1, 2], [2, 2]]
"""(y, x) of the pixels of both masks; the tie is seen there."""


def tie_on_person() -> Sample:
    """A person (a) behind a tie (c) before a wall (b); the person's own mask goes on under the tie."""
    panoptic_map = draw("baab", "bacb", "bacb", "baab", "bbbb", categories={"a": 0, "b": 1, "c": 2})
    person = torch.tensor([[0, 1, 1, 0]] * 4 + [[0, 0, 0, 0]], dtype=torch.bool)
    tie = panoptic_map.segment_ids == 3
    instances = Instances(
        category_ids=torch.tensor([2, 0]),
        masks=torch.stack([tie, person]),
        boxes=torch.tensor([[2.0, 1.0, 3.0, 3.0], [1.0, 0.0, 3.0, 4.0]]),
        scores=torch.ones(2),
        is_crowd=torch.zeros(2, dtype=torch.bool),
    )
    return Sample(torch.zeros(3, 5, 4, dtype=torch.uint8), 1, "drawn.png", panoptic_map, instances, (5, 4))
