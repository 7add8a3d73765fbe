"""Every fault of a data set is found at once, with its file; and training stops at each of them with the same words."""

import json
import os
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from checked import check, check_agrees_with_training, found, train_on
from PIL import Image
from tiny_cityscapes import values_of as cityscapes_values
from tiny_cityscapes import write_tiny_cityscapes
from tiny_coco import write_tiny_coco
from tiny_mapillary import write_tiny_mapillary
from tiny_voc import write_palette_png, write_tiny_voc

from panoptic.data.checking import SplitCheck, compare_categories
from panoptic.data.cityscapes import Cityscapes
from panoptic.data.coco import CocoPanoptic
from panoptic.data.coco_instances import CocoInstances
from panoptic.data.contents import KEPT_CROWDED, ImageContents, SplitContents
from panoptic.data.faults import (
    DataError,
    Kind,
    MissingFileError,
    read_both,
    recorded_faults,
    report,
    report_each,
    reported,
    warn,
)
from panoptic.data.mapillary import MapillaryVistas
from panoptic.data.recounting import write_recounted
from panoptic.data.voc import VOC2012
from panoptic.structures import Category, ImageStatistics, PanopticMap, Sample, Segment

needs_samples = pytest.mark.skipif("PANOPTIC_SAMPLES" not in os.environ, reason="PANOPTIC_SAMPLES is not set")


# COCO panoptic: each fault is planted into one image of a tiny data set with areas and boxes


@pytest.fixture
def tiny(tmp_path):
    """Twenty-four images with areas and boxes, of which the last has no thing."""
    tiny = write_tiny_coco(tmp_path / "data", count=24)
    content = tiny.content()
    for entry in content["annotations"]:
        ids = tiny.ids[entry["image_id"]]
        for info in entry["segments_info"]:
            rows, columns = np.nonzero(ids == info["id"])
            width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
            info["area"] = len(rows)
            info["bbox"] = [int(value) for value in (columns.min(), rows.min(), width, height)]
    tiny.rewrite(content)
    return tiny


def open_tiny(tiny):
    return partial(CocoPanoptic, tiny.panoptic_json, tiny.image_folder)


def image_of(tiny, number):
    return tiny.image_folder / f"{100 + number}_photo.png"


def png_of(tiny, number):
    return tiny.png_folder / f"{100 + number}.png"


def segments_of(content, number):
    return content["annotations"][number]["segments_info"]


def cut(path, kept):
    path.write_bytes(path.read_bytes()[:kept])


def repaint(path, old, new):
    """Give the pixels of a segment another id."""
    with Image.open(path) as image:
        channels = np.asarray(image).astype(np.int64)
    ids = channels @ np.array([1, 256, 65536])
    ids[ids == old] = new
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)).save(path)


