import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from panoptic.assembly import build_data
from panoptic.configuration import load_config, resolved
from panoptic.data.coco_stuff import CATEGORIES, CocoStuff
from panoptic.structures import ImageStatistics, SizeRule, check_categories

needs_samples = pytest.mark.skipif("PANOPTIC_SAMPLES" not in os.environ, reason="PANOPTIC_SAMPLES is not set")

SIZES = {"000000000139": (12, 17), "000000000285": (9, 20)}
UNUSED = [12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91]
"""Ids of things that COCO's annotators were given, but that its instances do not have."""

PERSON, BICYCLE, STOP_SIGN, TREE, WOOD = 1, 2, 13, 169, 182


def ids_of(name):
    """(H, W) official ids, 0 where there is no label: wood below an unlabelled row, two bicycles, a person, a tree."""
    ids = np.full(SIZES[name], WOOD)
    ids[0] = 0
    ids[2:4, 1:5] = BICYCLE
    ids[5:7, 6:9] = BICYCLE
    ids[7, 2:9] = PERSON
    ids[1, 10:] = TREE if name == "000000000139" else STOP_SIGN
    return ids


def write(root, *splits):
    """Write splits of two images each; 0 - 1 is 255 in a byte."""
    rng = np.random.default_rng(0)
    for split in splits:
        (root / split).mkdir(parents=True)
        (root / "stuffthingmaps_trainval2017" / split).mkdir(parents=True)
        for name, size in SIZES.items():
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / f"{name}.jpg")
            write_map(root / "stuffthingmaps_trainval2017" / split / f"{name}.png", ids_of(name))
    return root


def write_map(path, ids):
    Image.fromarray((ids - 1).astype(np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    return write(tmp_path, "train2017")


def opened(root):
    return CocoStuff(root / "train2017", root / "stuffthingmaps_trainval2017" / "train2017")


def test_samples_hold_what_was_written(root):
    dataset = opened(root)
    assert dataset.image_ids == sorted(SIZES)
    for index, name in enumerate(dataset.image_ids):
        sample, expected = dataset[index], ids_of(name)
        assert (sample.image_id, sample.file_name, sample.size) == (name, f"{name}.jpg", SIZES[name])
        assert sample.image.shape == (3, *SIZES[name])
        assert np.array_equal(sample.panoptic_map.segment_ids.numpy(), expected)
        found = {CATEGORIES[s.category_id].dataset_category_id: s.area for s in sample.panoptic_map.segments}
        # the two bicycles are one segment
        assert found == {i: int((expected == i).sum()) for i in np.unique(expected[expected > 0]).tolist()}
        assert dataset.category_ids(index) == {segment.category_id for segment in sample.panoptic_map.segments}


def test_categories_are_the_171_labels_that_are_used():
    check_categories(CATEGORIES)
    used = [category.dataset_category_id for category in CATEGORIES]
    assert used == [i for i in range(1, 183) if i not in UNUSED]
    assert len(used) == 80 + 91
    assert not any(category.is_thing for category in CATEGORIES)
    by_id = {c.dataset_category_id: (c.id, c.name, c.group) for c in CATEGORIES}
    assert by_id[PERSON] == (0, "person", "person")
    assert by_id[STOP_SIGN] == (11, "stop sign", "outdoor")
    assert by_id[90] == (79, "toothbrush", "indoor")
    assert by_id[92] == (80, "banner", "textile")
    assert by_id[TREE] == (157, "tree", "plant")
    assert by_id[WOOD] == (170, "wood", "solid")
    # cocostuff's hierarchy: 12 groups of things, 15 of stuff
    groups = [{c.group for c in CATEGORIES[:80]}, {c.group for c in CATEGORIES[80:]}]
    assert [len(group) for group in groups] == [12, 15]
    assert not groups[0] & groups[1]


def test_statistics_are_those_of_imagenet_unless_given(root):
    grey = ImageStatistics((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    assert opened(root).image_statistics == ImageStatistics()
    folders = (root / "train2017", root / "stuffthingmaps_trainval2017" / "train2017")
    assert CocoStuff(*folders, grey).image_statistics == grey


def test_the_home_folder_may_be_written_short(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root))
    assert len(CocoStuff("~/train2017", "~/stuffthingmaps_trainval2017/train2017")) == 2


@pytest.mark.parametrize("official", [*UNUSED, 183, 255])
def test_a_label_that_is_not_used_is_an_error_that_names_the_file(root, official):
    path = root / "stuffthingmaps_trainval2017" / "train2017" / "000000000139.png"
    ids = ids_of("000000000139")
    ids[3:5, 4:7] = official
    write_map(path, ids)
    with pytest.raises(ValueError, match=rf"unknown value {official - 1} in .*139\.png, 6 pixels; .* 171 labels"):
        opened(root)[0]


def test_a_map_that_was_saved_as_colours_is_an_error_that_names_the_file(root):
    Image.new("RGB", (17, 12)).save(root / "stuffthingmaps_trainval2017" / "train2017" / "000000000139.png")
    with pytest.raises(ValueError, match=r"expected a PNG with palette indices, or one 8-bit .*139\.png"):
        opened(root)[0]


def test_a_photograph_of_another_size_than_its_map_is_named(root):
    Image.new("RGB", (9, 8)).save(root / "train2017" / "000000000139.jpg")
    with pytest.raises(ValueError, match=r"139\.jpg has size \(8, 9\), but its ground truth \(12, 17\)"):
        opened(root)[0]


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("train2017/000000000139.jpg", r"1 PNGs in .*train2017 have no image, the first is 000000000139"),
        (
            "stuffthingmaps_trainval2017/train2017/000000000139.png",
            r"1 of 2 images have no PNGs in .*, the first is 000000000139",
        ),
    ],
)
def test_a_missing_file_is_an_error_when_the_data_set_is_opened(root, removed, message):
    (root / removed).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        opened(root)


@pytest.mark.parametrize(
    ("folder", "suffix", "what"),
    [
        ("train2017", "jpg", "photographs, such as COCO's train2017"),
        ("stuffthingmaps_trainval2017/train2017", "png", "maps of stuffthingmaps_trainval2017"),
    ],
)
def test_a_folder_without_files_and_one_that_is_not_there_are_named(root, folder, suffix, what):
    for path in (root / folder).iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"no \.{suffix} in .*{folder}; expected {what}"):
        opened(root)
    (root / folder).rmdir()
    with pytest.raises(FileNotFoundError, match=rf"no folder .*{folder}; expected {what}"):
        opened(root)


