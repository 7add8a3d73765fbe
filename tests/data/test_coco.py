import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_coco import write_tiny_coco

from panoptic.data.coco import CocoPanoptic
from panoptic.structures import ImageStatistics

needs_samples = pytest.mark.skipif("PANOPTIC_SAMPLES" not in os.environ, reason="PANOPTIC_SAMPLES is not set")


def open_tiny(tiny, **options):
    return CocoPanoptic(tiny.panoptic_json, tiny.image_folder, **options)


def test_samples_hold_what_was_written(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    dataset = open_tiny(tiny)
    assert len(dataset) == 5
    assert dataset.image_ids == [100, 101, 102, 103, 104]
    for index, image_id in enumerate(dataset.image_ids):
        sample = dataset[index]
        assert sample.image.permute(1, 2, 0).tolist() == tiny.images[image_id].tolist()
        assert sample.panoptic_map.segment_ids.tolist() == tiny.ids[image_id].tolist()
        assert sample.image_id == image_id
        assert sample.file_name == f"{image_id}_photo.png"
        assert sample.original_size == sample.size == tiny.ids[image_id].shape
        assert sample.instances is None


def test_strings_and_the_home_folder_are_paths_too(tmp_path, monkeypatch):
    write_tiny_coco(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    dataset = CocoPanoptic("~/annotations/tiny.json", "~/images", png_folder="~/annotations/tiny")
    assert dataset[0].size == (12, 17)


def test_statistics_are_those_of_imagenet_unless_given(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    assert open_tiny(tiny).image_statistics == ImageStatistics()
    grey = ImageStatistics((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    assert open_tiny(tiny, image_statistics=grey).image_statistics == grey


def test_image_names_may_have_folders(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    (tiny.image_folder / "city").mkdir()
    (tiny.image_folder / "100_photo.png").rename(tiny.image_folder / "city" / "a.png")
    content = tiny.content()
    content["images"][0]["file_name"] = "city/a.png"
    tiny.rewrite(content)
    assert open_tiny(tiny)[0].image.permute(1, 2, 0).tolist() == tiny.images[100].tolist()


def test_a_missing_image_is_an_error_when_the_data_set_is_opened(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    (tiny.image_folder / "103_photo.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"1 of 5 images of .*the first is .*103_photo\.png; check .*image_folder"
    ):
        open_tiny(tiny)


def test_an_image_folder_that_is_not_there_is_an_error(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"5 of 5 images .*elsewhere/100_photo\.png; check the option image_folder"
    ):
        CocoPanoptic(tiny.panoptic_json, tmp_path / "elsewhere")


def test_an_image_that_vanishes_later_is_an_error_that_names_it(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    dataset = open_tiny(tiny)
    (tiny.image_folder / "103_photo.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"103_photo\.png"):
        dataset[3]


def test_image_and_png_of_different_size_are_an_error_that_names_both(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    Image.new("RGB", (9, 9)).save(tiny.image_folder / "101_photo.png")
    with pytest.raises(ValueError, match=r"101_photo\.png has size \(9, 9\), but its PNG .*101\.png \(9, 20\)"):
        open_tiny(tiny)[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(annotations=[], images=[]), r"tiny\.json has no annotations; expected at least one image"),
        (
            lambda c: c["images"].append({"id": 9, "file_name": "a"}),
            r"1 images of .*tiny\.json have no annotation, such as 9",
        ),
        (lambda c: c["images"].pop(), r"tiny\.json has no file name for image 104 in `images`"),
        (lambda c: (c["images"].pop(), c["annotations"].pop()), r"1 PNGs have no entry in .*104\.png"),
    ],
)
def test_a_json_that_does_not_fit_its_files_is_an_error(tmp_path, change, message):
    tiny = write_tiny_coco(tmp_path)
    content = tiny.content()
    change(content)
    tiny.rewrite(content)
    with pytest.raises(ValueError, match=message):
        open_tiny(tiny)


@needs_samples
@pytest.mark.parametrize(
    ("panoptic_json", "image_folder", "png_folder", "count"),
    [
        ("coco_panoptic/annotations/panoptic_val2017.json", "coco_panoptic/val2017", None, 3),
        ("dsb2018/annotations/panoptic_val.json", "dsb2018/images", None, 62),
        ("camvid/annotations/panoptic_cc_val.json", "camvid/val", None, 101),
        ("coco_stuff/annotations/panoptic_stuffthing_train.json", "coco_stuff/train_img", None, 13),
        (
            "mapillary_vistas/training/panoptic/panoptic_2018.json",
            "mapillary_vistas/training/images",
            "mapillary_vistas/training/panoptic",
            1,
        ),
    ],
)
def test_samples_of_real_data_sets_read(panoptic_json, image_folder, png_folder, count):
    root = Path(os.environ["PANOPTIC_SAMPLES"])
    dataset = CocoPanoptic(root / panoptic_json, root / image_folder, png_folder and root / png_folder)
    assert len(dataset) == count
    for index in range(0, count, 10):
        sample = dataset[index]
        with Image.open(root / image_folder / sample.file_name) as image:
            assert sample.size == (image.height, image.width)
            difference = np.abs(np.asarray(image.convert("RGB")).astype(int) - sample.image.permute(1, 2, 0).numpy())
        assert difference.mean() < 2  # two JPEG decoders differ by rounding, swapped channels by much more
        assert sample.panoptic_map.segments