FAULTS = {
    "missing image": (lambda t, c, n: image_of(t, n).unlink(), Kind.MISSING_FILE, "photo"),
    "truncated image": (lambda t, c, n: cut(image_of(t, n), 60), Kind.UNREADABLE, "photo"),
    "empty image": (lambda t, c, n: cut(image_of(t, n), 0), Kind.UNREADABLE, "photo"),
    "no image": (lambda t, c, n: image_of(t, n).write_text("no pixels"), Kind.UNREADABLE, "photo"),
    "image of another size": (lambda t, c, n: Image.new("RGB", (9, 8)).save(image_of(t, n)), Kind.SIZE, "photo"),
    "missing png": (lambda t, c, n: png_of(t, n).unlink(), Kind.MISSING_FILE, "png"),
    "truncated png": (lambda t, c, n: cut(png_of(t, n), -13), Kind.UNREADABLE, "png"),
    "empty png": (lambda t, c, n: cut(png_of(t, n), 0), Kind.UNREADABLE, "png"),
    "8-bit png": (lambda t, c, n: Image.new("L", (17, 12)).save(png_of(t, n)), Kind.UNREADABLE, "png"),
    "palette png": (lambda t, c, n: Image.new("P", (17, 12)).save(png_of(t, n)), Kind.UNREADABLE, "png"),
    "png of another size": (lambda t, c, n: Image.new("RGB", (9, 8)).save(png_of(t, n)), Kind.SIZE, "png"),
    "entry without pixels": (
        lambda t, c, n: segments_of(c, n).append({"id": 9, "category_id": 3}),
        Kind.ENTRY_WITHOUT_PIXELS,
        "png",
    ),
    "wrong area": (lambda t, c, n: segments_of(c, n)[0].update(area=1), Kind.AREA, "json"),
    "wrong box": (lambda t, c, n: segments_of(c, n)[1].update(bbox=[1, 2, 5, 4]), Kind.BOX, "json"),
    "box of no width": (lambda t, c, n: segments_of(c, n)[1].update(bbox=[1, 2, 0, 4]), Kind.BOX, "json"),
    "box of three numbers": (lambda t, c, n: segments_of(c, n)[1].update(bbox=[1, 2, 6]), Kind.BOX, "json"),
    "unknown category": (
        lambda t, c, n: segments_of(c, n)[1].update(category_id=77),
        Kind.UNKNOWN_CATEGORY,
        "json",
    ),
    "segment twice": (
        lambda t, c, n: segments_of(c, n).append(dict(segments_of(c, n)[0])),
        Kind.REPEATED,
        "json",
    ),
    "segment without category": (lambda t, c, n: segments_of(c, n)[1].pop("category_id"), Kind.FORMAT, "json"),
    "segment beyond 24 bits": (
        lambda t, c, n: segments_of(c, n).append({"id": 2**24, "category_id": 3}),
        Kind.FORMAT,
        "json",
    ),
    "image twice": (lambda t, c, n: c["images"].append(dict(c["images"][n])), Kind.REPEATED, "json"),
    "annotation twice": (
        lambda t, c, n: c["annotations"].append({**c["annotations"][n], "segments_info": []}),
        Kind.REPEATED,
        "json",
    ),
}
"""{name: (plant it into image n, kind, which file is named)}"""

GLOBAL_FAULTS = {
    "stray png": (
        lambda t, c: Image.new("RGB", (7, 5)).save(t.png_folder / "stray.png"),
        {(Kind.STRAY_FILE, "stray.png"): 1},
    ),
    "category id twice": (
        lambda t, c: c["categories"].append({**c["categories"][1], "name": "lorry"}),
        {(Kind.REPEATED, "tiny.json"): 1},
    ),
    "category name twice": (
        lambda t, c: c["categories"].append({"id": 200, "name": "tree", "isthing": 0}),
        {(Kind.REPEATED, "tiny.json"): 1},
    ),
    "images without annotation": (
        lambda t, c: c["images"].extend({"id": i, "file_name": f"{i}.png"} for i in (9, 10)),
        {(Kind.UNKNOWN_IMAGE, "tiny.json"): 2},
    ),
    "annotation without image": (
        lambda t, c: c["annotations"].append({"image_id": 8, "file_name": "100.png", "segments_info": []}),
        {(Kind.UNKNOWN_IMAGE, "tiny.json"): 1},
    ),
}
"""{name: (plant it, what is found)}"""


def file_named(which, number):
    return {"photo": f"{100 + number}_photo.png", "png": f"{100 + number}.png", "json": "tiny.json"}[which]


def test_a_clean_data_set_has_no_error_and_is_told_of_things_it_lacks(tiny):
    split = check(open_tiny(tiny))
    assert split.errors == []
    assert [finding.message for finding in split.warnings] == ["1 things have no instance in train: toothbrush"]
    assert split.contents.num_images == 24
    train_on(open_tiny(tiny))


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_alone_and_met_in_training(tiny, name):
    plant, kind, which = FAULTS[name]
    content = tiny.content()
    plant(tiny, content, 3)
    tiny.rewrite(content)
    check_agrees_with_training(open_tiny(tiny), {(kind, file_named(which, 3)): 1})


