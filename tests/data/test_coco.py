import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_coco import CATEGORIES, write_tiny_coco

from panoptic.data.coco import CocoPanoptic
from panoptic.data.images import read_image
from panoptic.data.instances_format import read_instances, read_instances_json
from panoptic.data.panoptic_format import read_panoptic_json
from panoptic.structures import ImageStatistics

needs_samples = pytest.mark.skipif("PANOPTIC_SAMPLES" not in os.environ, reason="PANOPTIC_SAMPLES is not set")


def compressed_runs(mask):
    """COCO's run lengths of a mask (H, W), column by column, as the string that pycocotools writes.

    Each count is a little-endian number of 5 bits per character, from the fourth on the difference to the count two
    before it; bit 6 says that more follow, the highest of the five bits is the sign, 48 is added to make it printable.
    """
    counts = plain_runs(mask)
    text = ""
    for number, count in enumerate(counts):
        value = count - counts[number - 2] if number > 2 else count
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr((bits | (32 if more else 0)) + 48)
    return text


def plain_runs(mask):
    """Lengths of the runs of 0, 1, 0, ... down the columns; the first may be 0."""
    counts, last = [0], 0
    for pixel in np.asarray(mask).T.ravel().tolist():
        if pixel != last:
            counts.append(0)
            last = pixel
        counts[-1] += 1
    return counts


def write_instances(tiny, annotations, categories=CATEGORIES):
    path = tiny.panoptic_json.with_name("instances.json")
    images = tiny.content()["images"]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


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
        assert sample.file_name.endswith(f"images/{image_id}_photo.png")
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


def test_a_rotation_in_the_exif_data_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show it
    Image.new("RGB", (32, 16), (200, 10, 10)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (16, 32, 3)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_every_photograph_becomes_rgb(tmp_path, mode):
    Image.new("RGB", (7, 5), (250, 20, 20)).convert(mode).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (5, 7, 3)
    with Image.open(tmp_path / "a.png") as expected:
        assert image[0, 0].tolist() == list(expected.convert("RGB").getpixel((0, 0)))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("kept", [0, 1, 3, 0.5, 0.99])
def test_a_truncated_image_is_an_error_that_names_it(tmp_path, suffix, kept):
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(
        ValueError, match=rf"truncated or damaged image: .*cut\.{suffix} \(.* bytes\); fetch the file again"
    ):
        read_image(path)


def test_bytes_after_the_end_of_a_jpeg_are_allowed(tmp_path):
    path = tmp_path / "long.jpg"
    Image.new("RGB", (70, 50), (200, 10, 10)).save(path)
    whole = read_image(path)
    path.write_bytes(path.read_bytes() + b"camera's notes")
    assert (read_image(path) == whole).all()


def test_a_file_that_is_no_image_is_an_error_that_names_it(tmp_path):
    (tmp_path / "notes.jpg").write_text("no pixels")
    with pytest.raises(ValueError, match=r"truncated or damaged image: .*notes\.jpg"):
        read_image(tmp_path / "notes.jpg")


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


def test_instances_are_drawn_from_polygons_and_run_lengths(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    blob = np.zeros((12, 17), dtype=int)
    blob[3:6, 2:9] = 1
    blob[5:11, 7:12] = 1
    column = np.zeros((12, 17), dtype=int)
    column[:, 0] = 1
    # polygons in pixel corners: columns 1..4 and rows 2..4; two parts, the second columns 8..9 and row 0
    polygons = [[1, 2, 5, 2, 5, 5, 1, 5], [8, 0, 10, 0, 10, 1, 8, 1]]
    drawn = np.zeros((12, 17), dtype=int)
    drawn[2:5, 1:5] = drawn[0, 8:10] = 1
    annotations = [
        {"id": 1, "image_id": 100, "category_id": 90, "segmentation": polygons},
        {
            "id": 2,
            "image_id": 100,
            "category_id": 3,
            "iscrowd": 1,
            "segmentation": {"size": [12, 17], "counts": plain_runs(blob)},
        },
        {
            "id": 3,
            "image_id": 100,
            "category_id": 3,
            "iscrowd": 0,
            "segmentation": {"size": [12, 17], "counts": compressed_runs(blob)},
        },
        {
            "id": 4,
            "image_id": 100,
            "category_id": 3,
            "iscrowd": 0,
            "segmentation": {"size": [12, 17], "counts": compressed_runs(column)},
        },
        {"id": 5, "image_id": 100, "category_id": 3, "segmentation": [[1, 1, 5, 5]]},
        {"id": 6, "image_id": 102, "category_id": 3, "segmentation": [[0, 0, 3, 0, 3, 3, 0, 3]]},
    ]
    dataset = open_tiny(tiny, instances_json=write_instances(tiny, annotations))
    instances = dataset[0].instances
    assert instances.category_ids.tolist() == [1, 0, 0, 0]  # the line between two points has no area
    assert instances.is_crowd.tolist() == [False, True, False, False]
    assert instances.scores.tolist() == [1, 1, 1, 1]
    for mask, expected in zip(instances.masks, (drawn, blob, blob, column), strict=True):
        assert mask.int().tolist() == expected.tolist()
    # x2 and y2 exclusive
    assert instances.boxes.tolist() == [[1, 0, 10, 5], [2, 3, 12, 11], [2, 3, 12, 11], [0, 0, 1, 12]]
    assert dataset[1].instances.masks.shape == (0, 9, 20)
    assert dataset[2].instances.boxes.tolist() == [[0, 0, 3, 3]]


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"category_id": 77}, r"unknown category id 77 in .*instances\.json, annotation 5; things .* are \[3, 90\]"),
        ({"category_id": 184}, "unknown category id 184 in"),  # a tree is stuff
        ({"image_id": 7}, "annotation 5 in .* is of image 7, not in `images`"),
    ],
)
def test_a_wrong_annotation_is_an_error_when_the_data_set_is_opened(tmp_path, annotation, message):
    tiny = write_tiny_coco(tmp_path)
    entry = {"id": 5, "image_id": 100, "category_id": 3, "segmentation": [[0, 0, 3, 0, 3, 3]], **annotation}
    with pytest.raises(ValueError, match=message):
        open_tiny(tiny, instances_json=write_instances(tiny, [entry]))


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[0, 0, 3, 0, 3, 3, 1]], "a polygon of annotation 5 in .* has an odd number of coordinates"),
        ({"size": [17, 12], "counts": [204]}, r"annotation 5 in .* has size \[17, 12\], its image \[12, 17\]"),
    ],
)
def test_a_wrong_mask_is_an_error_that_names_the_annotation(tmp_path, segmentation, message):
    tiny = write_tiny_coco(tmp_path)
    entry = {"id": 5, "image_id": 100, "category_id": 3, "segmentation": segmentation}
    with pytest.raises(ValueError, match=message):
        open_tiny(tiny, instances_json=write_instances(tiny, [entry]))[0]


