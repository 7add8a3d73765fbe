import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_cityscapes import EVALUATED, FRAMES, SIZE, values_of, write_tiny_cityscapes

from panoptic.assembly import build_data
from panoptic.configuration import load_config, resolved
from panoptic.data.cityscapes import CATEGORIES
from panoptic.data.cityscapes_semantic import CityscapesSemantic
from panoptic.structures import ImageStatistics, SizeRule

needs_samples = pytest.mark.skipif("PANOPTIC_SAMPLES" not in os.environ, reason="PANOPTIC_SAMPLES is not set")

FIRST = "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"
FRAMES_IN_ORDER = ["aachen_000000_000019", "berlin_000000_000019", "berlin_000001_000019"]


@pytest.fixture
def root(tmp_path):
    return write_tiny_cityscapes(tmp_path / "cityscapes", "train", "val", panoptic=False)


def make_coarse(root):
    """Turn val into train_extra, with coarse annotations of other frames."""
    (root / "leftImg8bit" / "val").rename(root / "leftImg8bit" / "train_extra")
    (root / "gtCoarse").mkdir()
    (root / "gtFine" / "val").rename(root / "gtCoarse" / "train_extra")
    for path in [*(root / "leftImg8bit" / "train_extra").glob("*/*"), *(root / "gtCoarse").glob("*/*/*")]:
        path.rename(path.with_name(path.name.replace("gtFine", "gtCoarse").replace("_0000", "_9000")))


def train_ids_of(frame):
    """(H, W) official train ids by the official table, 255 where a label is not evaluated."""
    values = values_of(frame).astype(int)
    labels = np.where(values < 1000, values, values // 1000)
    table = np.full(34, 255)
    table[list(EVALUATED)] = range(19)
    return table[labels]


def category_map(panoptic_map):
    categories = {segment.id: segment.category_id for segment in panoptic_map.segments}
    return np.vectorize(lambda i: categories.get(i, 255))(panoptic_map.segment_ids.numpy())


def test_labels_become_train_ids_and_groups_of_things_are_no_crowds(root):
    dataset = CityscapesSemantic(root, "train")
    assert dataset.image_ids == FRAMES_IN_ORDER
    for index, frame in enumerate(dataset.image_ids):
        sample = dataset[index]
        assert (sample.image_id, sample.file_name) == (frame, f"{FRAMES[frame]}/{frame}_leftImg8bit.png")
        expected = train_ids_of(frame)
        assert np.array_equal(category_map(sample.panoptic_map), expected)
        # two cars and a group of cars are one segment
        areas = {segment.category_id: segment.area for segment in sample.panoptic_map.segments}
        assert areas == {i: int((expected == i).sum()) for i in set(np.unique(expected).tolist()) - {255}}
        assert not any(segment.is_crowd for segment in sample.panoptic_map.segments)
        assert dataset.category_ids(index) == set(areas)


def test_categories_are_those_of_the_panoptic_form_without_things(root):
    categories = CityscapesSemantic(root, "train").categories
    assert [(c.id, c.name, c.colour, c.dataset_category_id) for c in categories] == [
        (c.id, c.name, c.colour, c.dataset_category_id) for c in CATEGORIES
    ]
    assert not any(category.is_thing for category in categories)


def test_several_splits_follow_each_other_and_the_coarse_annotations_are_those_of_train_extra(root):
    make_coarse(root)
    dataset = CityscapesSemantic(root, ["train_extra", "train"])
    extra = [frame.replace("_0000", "_9000") for frame in FRAMES_IN_ORDER]
    assert dataset.image_ids == extra + FRAMES_IN_ORDER
    for index, frame in enumerate(FRAMES_IN_ORDER * 2):
        assert np.array_equal(category_map(dataset[index].panoptic_map), train_ids_of(frame))


def test_statistics_are_those_of_imagenet_unless_given(root):
    assert CityscapesSemantic(root, "train").image_statistics == ImageStatistics()
    grey = ImageStatistics((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    assert CityscapesSemantic(root, "train", grey).image_statistics == grey


@pytest.mark.parametrize("value", [34, 254, 255])
def test_an_unknown_label_is_an_error_that_names_the_file(root, value):
    labels = np.full(SIZE, 7, dtype=np.uint8)
    labels[3, 4] = value
    Image.fromarray(labels).save(root / FIRST)
    message = rf"unknown label {value} in .*aachen_000000_000019_gtFine_labelIds\.png; expected label ids 0\.\.33, not"
    with pytest.raises(ValueError, match=message):
        CityscapesSemantic(root, "train")[0]


def test_the_last_label_and_the_first_are_known(root):
    labels = np.full(SIZE, 33, dtype=np.uint8)
    labels[0] = 0
    Image.fromarray(labels).save(root / FIRST)
    (segment,) = CityscapesSemantic(root, "train")[0].panoptic_map.segments
    assert (segment.category_id, segment.area) == (18, 11 * 17)  # bicycle


def test_labels_that_were_saved_as_colours_are_an_error_that_names_the_file(root):
    Image.new("RGB", SIZE[::-1]).save(root / FIRST)
    with pytest.raises(ValueError, match=r"expected a PNG with palette indices, or one 8-bit .*_labelIds\.png"):
        CityscapesSemantic(root, "train")[0]


def test_a_photograph_of_another_size_than_its_ground_truth_is_named(root):
    Image.new("RGB", (9, 8)).save(root / "leftImg8bit" / "train" / "aachen" / "aachen_000000_000019_leftImg8bit.png")
    with pytest.raises(ValueError, match=r"aachen_.*\.png has size \(8, 9\), but its ground truth \(12, 17\)"):
        CityscapesSemantic(root, "train")[0]


def test_a_photograph_without_labels_is_an_error_when_the_data_set_is_opened(root):
    (root / FIRST).unlink()
    message = r"1 of 3 images have no PNGs of label ids for the split train in .*, the first is aachen_000000_000019"
    with pytest.raises(FileNotFoundError, match=message):
        CityscapesSemantic(root, "train")


@pytest.mark.parametrize(("split", "folder"), [("val", "gtFine/val"), ("train_extra", "gtCoarse/train_extra")])
def test_a_split_without_ground_truth_is_named(root, split, folder):
    if split == "train_extra":
        make_coarse(root)
    shutil.rmtree(root / folder)
    with pytest.raises(FileNotFoundError, match=rf"no folder .*{folder}; expected <city>/<frame>_.*predict"):
        CityscapesSemantic(root, split)


def test_the_configuration_loads_crops_and_whole_images(root):
    small = ["data.train_transform.size=[9,13]", "data.batch_size=2", "data.num_workers=0"]
    data = build_data(resolved(load_config("train", ["data=cityscapes_semantic", f"data.root={root}", *small])))
    data.connect({}, SizeRule(16, 1))
    assert [batch.image_sizes for batch in data.train_dataloader()] == [[(9, 13), (9, 13)]]
    assert [batch.image_sizes for batch in data.val_dataloader()] == [[SIZE]] * 3


@needs_samples
def test_the_samples_train_ids_are_the_files_own():
    folder = Path(os.environ["PANOPTIC_SAMPLES"]) / "cityscapes"
    dataset = CityscapesSemantic(folder, "val")
    (path,) = (folder / "gtFine" / "val").glob("*/*_labelTrainIds.png")
    with Image.open(path) as image:
        train_ids = torch.from_numpy(np.array(image))
    found = torch.from_numpy(category_map(dataset[0].panoptic_map))
    # scaled down apart from each other, they differ at 0.24 % of the pixels, by the samples' own account
    assert (found != train_ids).double().mean() < 0.003
    assert (found == 255).any()