@pytest.mark.parametrize("name", GLOBAL_FAULTS)
def test_a_fault_of_no_single_image_is_found_alone_and_met_in_training(tiny, name):
    plant, expected = GLOBAL_FAULTS[name]
    content = tiny.content()
    plant(tiny, content)
    tiny.rewrite(content)
    check_agrees_with_training(open_tiny(tiny), expected)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_all_planted_faults_are_found_at_once(tiny, num_workers):
    content, expected = tiny.content(), Counter()
    for number, (plant, kind, which) in enumerate(FAULTS.values()):
        plant(tiny, content, number)
        expected[kind, file_named(which, number)] += 1
    for plant, findings in GLOBAL_FAULTS.values():
        plant(tiny, content)
        expected.update(findings)
    tiny.rewrite(content)
    assert found(check(open_tiny(tiny), num_workers).errors) == expected


def test_every_id_without_entry_is_found(tiny):
    content = tiny.content()
    del segments_of(content, 2)[1:]  # the cars 258 and 70000
    tiny.rewrite(content)
    check_agrees_with_training(open_tiny(tiny), {(Kind.ID_WITHOUT_ENTRY, "102.png"): 2})
    messages = [finding.message for finding in check(open_tiny(tiny)).errors]
    assert [message.split(" has no entry")[0].split("/")[0] for message in messages] == ["id 258 in ", "id 70000 in "]


def test_faults_of_one_image_and_of_its_png_are_both_found(tiny):
    cut(image_of(tiny, 4), 60)
    repaint(png_of(tiny, 4), 70000, 5)
    expected = {
        (Kind.UNREADABLE, "104_photo.png"): 1,
        (Kind.ID_WITHOUT_ENTRY, "104.png"): 1,
        (Kind.ENTRY_WITHOUT_PIXELS, "104.png"): 1,
    }
    check_agrees_with_training(open_tiny(tiny), expected)


def test_an_image_with_faults_is_no_example_for_pictures(tiny):
    content = tiny.content()
    for number in range(24):
        if number != 7:
            segments_of(content, number)[0]["area"] = 1
    tiny.rewrite(content)
    contents = check(open_tiny(tiny)).contents
    assert contents.most_crowded(5) == [(1, 7)]
    assert {category.name: index for category, index in contents.rarest(9)} == {"car": 7, "tree": 7}


@pytest.mark.parametrize("text", ['{"annotations": [', '{"annotations": 3}', '{"annotations": [], "categories": []}'])
def test_a_split_that_cannot_be_opened_is_one_error(tiny, text):
    tiny.panoptic_json.write_text(text)
    split = check(open_tiny(tiny))
    assert [Path(finding.file).name for finding in split.errors] == ["tiny.json"]
    assert split.samples is None
    assert split.as_dict()["opened"] is False


def test_an_unreadable_instances_json_does_not_hide_other_faults(tiny):
    cut(image_of(tiny, 4), 60)
    path = tiny.panoptic_json.with_name("instances.json")
    path.write_text("{")
    opened = partial(CocoPanoptic, tiny.panoptic_json, tiny.image_folder, instances_json=path)
    expected = {(Kind.UNREADABLE, "104_photo.png"): 1, (Kind.UNREADABLE, "instances.json"): 1}
    check_agrees_with_training(opened, expected)


def test_an_instances_json_of_other_images_is_an_error_for_each(tiny):
    path = tiny.panoptic_json.with_name("instances.json")
    content = tiny.content()
    path.write_text(json.dumps({"images": content["images"][2:], "annotations": []}))
    opened = partial(CocoPanoptic, tiny.panoptic_json, tiny.image_folder, instances_json=path)
    check_agrees_with_training(opened, {(Kind.UNKNOWN_IMAGE, "instances.json"): 2})


def test_unicode_blanks_and_links_in_names_are_no_fault(tiny):
    content = tiny.content()
    image_of(tiny, 0).rename(tiny.image_folder / "Straße 1 ü.png")
    content["images"][0]["file_name"] = "Straße 1 ü.png"
    image_of(tiny, 1).rename(tiny.image_folder.parent / "elsewhere.png")
    image_of(tiny, 1).symlink_to(tiny.image_folder.parent / "elsewhere.png")
    tiny.rewrite(content)
    assert check(open_tiny(tiny)).errors == []


