import threading

import pytest
import torch
from noise_data import Noise, datamodule
from tiny_coco import write_tiny_coco
from tiny_voc import write_tiny_voc

from panoptic.data.coco import CocoPanoptic
from panoptic.data.repetition import RepeatedImages, images_with
from panoptic.data.samplers import sample_seed
from panoptic.data.voc import VOC2012


class Named(Noise):
    """Noise that can tell what its images contain: those with an even number have a car, 0; all have a road, 1."""

    def __getitem__(self, index):
        raise AssertionError("photographs need not be read")

    def category_ids(self, index):
        return {1} if index % 2 else {0, 1}


def test_images_that_contain_a_category_come_again_after_all_others():
    dataset = RepeatedImages(Noise(7), ["car"])
    # the even ones, see Noise
    assert [sample.image_id for sample in (dataset[index] for index in range(len(dataset)))] == [*range(7), 0, 2, 4, 6]
    assert len(dataset) == 11


@pytest.mark.parametrize(("times", "length"), [(0, 7), (1, 11), (3, 19)])
def test_images_come_again_as_often_as_asked(times, length):
    dataset = RepeatedImages(Noise(7), ["car"], times)
    assert len(dataset) == length
    assert [dataset[index].image_id for index in range(7, length)] == [0, 2, 4, 6] * times


def test_any_of_several_categories_is_enough():
    assert images_with(Named(5), {0}) == [0, 2, 4]
    assert images_with(Named(5), {0, 1}) == [0, 1, 2, 3, 4]
    assert images_with(Named(5), {7}) == []


def test_a_data_set_that_knows_its_categories_is_not_read():
    assert RepeatedImages(Named(5), ["car"]).repeated == [0, 2, 4]


def test_nothing_is_read_where_nothing_is_repeated():
    class Unread(Named):
        def category_ids(self, index):
            raise AssertionError("times is 0")

    assert len(RepeatedImages(Unread(5), ["car"], times=0)) == 5


def test_categories_and_statistics_are_the_data_sets_own():
    noise = Noise(7)
    dataset = RepeatedImages(noise, ["road"])
    assert dataset.categories == noise.categories
    assert dataset.image_statistics == noise.image_statistics


def test_an_image_that_comes_again_is_augmented_anew():
    dataset = RepeatedImages(Noise(5), ["car"])
    module = datamodule(dataset, batch_size=8, num_workers=0)
    (batch,) = module.train_dataloader()
    firsts = [sample for sample in batch.samples if sample.image_id == 2]
    assert len(firsts) == 2
    # the seed of each index, 2 and 5 + 1, in epoch 0
    assert {sample.seed for sample in firsts} == {sample_seed(3, 0, 2), sample_seed(3, 0, 6)}
    assert not torch.equal(firsts[0].image, firsts[1].image)


def test_a_panoptic_json_needs_no_pixels(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    dataset = CocoPanoptic(tiny.panoptic_json, tiny.image_folder)
    slow = [{s.category_id for s in dataset[index].panoptic_map.segments} for index in range(len(dataset))]
    for path in (*tiny.png_folder.iterdir(), *tiny.image_folder.iterdir()):
        path.unlink()
    assert [dataset.category_ids(index) for index in range(len(dataset))] == slow
    # the last image has no thing, see write_tiny_coco
    assert RepeatedImages(dataset, ["car"]).repeated == [0, 1, 2, 3]


@pytest.mark.parametrize("labels", ["semantic", "panoptic"])
def test_hard_classes_of_voc_are_found_without_reading_photographs(tmp_path, labels):
    root = write_tiny_voc(tmp_path)
    dataset = VOC2012(root, "trainval", labels=labels)
    for path in (root / "JPEGImages").iterdir():
        path.unlink()
    assert RepeatedImages(dataset, ["bicycle", "chair", "diningtable", "pottedplant", "sofa"]).repeated == [1]


def test_images_are_read_side_by_side():
    both = threading.Barrier(2, timeout=20)

    class Waiting(Named):
        def category_ids(self, index):
            both.wait()  # breaks unless two are read at a time
            return {0}

    assert images_with(Waiting(4), {0}) == [0, 1, 2, 3]


def test_a_fault_of_the_data_set_comes_out_as_it_was_raised():
    class Faulty(Named):
        def category_ids(self, index):
            raise ValueError(f"unknown class 21 in {index}.png")

    with pytest.raises(ValueError, match=r"unknown class 21 in 0\.png"):
        RepeatedImages(Faulty(40), ["car"])


@pytest.mark.parametrize(
    ("categories", "times", "message"),
    [
        (
            ["car", "table"],
            1,
            r"expected names of categories to repeat, got \['table'\]; the data set has \['car', 'ro",
        ),
        ([], 1, r"expected names of categories to repeat, got none; the data set has \['car', 'road'\]"),
        (["car"], -1, "expected times of 0 or more, got -1"),
    ],
)
def test_what_cannot_be_repeated_is_an_error(categories, times, message):
    with pytest.raises(ValueError, match=message):
        RepeatedImages(Named(5), categories, times)


def test_no_image_to_repeat_is_an_error():
    class Empty(Named):
        def category_ids(self, index):
            return {1}

    with pytest.raises(
        ValueError, match=r"none of the 5 images contains any of \['car'\]; train on the data set itsel"
    ):
        RepeatedImages(Empty(5), ["car"])
