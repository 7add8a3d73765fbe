import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_cityscapes import EVALUATED, FRAMES, SIZE, panoptic_content, values_of, write_tiny_cityscapes

from panoptic.assembly import build_data
from panoptic.configuration import load_config, resolved
from panoptic.data.cityscapes import CATEGORIES, Cityscapes
from panoptic.data.panoptic_format import read_panoptic_json, read_panoptic_map
from panoptic.structures import Category, ImageStatistics, SizeRule

needs_samples = pytest.mark.skipif("PANOPTIC_SAMPLES" not in os.environ, reason="PANOPTIC_SAMPLES is not set")

PANOPTIC_OR_NOT = pytest.mark.parametrize("panoptic", [True, False], ids=["panoptic", "instance_ids"])


@pytest.fixture
def root(tmp_path):
    return write_tiny_cityscapes(tmp_path / "cityscapes", "train", panoptic=False)


def test_the_nineteen_categories_are_numbered_as_the_official_train_ids():
    assert [category.id for category in CATEGORIES] == list(range(19))
    assert {category.dataset_category_id: category.name for category in CATEGORIES} == EVALUATED
    assert CATEGORIES[13] == Category(13, "car", True, "vehicle", (0, 0, 142), 26)
    things = ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
    assert [category.name for category in CATEGORIES if category.is_thing] == things
    groups = {"flat": 2, "construction": 3, "object": 3, "nature": 2, "sky": 1, "human": 2, "vehicle": 6}
    assert {group: sum(c.group == group for c in CATEGORIES) for group in groups} == groups


@PANOPTIC_OR_NOT
def test_samples_hold_what_was_written(tmp_path, panoptic):
    root = write_tiny_cityscapes(tmp_path, "val", panoptic=panoptic)
    dataset = Cityscapes(str(root), "val")
    assert dataset.image_ids == ["aachen_000000_000019", "berlin_000000_000019", "berlin_000001_000019"]
    assert len(dataset) == 3
    for index, frame in enumerate(dataset.image_ids):
        sample, values = dataset[index], values_of(frame).astype(int)
        assert (sample.image_id, sample.file_name) == (frame, f"{FRAMES[frame]}/{frame}_leftImg8bit.png")
        assert sample.size == sample.original_size == SIZE
        with Image.open(root / "leftImg8bit" / "val" / sample.file_name) as photograph:
            assert np.array_equal(photograph, sample.image.permute(1, 2, 0).numpy())
        # unlabeled, ego vehicle and trailer are not evaluated
        expected = np.where(np.isin(values, [0, 1, 30001]), 0, values)
        assert np.array_equal(sample.panoptic_map.segment_ids.numpy(), expected)
        named = {s.id: (CATEGORIES[s.category_id].name, s.is_crowd, s.area) for s in sample.panoptic_map.segments}
        things = {26: ("car", True), 26000: ("car", False), 26013: ("car", False), 24000: ("person", False)}
        things |= {7: ("road", False), 23: ("sky", False)}
        areas = {value: int((values == value).sum()) for value in things}
        assert named == {value: (*things[value], area) for value, area in areas.items() if area}
        assert sample.instances is None