@pytest.mark.parametrize("mode", ["L", "CMYK", "I;16"])
def test_a_photograph_of_other_channels_is_no_fault(tiny, mode):
    height, width = tiny.ids[100].shape
    content = tiny.content()
    content["images"][0]["file_name"] = name = "other.png" if mode == "I;16" else "other.jpg"
    Image.new(mode, (width, height)).save(tiny.image_folder / name)
    tiny.rewrite(content)
    assert check(open_tiny(tiny)).errors == []
    assert open_tiny(tiny)()[0].image.shape == (3, height, width)


def test_a_photograph_to_be_shown_turned_is_a_warning_that_names_it(tiny):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show it
    content = tiny.content()
    content["images"][0]["file_name"] = "turned.jpg"
    Image.new("RGB", (17, 12)).save(tiny.image_folder / "turned.jpg", exif=exif)
    tiny.rewrite(content)
    split = check(open_tiny(tiny))
    assert split.errors == []
    assert found(split.warnings)[Kind.TURNED, "turned.jpg"] == 1


# Areas and boxes counted anew


def test_counting_anew_gives_back_the_areas_and_boxes_that_were_spoilt(tiny, tmp_path):
    clean = tiny.content()
    content = tiny.content()
    segments_of(content, 1)[0]["area"] = 1
    segments_of(content, 2)[1]["bbox"] = [0, 0, 0, 0]
    segments_of(content, 3)[2].pop("bbox")
    tiny.rewrite(content)
    file = open_spoilt(tiny)
    assert write_recounted(file, tmp_path / "new.json") == 3
    assert json.loads((tmp_path / "new.json").read_text()) == clean
    assert tiny.content() == content
    with pytest.raises(FileExistsError, match=r"new\.json exists already, and nothing is overwritten"):
        write_recounted(file, tmp_path / "new.json")


def open_spoilt(tiny):
    with recorded_faults():
        return CocoPanoptic(tiny.panoptic_json, tiny.image_folder).panoptic_file


# COCO instances

SQUARE = [1, 2, 5, 2, 5, 5, 1, 5]


def annotation(number, **changes):
    return {"id": number, "image_id": 100, "category_id": 3, "segmentation": [SQUARE], "iscrowd": 0, **changes}


@pytest.mark.parametrize(
    ("wrong", "errors", "warnings"),
    [
        ({"category_id": 5}, [Kind.UNKNOWN_CATEGORY], []),
        ({"image_id": 9}, [Kind.UNKNOWN_IMAGE], []),
        ({"segmentation": [SQUARE[:-1]]}, [Kind.FORMAT], []),
        ({"segmentation": {"size": [12, 16], "counts": [192]}}, [Kind.SIZE], []),
        ({"segmentation": {"size": [12, 17], "counts": [3, 4]}}, [Kind.FORMAT], []),
        ({"segmentation": [[1, 2, 5, 2]]}, [], [Kind.ENTRY_WITHOUT_PIXELS]),
        ({"segmentation": [[1, 2, 19, 2, 19, 5, 1, 5]]}, [], [Kind.OUTSIDE]),
        ({"segmentation": [[-1, -1, 18, -1, 18, 13, -1, 13]]}, [], []),  # a pixel beyond is how some tools round
    ],
)
def test_faults_of_instances_are_found_and_met_in_training(tmp_path, wrong, errors, warnings):
    tiny = write_tiny_coco(tmp_path, count=3)
    content = {**tiny.content(), "annotations": [annotation(1), annotation(2, **wrong), annotation(3, image_id=101)]}
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    opened = partial(CocoInstances, path, tiny.image_folder)
    split = check(opened)
    assert found(split.errors) == Counter((kind, "instances.json") for kind in errors)
    general = {Kind.NO_INSTANCES, Kind.ALL_VOID}
    assert [finding.kind for finding in split.warnings if finding.kind not in general] == warnings
    if errors:
        with pytest.raises(ValueError, match=r"instances\.json"):
            train_on(opened)
    else:
        train_on(opened)