def test_an_instances_file_without_one_of_the_images_is_an_error(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    path = write_instances(tiny, [])
    content = json.loads(path.read_text())
    content["images"].pop(1)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"instances\.json does not list 1 images of .*tiny\.json, such as 101"):
        open_tiny(tiny, instances_json=path)


def test_an_instances_file_that_is_not_json_or_lacks_a_key_is_an_error(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    path = tmp_path / "instances.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"expected JSON in .*instances\.json"):
        open_tiny(tiny, instances_json=path)
    path.write_text('{"annotations": []}')
    with pytest.raises(ValueError, match=r"an entry of .*instances\.json lacks the key 'images'"):
        open_tiny(tiny, instances_json=path)


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
        with Image.open(sample.file_name) as image:
            assert sample.size == (image.height, image.width)
            difference = np.abs(np.asarray(image.convert("RGB")).astype(int) - sample.image.permute(1, 2, 0).numpy())
        assert difference.mean() < 2  # two JPEG decoders differ by rounding, swapped channels by much more
        assert sample.panoptic_map.segments


@needs_samples
def test_coco_instances_lie_on_the_segments_of_the_panoptic_map():
    root = Path(os.environ["PANOPTIC_SAMPLES"]) / "coco_panoptic"
    dataset = CocoPanoptic(root / "annotations" / "panoptic_val2017.json", root / "val2017")
    sample = dataset[dataset.image_ids.index(39769)]
    file = read_instances_json(root / "annotations" / "instances_val2017.json", dataset.categories)
    instances = read_instances(file, 39769, sample.size)
    segments = {s.id: sample.panoptic_map.segment_ids == s.id for s in sample.panoptic_map.segments}
    best = []
    for mask in instances.masks:
        overlaps = {i: float((mask & other).sum() / (mask | other).sum()) for i, other in segments.items()}
        best.append(max(overlaps.values()))
    names = [dataset.categories[i].name for i in instances.category_ids.tolist()]
    assert sorted(names) == ["bed", "cat", "cat", "couch", "remote", "remote"]
    # the file lists the couch once more as a bed, which the panoptic map has not
    assert all(iou > 0.95 for iou, name in zip(best, names, strict=True) if name != "bed")


@needs_samples
def test_masks_of_coco_instances_have_the_areas_and_boxes_of_the_file(tmp_path):
    path = next((Path(os.environ["PANOPTIC_SAMPLES"]) / "coco_instances").rglob("*val*.json"))
    content = json.loads(path.read_text())
    categories = [{**category, "isthing": 1} for category in content["categories"]]
    (tmp_path / "categories.json").write_text(json.dumps({"annotations": [], "categories": categories}))
    file = read_instances_json(path, read_panoptic_json(tmp_path / "categories.json").categories)
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    box_errors = []
    for image_id, entries in file.entries.items():
        instances = read_instances(file, image_id, sizes[image_id])
        for entry, mask, box in zip(entries, instances.masks, instances.boxes, strict=True):
            x, y, width, height = entry["bbox"]
            box_errors.append(float((box - torch.tensor([x, y, x + width, y + height])).abs().max()))
            if entry["iscrowd"]:
                assert mask.sum() == sum(entry["segmentation"]["counts"][1::2])
            else:  # the file's area is that of the polygon, not of its pixels
                assert abs(int(mask.sum()) - entry["area"]) <= 2 + 0.05 * entry["area"] + width + height
    assert len(box_errors) > 100
    assert np.quantile(box_errors, 0.9) <= 1  # more only where a spike of a polygon is thinner than a pixel
