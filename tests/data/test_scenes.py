import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch
from equal_samples import assert_equal_samples
from torch.utils.data import DataLoader

from panoptic.data.scenes import CATEGORIES, Scenes
from panoptic.structures import VOID, Sample, check_categories

DIFFICULTIES = ("easy", "hard")
PERSON, TIE, CAR, BALL = (next(c.id for c in CATEGORIES if c.name == name) for name in ("person", "tie", "car", "ball"))


@cache
def drawn_scenes(difficulty: str, split: str = "val") -> list[Sample]:
    scenes = Scenes(split, length=60, size=(97, 131), difficulty=difficulty)
    return [scenes[index] for index in range(len(scenes))]


def image_sum(dataset: Scenes, index: int) -> int:
    """A position-weighted sum: pixels that change places change it."""
    pixels = dataset[index].image.long().flatten()
    return int((pixels * (torch.arange(len(pixels)) % 1009 + 1)).sum())


def test_categories_are_numbered_and_grouped():
    check_categories(CATEGORIES)
    assert {c.name for c in CATEGORIES if c.group == "vehicle"} == {"car", "truck", "bus"}
    assert {c.name for c in CATEGORIES if not c.is_thing} == {"sky", "road", "wall", "grass"}
    assert len({c.colour for c in CATEGORIES}) == len(CATEGORIES)


@pytest.mark.parametrize("size", [(32, 32), (96, 128), (129, 193), (75, 301), (211, 57)])
@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_any_size_is_drawn(size, difficulty):
    sample = Scenes("train", length=3, size=size, difficulty=difficulty)[2]
    assert sample.image.shape == (3, *size)
    assert sample.image.dtype == torch.uint8
    assert sample.size == sample.original_size == sample.panoptic_map.size == size
    assert sample.instances.masks.shape[1:] == size


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_a_scene_is_the_same_however_it_is_reached(difficulty):
    short = Scenes("train", length=5, size=(64, 96), difficulty=difficulty, seed=3)
    long = Scenes("train", length=50, size=(64, 96), difficulty=difficulty, seed=3)
    backwards = {index: short[index] for index in (4, 3, 2, 1, 0)}
    for index in range(5):
        assert_equal_samples(backwards[index], long[index])