def test_an_image_without_annotation_is_a_warning_that_names_it(tmp_path):
    tiny = write_tiny_coco(tmp_path, count=3)
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({**tiny.content(), "annotations": [annotation(1), annotation(2, image_id=101)]}))
    split = check(partial(CocoInstances, path, tiny.image_folder))
    assert found(split.warnings)[Kind.ALL_VOID, "102_photo.png"] == 1
    assert split.errors == []


def test_overlapping_instances_are_counted_by_the_data_sets_own_masks(tmp_path):
    tiny = write_tiny_coco(tmp_path, count=3)
    path = tmp_path / "instances.json"
    hidden = [annotation(1), annotation(2), annotation(3, iscrowd=1)]  # one on the other
    path.write_text(json.dumps({**tiny.content(), "annotations": hidden}))
    contents = check(partial(CocoInstances, path, tiny.image_folder)).contents
    assert contents.instances.tolist() == [2, 0, 0]
    assert contents.crowds == 1
    assert contents.pixels.tolist() == [12, 0, 0]


# Layouts without a JSON of images


def cityscapes(tmp_path):
    return write_tiny_cityscapes(tmp_path, "train", panoptic=False), partial(Cityscapes, tmp_path, "train")


AACHEN = "aachen_000000_000019"
AACHEN_TRUTH = f"gtFine/train/aachen/{AACHEN}_gtFine_instanceIds.png"
AACHEN_PHOTO = f"leftImg8bit/train/aachen/{AACHEN}_leftImg8bit.png"


def put_values(path, *values):
    changed = cityscapes_values(AACHEN)
    changed[3, 3 : 3 + len(values)] = values
    Image.fromarray(changed).save(path)


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (lambda root: (root / AACHEN_TRUTH).unlink(), {(Kind.MISSING_FILE, AACHEN): 1}),
        (lambda root: (root / AACHEN_PHOTO).unlink(), {(Kind.STRAY_FILE, AACHEN): 1}),
        (lambda root: cut(root / AACHEN_PHOTO, 60), {(Kind.UNREADABLE, Path(AACHEN_PHOTO).name): 1}),
        (lambda root: cut(root / AACHEN_TRUTH, 0), {(Kind.UNREADABLE, Path(AACHEN_TRUTH).name): 1}),
        (
            lambda root: Image.new("L", (17, 12)).save(root / AACHEN_TRUTH),
            {(Kind.UNREADABLE, Path(AACHEN_TRUTH).name): 1},
        ),
        (
            lambda root: put_values(root / AACHEN_TRUTH, 999, 34000),
            {(Kind.UNKNOWN_CATEGORY, Path(AACHEN_TRUTH).name): 2},
        ),
        (lambda root: Image.new("RGB", (9, 8)).save(root / AACHEN_PHOTO), {(Kind.SIZE, Path(AACHEN_PHOTO).name): 1}),
    ],
)
def test_faults_of_cityscapes_are_found_and_met_in_training(tmp_path, plant, expected):
    root, opened = cityscapes(tmp_path)
    assert check(opened).errors == []
    plant(root)
    check_agrees_with_training(opened, expected)


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (lambda folder: (folder / "instances" / "a_first.png").unlink(), {(Kind.MISSING_FILE, "a_first"): 1}),
        (lambda folder: (folder / "images" / "a_first.jpg").unlink(), {(Kind.STRAY_FILE, "a_first"): 1}),
        (
            lambda folder: Image.new("RGB", (20, 9)).save(folder / "instances" / "a_first.png"),
            {(Kind.UNREADABLE, "a_first.png"): 1},
        ),
        (
            lambda folder: Image.fromarray(np.full((9, 20), 4 * 256, np.uint16)).save(
                folder / "instances" / "a_first.png"
            ),
            {(Kind.UNKNOWN_CATEGORY, "a_first.png"): 1},
        ),
    ],
)
def test_faults_of_mapillary_are_found_and_met_in_training(tmp_path, plant, expected):
    root = write_tiny_mapillary(tmp_path / "vistas", "training", panoptic=False)
    opened = partial(MapillaryVistas, root, "training")
    assert check(opened).errors == []
    plant(root / "training")
    check_agrees_with_training(opened, expected)


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (lambda path: Image.new("RGB", (17, 12)).save(path), Kind.UNREADABLE),
        (lambda path: cut(path, 0), Kind.UNREADABLE),
        (lambda path: write_palette_png(path, np.full((12, 17), 77, np.uint8)), Kind.UNKNOWN_CATEGORY),
    ],
)
def test_faults_of_voc_are_found_and_met_in_training(tmp_path, plant, expected):
    root = write_tiny_voc(tmp_path / "VOC2012")
    opened = partial(VOC2012, root, "train", labels="semantic")
    assert check(opened).errors == []
    plant(root / "SegmentationClass" / "2007_000032.png")
    check_agrees_with_training(opened, {(expected, "2007_000032.png"): 1})