def test_the_configuration_loads_crops_and_whole_images(tmp_path):
    write(tmp_path, "train2017", "val2017")
    small = ["data.train_transform.size=[9,13]", "data.batch_size=2", "data.num_workers=0"]
    data = build_data(resolved(load_config("train", ["data=coco_stuff", f"data.root={tmp_path}", *small])))
    data.connect({}, SizeRule(16, 1))
    assert [batch.image_sizes for batch in data.train_dataloader()] == [[(9, 13), (9, 13)]]
    assert [batch.image_sizes for batch in data.val_dataloader()] == [[size] for size in SIZES.values()]


@needs_samples
@pytest.mark.parametrize(("split", "images"), [("train", 13), ("val", 2)])
def test_the_samples_in_the_layout_of_spade_agree_with_their_panoptic_form(split, images):
    """Stuff is that of the derived panoptic files, but for the outlines of things, which are void there."""
    folder = Path(os.environ["PANOPTIC_SAMPLES"]) / "coco_stuff"
    dataset = CocoStuff(folder / f"{split}_img", folder / f"{split}_label")
    assert len(dataset) == images
    content = json.loads((folder / "annotations" / f"panoptic_stuffthing_{split}.json").read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    assert {c.dataset_category_id: c.name for c in CATEGORIES}.items() <= names.items()
    num_stuff = 0
    for index, image_id in enumerate(dataset.image_ids):
        ours = dataset[index].panoptic_map.segment_ids
        path = folder / "annotations" / f"panoptic_stuffthing_{split}" / f"{image_id}.png"
        channels = torch.from_numpy(np.array(Image.open(path)).astype(np.int64))
        theirs = (channels[..., 0] + 256 * channels[..., 1] + 65536 * channels[..., 2]) // 1000
        is_stuff = theirs >= 92
        num_stuff += int(is_stuff.sum())
        assert torch.equal(ours[is_stuff], theirs[is_stuff])
    assert num_stuff > 0