@pytest.mark.slow
def test_another_process_draws_the_same_scenes():
    code = (
        "import torch; from panoptic.data.scenes import Scenes; "
        "pixels = Scenes('val', 9, (64, 96), 'hard', seed=5)[7].image.long().flatten(); "
        "print(int((pixels * (torch.arange(len(pixels)) % 1009 + 1)).sum()))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) == image_sum(Scenes("val", 9, (64, 96), "hard", seed=5), 7)


def test_loader_workers_draw_the_same_scenes():
    dataset = Scenes("train", length=4, size=(64, 96), difficulty="hard")
    for index, sample in enumerate(DataLoader(dataset, batch_size=None, num_workers=2)):
        assert_equal_samples(sample, dataset[index])


def test_splits_seeds_and_indices_share_no_image():
    images = [
        image_sum(Scenes(split, length=20, size=(48, 64), difficulty="easy", seed=seed), index)
        for split in ("train", "val", "test")
        for seed in (0, 1)
        for index in range(20)
    ]
    assert len(set(images)) == len(images) == 120


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_tables_agree_with_their_maps(difficulty):
    for sample in drawn_scenes(difficulty):
        ids, counts = sample.panoptic_map.segment_ids.unique(return_counts=True)
        areas = {i: n for i, n in zip(ids.tolist(), counts.tolist(), strict=True) if i != VOID}
        assert {segment.id: segment.area for segment in sample.panoptic_map.segments} == areas
        assert all(area >= 12 for area in areas.values())
        stuff = [s.category_id for s in sample.panoptic_map.segments if not CATEGORIES[s.category_id].is_thing]
        assert len(set(stuff)) == len(stuff)  # one segment per stuff category


def test_segment_ids_look_arbitrary():
    ids = [segment.id for sample in drawn_scenes("hard") for segment in sample.panoptic_map.segments]
    assert min(ids) > 1000
    assert max(ids) > 2**23
    assert len(set(ids)) > 0.99 * len(ids)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_amodal_masks_follow_the_table_and_contain_what_can_be_seen(difficulty):
    hidden = 0
    for sample in drawn_scenes(difficulty):
        things = [s for s in sample.panoptic_map.segments if CATEGORIES[s.category_id].is_thing]
        instances = sample.instances
        assert [s.category_id for s in things] == instances.category_ids.tolist()
        assert [s.is_crowd for s in things] == instances.is_crowd.tolist()
        for segment, mask in zip(things, instances.masks, strict=True):
            seen = sample.panoptic_map.segment_ids == segment.id
            assert not (seen & ~mask).any()
            hidden += int(mask.sum() > seen.sum())
    assert hidden > 10


def test_boxes_are_tight_around_the_amodal_masks():
    for sample in drawn_scenes("hard")[:20]:
        for mask, box in zip(sample.instances.masks, sample.instances.boxes, strict=True):
            rows, columns = mask.nonzero().unbind(1)
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == [int(side) for side in expected]


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_each_tie_lies_on_the_amodal_mask_of_a_person_and_hides_part_of_it(difficulty):
    ties = 0
    for sample in drawn_scenes(difficulty):
        instances = sample.instances
        people = instances.masks[(instances.category_ids == PERSON) & ~instances.is_crowd]
        for tie in instances.masks[instances.category_ids == TIE]:
            assert any(not (tie & ~person).any() for person in people)
            ties += 1
    assert ties > 15


def touches(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Two regions have pixels side by side."""
    beside = (first[:, 1:] & second[:, :-1]).any() | (first[:, :-1] & second[:, 1:]).any()
    return bool(beside | (first[1:] & second[:-1]).any() | (first[:-1] & second[1:]).any())


@pytest.mark.parametrize("category_id", [CAR, BALL])
@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_instances_of_one_class_touch_in_some_scenes(difficulty, category_id):
    touching = 0
    for sample in drawn_scenes(difficulty):
        regions = [
            sample.panoptic_map.segment_ids == s.id
            for s in sample.panoptic_map.segments
            if s.category_id == category_id
        ]
        touching += any(touches(a, b) for number, a in enumerate(regions) for b in regions[:number])
    assert touching >= 2


@pytest.mark.parametrize(("difficulty", "scenes_with_void", "scenes_with_crowd"), [("easy", 15, 1), ("hard", 40, 8)])
def test_some_scenes_have_void_and_some_a_crowd(difficulty, scenes_with_void, scenes_with_crowd):
    samples = drawn_scenes(difficulty)
    with_void = sum(bool((sample.panoptic_map.segment_ids == VOID).any()) for sample in samples)
    crowds = [sum(segment.is_crowd for segment in sample.panoptic_map.segments) for sample in samples]
    assert scenes_with_void <= with_void < len(samples)
    assert sum(crowds) >= scenes_with_crowd
    assert max(crowds) == 1


def test_hard_scenes_have_many_small_instances_and_easy_ones_few_large():
    easy = [len(sample.instances.masks) for sample in drawn_scenes("easy")]
    hard = [len(sample.instances.masks) for sample in drawn_scenes("hard")]
    assert np.mean(hard) > 2.5 * np.mean(easy)
    tie_areas = [
        int(mask.sum())
        for sample in drawn_scenes("easy")
        for mask in sample.instances.masks[sample.instances.category_ids == TIE]
    ]
    assert min(tie_areas) >= 25


def labelled_pixels(samples: list[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """Colours (N, 3) and category ids (N,) of every 7th labelled pixel."""
    colours, labels = [], []
    for sample in samples:
        ids = sample.panoptic_map.segment_ids
        category_map = torch.full_like(ids, -1)
        for segment in sample.panoptic_map.segments:
            category_map[ids == segment.id] = segment.category_id
        known = category_map >= 0
        colours.append(sample.image[:, known].T[::7].double())
        labels.append(category_map[known][::7])
    return torch.cat(colours).numpy(), torch.cat(labels).numpy()


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_colour_alone_does_not_tell_the_class(difficulty):
    """Nearest mean colour, and the better nearest neighbour in a colour histogram, learn little about things."""
    colours, labels = labelled_pixels(drawn_scenes(difficulty, split="train"))
    held_out, truth = labelled_pixels(drawn_scenes(difficulty))
    count = len(CATEGORIES)
    means = np.stack([colours[labels == category].mean(0) for category in range(count)])
    by_mean = ((held_out[:, None] - means) ** 2).sum(-1).argmin(1)
    histogram = np.zeros((count, 8, 8, 8))
    np.add.at(histogram, (labels, *(colours // 32).astype(int).T), 1)
    likelihood = (histogram + 0.1) / histogram.sum((1, 2, 3), keepdims=True)  # equal prior for all
    by_histogram = likelihood[(slice(None), *(held_out // 32).astype(int).T)].argmax(0)
    things = [category.id for category in CATEGORIES if category.is_thing]
    for guess, bound in ((by_mean, 0.18), (by_histogram, 0.25)):
        recall = float(np.mean([(guess[truth == thing] == thing).mean() for thing in things]))
        print(f"{difficulty}: mean recall of things by colour {recall:.3f}, bound {bound}")
        assert recall < bound


def test_negative_index_counts_from_the_end():
    scenes = Scenes("test", length=4, size=(48, 64), difficulty="easy")
    assert_equal_samples(scenes[-1], scenes[3])
    assert list(scenes.image_ids) == [0, 1, 2, 3]
    assert [sample.image_id for sample in scenes] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"split": "trainval"}, "expected split to be one of train, val, test, got 'trainval'"),
        ({"difficulty": "medium"}, "expected difficulty to be one of easy, hard, got 'medium'"),
        ({"length": 0}, "expected a length of at least 1 scene, got 0"),
        ({"size": (31, 64)}, r"expected size \(H, W\) of at least 32 pixels a side, got \(31, 64\)"),
        ({"size": (64,)}, r"expected size \(H, W\) of at least 32 pixels a side, got \(64,\)"),
        ({"seed": -1}, "expected a seed of 0 or more, got -1"),
    ],
)
def test_bad_arguments_are_refused(changed, message):
    arguments = {"split": "val", "length": 2, "size": (48, 64), "difficulty": "easy", **changed}
    with pytest.raises(ValueError, match=message):
        Scenes(**arguments)


def test_an_index_beyond_the_end_is_refused():
    scenes = Scenes("val", length=2, size=(48, 64), difficulty="easy")
    with pytest.raises(IndexError, match="expected an index below 2, got 2"):
        scenes[2]