def test_areas_in_official_files_are_warnings_for_nobody_can_replace_these(tmp_path):
    root = write_tiny_mapillary(tmp_path / "vistas", "training", panoptic=True)
    path = root / "training" / "panoptic" / "panoptic_2018.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segments_info"][0]["area"] = 1
    path.write_text(json.dumps(content))
    opened = partial(MapillaryVistas, root, "training")
    split = check(opened)
    assert split.errors == []
    assert found(split.warnings)[Kind.AREA, "panoptic_2018.json"] == 1
    train_on(opened)


# Data sets of the user's own

CATEGORIES = [Category(0, "car", True), Category(1, "road", False), Category(2, "bus", True), Category(3, "sky", False)]


class Own:
    """Five samples of 5 x 7 pixels: image i has i cars of a pixel each and a crowd on road."""

    def __init__(self, error=None, categories=CATEGORIES):
        self.categories, self.image_statistics, self.error = categories, ImageStatistics(), error

    def __len__(self):
        return 5

    def __getitem__(self, index):
        if self.error is not None and index == 3:
            raise self.error
        ids = torch.full((5, 7), 50)
        ids[0] = 0
        ids[4, 6] = 99
        ids[2, :index] = torch.arange(1, index + 1)
        segments = [Segment(50, 1), Segment(99, 0, is_crowd=True), *(Segment(i, 0) for i in range(1, index + 1))]
        image = torch.zeros(3, 5, 7, dtype=torch.uint8)
        return Sample(image, index, f"{index}.png", PanopticMap(ids, segments), None, (5, 7))


def test_pixels_images_and_instances_are_those_that_were_drawn():
    split = check(Own)
    contents = split.contents
    # 35 pixels an image: 7 void, 1 crowd, i cars, the rest road; 0 + 1 + 2 + 3 + 4 = 10 cars
    assert contents.pixels.tolist() == [10 + 5, 5 * 27 - 10, 0, 0]
    assert contents.images.tolist() == [5, 5, 0, 0]
    assert contents.instances.tolist() == [10, 0, 0, 0]
    assert contents.crowds == 5
    assert contents.rarest(9) == [(CATEGORIES[0], 4), (CATEGORIES[1], 0)]
    assert contents.most_crowded(3) == [(4, 4), (3, 3), (2, 2)]
    report = split.as_dict()
    assert report["void_share"] == 7 / 35
    assert report["instances_per_image"] == {"min": 0, "median": 2.0, "max": 4}
    assert report["sizes"] == [{"height": 5, "width": 7, "images": 5}]
    assert report["categories"][0]["share"] == 15 / 175
    assert [row["instances"] for row in report["categories"]] == [10, None, 0, None]
    assert found(split.warnings) == {(Kind.NO_INSTANCES, None): 1, (Kind.NO_PIXELS, None): 1}


def test_an_error_without_a_file_is_told_with_its_sample():
    split = check(partial(Own, ValueError("expected 3 channels, got 1")))
    assert [finding.message for finding in split.errors] == ["sample 3, counted from 0: expected 3 channels, got 1"]
    assert split.contents.num_images == 4


def test_an_error_of_the_system_is_told_with_its_file():
    error = PermissionError(13, "Permission denied", "/data/a.png")
    assert found(check(partial(Own, error)).errors) == {(Kind.UNREADABLE, "a.png"): 1}