def test_statistics_are_those_of_imagenet_unless_given(root):
    assert Cityscapes(root, "train").image_statistics == ImageStatistics()
    grey = ImageStatistics((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    assert Cityscapes(root, "train", grey).image_statistics == grey


def test_the_home_folder_may_be_written_short(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    assert len(Cityscapes("~/cityscapes", "train")) == 3


def test_a_split_that_is_not_there_is_named(root):
    with pytest.raises(FileNotFoundError, match=r"no folder .*leftImg8bit/val; expected the photographs of a split"):
        Cityscapes(root, "val")


def test_a_split_without_photographs_is_named(root):
    shutil.rmtree(root / "leftImg8bit" / "train" / "aachen")
    shutil.rmtree(root / "leftImg8bit" / "train" / "berlin")
    with pytest.raises(ValueError, match=r"no <city>/<frame>_leftImg8bit\.png in .*leftImg8bit/train"):
        Cityscapes(root, "train")


def test_a_split_without_ground_truth_says_what_it_is_for(root):
    shutil.rmtree(root / "gtFine")
    with pytest.raises(FileNotFoundError, match=r"panoptic_train\.json or .*gtFine/train, found neither; .* predict"):
        Cityscapes(root, "train")


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        (
            "gtFine/train/aachen/aachen_000000_000019_gtFine_instanceIds.png",
            r"1 of 3 images have no PNGs .*instanceIds\.png in .*train, the first is aachen_000000_000019",
        ),
        (
            "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png",
            r"1 PNGs .*instanceIds\.png in .*train have no image, the first is aachen_000000_000019; add it or remove",
        ),
    ],
)
def test_a_photograph_or_ground_truth_alone_is_an_error_when_the_data_set_is_opened(root, removed, message):
    (root / removed).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        Cityscapes(root, "train")


@pytest.mark.parametrize(
    ("removed", "error", "message"),
    [
        ("cityscapes_panoptic_val/aachen_000000_000019_gtFine_panoptic.png", ValueError, r"1 PNGs of .* are missing"),
        (
            "../leftImg8bit/val/aachen/aachen_000000_000019_leftImg8bit.png",
            FileNotFoundError,
            "1 entries of .* no image",
        ),
    ],
)
def test_panoptic_files_that_do_not_fit_the_images_are_an_error(tmp_path, removed, error, message):
    root = write_tiny_cityscapes(tmp_path, "val", panoptic=True)
    (root / "gtFine" / removed).unlink()
    with pytest.raises(error, match=message):
        Cityscapes(root, "val")


def test_panoptic_files_of_train_ids_are_an_error(tmp_path):
    root = write_tiny_cityscapes(tmp_path, "val", panoptic=True)
    content = panoptic_content(root, "val")
    for number, category in enumerate(content["categories"]):
        category["id"] = number
    content["annotations"] = []
    (root / "gtFine" / "cityscapes_panoptic_val.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"expected the 19 evaluated labels .*_val\.json, got .*\(0, 'road'\).*ids"):
        Cityscapes(root, "val")


# 26 and 26999 are known, so are the neighbours of what is not
@pytest.mark.parametrize("value", [34, 999, 1000, 23001, 34000, 65535])
def test_an_unknown_label_is_an_error_that_names_the_file(root, value):
    values = values_of("aachen_000000_000019")
    values[3, 3] = value
    path = root / "gtFine" / "train" / "aachen" / "aachen_000000_000019_gtFine_instanceIds.png"
    Image.fromarray(values).save(path)
    with pytest.raises(
        ValueError, match=rf"unknown value {value} in .*aachen_000000_000019.*; expected label ids 0\.\.33"
    ):
        Cityscapes(root, "train")[0]


@pytest.mark.parametrize("value", [0, 26, 33, 24000, 26999, 29000, 33999])
def test_a_known_label_is_none(root, value):
    values = values_of("aachen_000000_000019")
    values[3, 3] = value
    path = root / "gtFine" / "train" / "aachen" / "aachen_000000_000019_gtFine_instanceIds.png"
    Image.fromarray(values).save(path)
    assert Cityscapes(root, "train")[0].panoptic_map.segment_ids[3, 3] in (value, 0)


def test_ground_truth_of_eight_bits_is_an_error_that_names_the_file(root):
    path = root / "gtFine" / "train" / "aachen" / "aachen_000000_000019_gtFine_instanceIds.png"
    Image.new("L", (17, 12)).save(path)
    with pytest.raises(ValueError, match=r"expected a PNG with one 16-bit channel.*instanceIds\.png"):
        Cityscapes(root, "train")[0]


@PANOPTIC_OR_NOT
def test_a_photograph_of_another_size_than_its_ground_truth_is_named(tmp_path, panoptic):
    root = write_tiny_cityscapes(tmp_path, "val", panoptic=panoptic)
    path = root / "leftImg8bit" / "val" / "aachen" / "aachen_000000_000019_leftImg8bit.png"
    Image.new("RGB", (9, 8)).save(path)
    with pytest.raises(ValueError, match=r"aachen_.*\.png has size \(8, 9\), but its ground truth \(12, 17\)"):
        Cityscapes(root, "val")[0]


def test_the_configuration_loads_batches_of_whole_images(tmp_path):
    root = write_tiny_cityscapes(tmp_path, "train", "val", panoptic=False)
    words = ["data=cityscapes", f"data.root={root}", "data.train_transform.size=[12,17]", "data.num_workers=0"]
    data = build_data(resolved(load_config("train", words)))
    data.connect({}, SizeRule(32))
    batches = list(data.train_dataloader())
    assert [batch.image_sizes for batch in batches] == [[(12, 17), (12, 17)]]
    assert [batch.truths[0].size for batch in data.val_dataloader()] == [SIZE] * 3


@needs_samples
def test_the_sample_of_the_real_data_set_reads_the_same_both_ways(tmp_path):
    sample = Path(os.environ["PANOPTIC_SAMPLES"]) / "cityscapes"
    by_panoptic = Cityscapes(sample, "val")
    (tmp_path / "gtFine").mkdir()
    (tmp_path / "gtFine" / "val").symlink_to(sample / "gtFine" / "val")
    (tmp_path / "leftImg8bit").symlink_to(sample / "leftImg8bit")
    by_instance_ids = Cityscapes(tmp_path, "val")
    assert by_panoptic.image_ids == by_instance_ids.image_ids == ["frankfurt_000000_000294"]
    expected, found = by_panoptic[0], by_instance_ids[0]
    assert expected.size == (128, 256)
    assert torch.equal(found.image, expected.image)
    assert torch.equal(found.panoptic_map.segment_ids, expected.panoptic_map.segment_ids)
    by_id = {segment.id: segment for segment in expected.panoptic_map.segments}
    assert {segment.id: segment for segment in found.panoptic_map.segments} == by_id
    assert len(by_id) == 15
    # the JSON's own table has the same names, groups, colours and things
    file = read_panoptic_json(sample / "gtFine" / "cityscapes_panoptic_val.json")
    assert file.categories == list(CATEGORIES)


@needs_samples
def test_categories_and_crowds_are_those_of_a_second_sample_with_train_ids():
    folder = Path(os.environ["PANOPTIC_SAMPLES"]) / "cityscapes_panoptic_deeplab2" / "gtFine"
    train_ids = [replace(category, dataset_category_id=category.id) for category in CATEGORIES]
    file = read_panoptic_json(folder / "cityscapes_panoptic_dummy_trainId.json", categories=train_ids)
    (annotation,) = file.annotations.values()
    segments = read_panoptic_map(file, annotation).segments
    assert len(segments) == 10
    for segment in segments:
        label = segment.id if segment.id < 1000 else segment.id // 1000
        category = CATEGORIES[segment.category_id]
        assert category.dataset_category_id == label
        assert segment.is_crowd == (category.is_thing and segment.id < 1000)
