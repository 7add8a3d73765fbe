"""Synthetic street scenes, drawn on demand without any file: the embedded default data set."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from panoptic.data.masks import mask_boxes, stack_masks
from panoptic.data.scene_difficulty import DIFFICULTIES
from panoptic.data.scene_picture import FIRST_THING, Picture, ThingMask, draw_picture
from panoptic.structures import MAX_SEGMENT_ID, Category, ImageStatistics, Instances, PanopticMap, Sample, Segment

SPLITS = ("train", "val", "test")
MIN_SEGMENT_AREA = 12
"""Segments of which fewer pixels can be seen are void."""

MIN_SIDE = 32
"""Shortest side of an image, in pixels."""

CATEGORIES = (
    Category(0, "sky", is_thing=False, group="background", colour=(116, 173, 222)),
    Category(1, "road", is_thing=False, group="ground", colour=(128, 100, 140)),
    Category(2, "wall", is_thing=False, group="background", colour=(176, 132, 106)),
    Category(3, "grass", is_thing=False, group="ground", colour=(134, 176, 74)),
    Category(4, "person", is_thing=True, group="person", colour=(220, 50, 60)),
    Category(5, "tie", is_thing=True, group="accessory", colour=(250, 220, 30)),
    Category(6, "car", is_thing=True, group="vehicle", colour=(30, 60, 200)),
    Category(7, "truck", is_thing=True, group="vehicle", colour=(0, 170, 180)),
    Category(8, "bus", is_thing=True, group="vehicle", colour=(240, 130, 20)),
    Category(9, "ball", is_thing=True, group="toy", colour=(230, 80, 200)),
    Category(10, "tree", is_thing=True, group="plant", colour=(20, 110, 50)),
)
"""Stuff first, in the order of the labels in `scene_ground`."""

_STATISTICS = ImageStatistics(mean=(0.483, 0.508, 0.471), std=(0.207, 0.200, 0.243))
"""Measured on 300 scenes of each difficulty, which differ by 0.01."""

_CATEGORY_IDS = {category.name: category.id for category in CATEGORIES}


class Scenes(Dataset[Sample]):
    """Street scenes with things that overlap, touch, hide each other and wear each other.

    A scene depends on `seed`, `split` and its index alone (and on the size and difficulty it is drawn for): it is the
    same on every run, in every worker and for every length. Splits never share a scene.

    Args:
        split: "train", "val" or "test".
        length: number of scenes.
        size: (H, W) in pixels, any from 32 on.
        difficulty: "easy" (few, large things, mostly apart) or "hard" (many, small, hidden, with clutter and noise).
        seed: 0 or more.
    """

    def __init__(self, split: str, length: int, size: tuple[int, int], difficulty: str, seed: int = 0) -> None:
        if split not in SPLITS:
            raise ValueError(f"expected split to be one of {', '.join(SPLITS)}, got {split!r}")
        if difficulty not in DIFFICULTIES:
            raise ValueError(f"expected difficulty to be one of {', '.join(DIFFICULTIES)}, got {difficulty!r}")
        if length < 1:
            raise ValueError(f"expected a length of at least 1 scene, got {length}")
        if len(size) != 2 or min(size) < MIN_SIDE:
            raise ValueError(f"expected size (H, W) of at least {MIN_SIDE} pixels a side, got {tuple(size)}")
        if seed < 0:
            raise ValueError(f"expected a seed of 0 or more, got {seed}")
        self.split = split
        self.size = (int(size[0]), int(size[1]))
        self.difficulty = difficulty
        self.seed = seed
        self.categories: list[Category] = list(CATEGORIES)
        self.image_statistics = _STATISTICS
        self.image_ids = range(length)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        """Scene number `index`; a negative one counts from the end."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"expected an index below {len(self)}, got {index}")
        image_id = self.image_ids[index]
        sequence = np.random.SeedSequence(self.seed, spawn_key=(SPLITS.index(self.split), image_id))
        rng = np.random.Generator(np.random.PCG64(sequence))
        picture = draw_picture(rng, self.size, DIFFICULTIES[self.difficulty])
        panoptic_map, instances = _annotate(rng, picture)
        return Sample(
            image=torch.from_numpy(np.ascontiguousarray(picture.image.transpose(2, 0, 1))),
            image_id=image_id,
            file_name=f"scenes/{self.split}/{image_id:06d}.png",
            panoptic_map=panoptic_map,
            instances=instances,
            original_size=self.size,
        )


def _annotate(rng: np.random.Generator, picture: Picture) -> tuple[PanopticMap, Instances]:
    """The panoptic map of what can be seen, and the amodal masks of its things, both from far to near."""
    counts = np.bincount(picture.labels.ravel(), minlength=FIRST_THING + len(picture.things))
    visible = counts >= MIN_SEGMENT_AREA
    things = []
    for thing in picture.things:  # a tie comes after its wearer, and goes with them
        if thing.wearer is not None and not visible[thing.wearer]:
            visible[thing.label] = False
        if visible[thing.label]:
            things.append(thing)
    category_ids = {label: label - 1 for label in range(1, FIRST_THING) if visible[label]}
    category_ids.update({thing.label: _CATEGORY_IDS[thing.kind] for thing in things})
    crowds = {thing.label for thing in things if thing.is_crowd}
    segment_ids = np.zeros(len(counts), np.int64)
    drawn = rng.choice(MAX_SEGMENT_ID, len(category_ids), replace=False) + 1
    segment_ids[list(category_ids)] = drawn
    segments = [
        Segment(id=int(segment_ids[label]), category_id=category_id, is_crowd=label in crowds, area=int(counts[label]))
        for label, category_id in category_ids.items()
    ]
    panoptic_map = PanopticMap(torch.from_numpy(segment_ids[picture.labels]), segments)
    return panoptic_map, _as_instances(things, picture.labels.shape)


def _as_instances(things: list[ThingMask], size: tuple[int, int]) -> Instances:
    """Masks, boxes and categories of the things, in their order."""
    masks = stack_masks([thing.mask for thing in things], size)
    return Instances(
        category_ids=torch.tensor([_CATEGORY_IDS[thing.kind] for thing in things], dtype=torch.int64),
        masks=masks,
        boxes=mask_boxes(masks),
        scores=torch.ones(len(things)),
        is_crowd=torch.tensor([thing.is_crowd for thing in things], dtype=torch.bool),
    )