def test_an_error_of_the_programme_is_not_taken_for_a_fault_of_the_data():
    with pytest.raises(ZeroDivisionError, match="by zero") as raised:
        check(partial(Own, ZeroDivisionError("by zero")))
    assert raised.value.__notes__ == ["while reading sample 3, counted from 0"]


def test_images_without_ground_truth_are_read_and_not_counted():
    class Unlabelled(Own):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return Sample(sample.image, index, sample.file_name, None, None, (5, 7))

    split = check(Unlabelled)
    assert split.findings == []
    report = split.as_dict()
    assert (report["images_read"], report["images_with_truth"], report["void_share"]) == (5, 0, None)


def test_splits_of_other_categories_are_an_error_that_names_these():
    others = [*CATEGORIES[:3], Category(3, "sea", False)]
    checks = [SplitCheck("train", Own), SplitCheck("val", partial(Own, None, others)), SplitCheck("test", Own)]
    (finding,) = compare_categories(checks)
    assert finding.is_error
    assert finding.message == "categories of val are not those of train; these differ: ['sea', 'sky']"


def test_ten_thousand_images_are_remembered_by_sums_alone():
    contents = SplitContents(CATEGORIES)
    for index in range(10_000):
        number = (index * 7919) % 10_007  # all different
        contents.add(ImageContents(index, "a.png", (5, 7), {0: 1 + number}, {0: number}, 0, has_truth=True))
    assert len(contents._crowded) == KEPT_CROWDED
    numbers = sorted(((index * 7919) % 10_007, -index) for index in range(10_000))
    assert contents.most_crowded(5) == [(number, -index) for number, index in numbers[:-6:-1]]


# Reporting


def test_a_fault_is_raised_unless_faults_are_recorded():
    error = MissingFileError("no file a.png", kind=Kind.MISSING_FILE, file="a.png")
    with pytest.raises(FileNotFoundError, match=r"no file a\.png"):
        report(error)
    with pytest.raises(ValueError, match="2 files"):
        report_each(DataError("2 files"), [("a", "a"), ("b", "b")])
    with pytest.raises(OSError, match="disk"), reported():
        raise OSError("disk")
    warn(error)
    with recorded_faults() as findings:
        report(error)
        report_each(DataError("2 files"), [("b", "b is wrong"), ("c", "c is wrong")])
        with reported():
            raise OSError("disk")
        warn(DataError("small"))
        raise ValueError("the end")
    assert [finding.message for finding in findings] == [
        "no file a.png", "b is wrong", "c is wrong", "disk", "small", "the end"
    ]  # fmt: skip
    assert [finding.is_error for finding in findings] == [True, True, True, True, False, True]
    with pytest.raises(FileNotFoundError):
        report(error)


def test_the_second_reader_is_heard_only_while_faults_are_recorded():
    calls = []

    def fail(name):
        calls.append(name)
        raise ValueError(name)

    with pytest.raises(ValueError, match="first"):
        read_both(partial(fail, "first"), partial(fail, "second"))
    assert calls == ["first"]
    with recorded_faults() as findings:
        read_both(partial(fail, "first"), partial(fail, "second"))
    assert sorted(finding.message for finding in findings) == ["first", "second"]
    assert read_both(lambda: 1, lambda: "two") == (1, "two")


@needs_samples
@pytest.mark.parametrize(
    ("opened", "images", "instances", "crowds"),
    [
        (lambda root: coco_panoptic(root / "coco_panoptic"), 3, 45, 3),
        (lambda root: coco_instances(root / "coco_instances", "val2017"), 20, 119, 2),
        (lambda root: Cityscapes(root / "cityscapes", "val"), 1, 7, 0),
    ],
)
def test_samples_of_real_data_sets_have_no_error(opened, images, instances, crowds):
    split = check(partial(opened, Path(os.environ["PANOPTIC_SAMPLES"])))
    assert split.errors == []
    assert split.contents.num_images == images
    assert split.contents.instances.sum() == instances
    assert split.contents.crowds == crowds


def coco_panoptic(root):
    return CocoPanoptic(root / "annotations" / "panoptic_val2017.json", root / "val2017")


def coco_instances(root, split):
    return CocoInstances(root / "annotations" / f"instances_{split}.json", root / split)
