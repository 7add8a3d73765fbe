import os
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from damage import cut
from PIL import Image
from tiny_voc import (
    CAR,
    CHAIR,
    OF_SBD,
    PERSON,
    SIZES,
    classes_of,
    objects_of,
    sbd_classes_of,
    write_list,
    write_palette_png,
    write_sbd_classes,
    write_tiny_sbd,
    write_tiny_voc,
)

from panoptic.assembly import build_data
from panoptic.configuration import load_config, resolved
from panoptic.data.faults import recorded_faults
from panoptic.data.sbd import read_sbd_classes, read_sbd_objects
from panoptic.data.voc import CATEGORIES, SEMANTIC_CATEGORIES, VOC2012, voc_colour
from panoptic.structures import Category, ImageStatistics, SizeRule

needs_samples = pytest.mark.skipif("PANOPTIC_SAMPLES" not in os.environ, reason="PANOPTIC_SAMPLES is not set")

NAMES = [
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]


@pytest.fixture
def root(tmp_path):
    return write_tiny_voc(tmp_path / "VOC2012")


@pytest.fixture
def sbd(tmp_path):
    return write_tiny_sbd(tmp_path / "dataset")


def category_map(panoptic_map):
    """(H, W) category ids, 255 where the map is void."""
    categories = {segment.id: segment.category_id for segment in panoptic_map.segments}
    return np.vectorize(lambda i: categories.get(i, 255))(panoptic_map.segment_ids.numpy())


def test_categories_have_the_development_kits_names_values_and_colours():
    assert [category.name for category in CATEGORIES] == NAMES
    assert [(c.id, c.dataset_category_id) for c in CATEGORIES] == [(value, value) for value in range(21)]
    assert [category.name for category in CATEGORIES if not category.is_thing] == ["background"]
    assert CATEGORIES[CAR] == Category(7, "car", True, "vehicle", (128, 128, 128), 7)
    assert not any(category.is_thing for category in SEMANTIC_CATEGORIES)
    assert [c.name for c in SEMANTIC_CATEGORIES] == NAMES
    groups = {"vehicle": 7, "animal": 6, "indoor": 6, "person": 1, None: 1}
    assert {group: sum(c.group == group for c in CATEGORIES) for group in groups} == groups


@pytest.mark.parametrize(
    ("value", "colour"),
    [(0, (0, 0, 0)), (1, (128, 0, 0)), (6, (0, 128, 128)), (8, (64, 0, 0)), (20, (0, 64, 128)), (255, (224, 224, 192))],
)
def test_colours_are_those_of_the_official_palette(value, colour):
    assert voc_colour(value) == colour


@pytest.mark.parametrize("void", [255, 0], ids=["official", "labelme"])
def test_the_panoptic_form_has_a_segment_for_each_object_and_one_for_the_background(tmp_path, void):
    dataset = VOC2012(write_tiny_voc(tmp_path, void=void), "val")
    (sample,) = (dataset[index] for index in range(len(dataset)))
    assert (sample.image_id, sample.file_name) == ("2007_000033", "2007_000033.jpg")
    assert sample.size == sample.original_size == sample.panoptic_map.size == SIZES["2007_000033"]
    classes, objects = classes_of("2007_000033"), objects_of("2007_000033")
    assert np.array_equal(category_map(sample.panoptic_map), classes)
    # segment ids are numbers of objects; 255 is the background, as it is void in the file
    expected = np.where(objects == 255, 0, np.where(objects == 0, 255, objects))
    assert np.array_equal(sample.panoptic_map.segment_ids.numpy(), expected)
    named = {s.id: (s.category_id, s.is_crowd, s.area) for s in sample.panoptic_map.segments}
    areas = {number: int((objects == number).sum()) for number in range(5)}
    things = {1: CAR, 2: PERSON, 3: CAR, 4: CHAIR}
    assert named == {255: (0, False, areas[0]), **{i: (things[i], False, areas[i]) for i in things}}


def test_the_semantic_form_has_a_segment_for_each_class(root):
    dataset = VOC2012(root, "val", labels="semantic")
    panoptic_map = dataset[0].panoptic_map
    classes = classes_of("2007_000033")
    assert np.array_equal(category_map(panoptic_map), classes)
    areas = {(s.category_id, s.area) for s in panoptic_map.segments}
    assert areas == {(value, int((classes == value).sum())) for value in (0, CAR, PERSON, CHAIR)}
    assert dataset.categories == list(SEMANTIC_CATEGORIES)


def test_the_semantic_form_needs_no_objects(root):
    for path in (root / "SegmentationObject").iterdir():
        path.unlink()
    assert len(VOC2012(root, "train", labels="semantic")) == 1
    with pytest.raises(FileNotFoundError, match=r"1 of 1 images .* no ground truth in SegmentationClass and Segment"):
        VOC2012(root, "train")


def test_the_photograph_is_the_files(root):
    sample = VOC2012(root, "train")[0]
    with Image.open(root / "JPEGImages" / "2007_000032.jpg") as photograph:
        difference = np.asarray(photograph).astype(int) - sample.image.permute(1, 2, 0).numpy()
    assert abs(difference).max() <= 2  # two decoders of JPEG


def test_the_order_is_that_of_the_list(root):
    write_list(root, "trainval", ["2007_000033", "", "2007_000032 "])
    assert VOC2012(root, "trainval").image_ids == ["2007_000033", "2007_000032"]


def test_images_of_test_have_no_ground_truth(root):
    sample = VOC2012(root, "test")[0]
    assert (sample.image_id, sample.panoptic_map) == ("2008_000003", None)
    assert VOC2012(root, "test").category_ids(0) == set()


def test_categories_of_an_image_are_those_of_its_segments(root):
    assert VOC2012(root, "train").category_ids(0) == VOC2012(root, "train", labels="semantic").category_ids(0)
    assert VOC2012(root, "val").category_ids(0) == {0, CAR, PERSON, CHAIR}


def test_statistics_are_those_of_imagenet_unless_given(root):
    assert VOC2012(root, "train").image_statistics == ImageStatistics()
    grey = ImageStatistics((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    assert VOC2012(root, "train", grey).image_statistics == grey


# SBD


@pytest.mark.parametrize("labels", ["semantic", "panoptic"])
def test_an_image_of_trainaug_has_the_challenges_own_annotation_or_else_sbds(root, sbd, labels):
    write_list(root, "trainaug", ["2007_000033", OF_SBD])  # SBD has both
    own, added = VOC2012(root, "trainaug", labels=labels, sbd=sbd)
    assert np.array_equal(category_map(own.panoptic_map), classes_of("2007_000033"))  # with void
    assert np.array_equal(category_map(added.panoptic_map), sbd_classes_of(OF_SBD))  # without
    if labels == "panoptic":
        objects = objects_of(OF_SBD, void=0)
        assert np.array_equal(added.panoptic_map.segment_ids.numpy(), np.where(objects == 0, 255, objects))


@pytest.mark.parametrize("labels", ["semantic", "panoptic"])
def test_sbds_annotations_are_read_from_grey_pngs_too(root, sbd, labels):
    write_list(root, "trainaug", ["2007_000032", OF_SBD])
    for name, values in (("Class", sbd_classes_of(OF_SBD)), ("Object", objects_of(OF_SBD, void=0))):
        (root / f"Segmentation{name}Aug").mkdir()
        Image.fromarray(values).save(root / f"Segmentation{name}Aug" / f"{OF_SBD}.png")
    by_mat, by_png = (VOC2012(root, "trainaug", labels=labels, sbd=s)[1].panoptic_map for s in (sbd, None))
    assert torch.equal(by_mat.segment_ids, by_png.segment_ids)
    assert by_mat.segments == by_png.segments


def test_sbds_maps_are_those_that_were_written(sbd):
    assert np.array_equal(read_sbd_classes(sbd / "cls" / f"{OF_SBD}.mat"), sbd_classes_of(OF_SBD))
    classes, objects = read_sbd_objects(sbd / "inst" / f"{OF_SBD}.mat")
    assert np.array_equal(classes, sbd_classes_of(OF_SBD))
    assert np.array_equal(objects, objects_of(OF_SBD, void=0))


@pytest.mark.parametrize("kept", [0, 1, 100, 128, 160, 0.5, 0.9, 0.99])
def test_a_truncated_annotation_of_sbd_is_an_error_that_names_it(sbd, kept):
    path = sbd / "cls" / f"{OF_SBD}.mat"
    cut(path, kept)
    with pytest.raises(ValueError, match=rf"{OF_SBD}\.mat") as error:
        read_sbd_classes(path)
    assert re.search("truncated or damaged MATLAB file|expected one structure GTcls", str(error.value))


def test_damaged_annotations_of_sbd_are_errors_or_are_read(sbd):
    path = sbd / "inst" / f"{OF_SBD}.mat"
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(100):
        data = bytearray(whole)
        data[rng.integers(128, len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
            read_sbd_objects(path)
        except ValueError as error:
            assert f"{OF_SBD}.mat" in str(error)  # noqa: PT017 - most flips are errors, some are not


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"GTcls": np.zeros((4, 5))}, "expected one structure GTinst in"),
        ({"GTinst": np.zeros((4, 5))}, "expected one structure GTinst in"),
        (
            {"GTinst": {"Boundaries": 1.0}},
            r"GTinst in .* lacks \['Segmentation', 'Categories'\], it has \['Boundaries'\]",
        ),
        (
            {"GTinst": {"Segmentation": np.zeros((4, 5)), "Categories": 3}},
            r"expected GTinst\.Segmentation of .* as \(H, W\) uint8, got \(4, 5\) float64",
        ),
        (
            {"GTinst": {"Segmentation": np.full((4, 5), 2, np.uint8), "Categories": 3}},
            r"expected a class for each object in GTinst\.Categories of .*, got 1 classes for object 2",
        ),
    ],
)
def test_an_annotation_of_sbd_of_another_kind_is_an_error(tmp_path, content, message):
    scipy.io.savemat(tmp_path / "a.mat", content)
    with pytest.raises(ValueError, match=message):
        read_sbd_objects(tmp_path / "a.mat")


def test_an_unknown_class_of_sbd_is_an_error_that_names_the_file(root, tmp_path):
    (tmp_path / "cls").mkdir()
    write_list(root, "trainaug", [OF_SBD])
    write_sbd_classes(tmp_path, OF_SBD, np.full((15, 11), 21, np.uint8))
    with pytest.raises(ValueError, match=rf"unknown class 21 in .*{OF_SBD}\.mat, 165 pixels"):
        VOC2012(root, "trainaug", labels="semantic", sbd=tmp_path)[0]


# Bad input


def test_unknown_labels_are_an_error(root):
    with pytest.raises(ValueError, match="expected labels to be one of panoptic, semantic, got 'instances'"):
        VOC2012(root, "train", labels="instances")


def test_the_folder_above_is_an_error_that_says_which_is_meant(root):
    with pytest.raises(FileNotFoundError, match=r"no folder .*JPEGImages; expected VOCdevkit/VOC2012, which has it"):
        VOC2012(root.parent, "train")


def test_a_list_that_is_not_there_is_an_error_that_names_the_others(root):
    with pytest.raises(FileNotFoundError, match=r"no list .*trainaug\.txt; there are: test, train, trainval, val\."):
        VOC2012(root, "trainaug")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"train\.txt is empty; expected at least one image id"),
        ([" "], r"train\.txt is empty; expected at least one image id"),
        (["2007_000032", "2007_000033", "2007_000032"], r"train\.txt lists image 2007_000032 twice, in lines 1 and 3"),
        (
            ["/JPEGImages/2007_000032.jpg /SegmentationClass/2007_000032.png"],
            r"expected an image id such as 2007_000032 in each line of .*train\.txt, got '/JPEG.*' in line 1",
        ),
    ],
)
def test_a_list_that_is_none_is_an_error(root, lines, message):
    write_list(root, "train", lines)
    with pytest.raises(ValueError, match=message):
        VOC2012(root, "train")


def test_listed_images_that_are_missing_are_named_with_their_lines(root):
    write_list(root, "train", ["2007_000032", "2009_1", "2009_2"])
    message = r"2 of 3 images of .*train\.txt have no photograph .*: line 2 2009_1, line 3 2009_2; add it"
    with pytest.raises(FileNotFoundError, match=message):
        VOC2012(root, "train")


def test_five_of_many_missing_images_are_named(root):
    write_list(root, "train", [f"2009_{number}" for number in range(8)])
    with pytest.raises(FileNotFoundError, match=r"8 of 8 images .*: line 1 2009_0, .*, line 5 2009_4, \.\.; add it"):
        VOC2012(root, "train")


def test_while_faults_are_recorded_all_that_is_missing_is_and_the_rest_is_read(root):
    path = write_list(root, "train", ["2009_1", "2007_000032", OF_SBD])
    with recorded_faults() as findings:
        dataset = VOC2012(root, "train")
    assert dataset.image_ids == ["2007_000032"]
    assert dataset[0].image_id == "2007_000032"
    assert [finding.file for finding in findings] == [str(path)] * 2
    photograph, truth = (finding.message for finding in findings)
    assert re.search(r"image 2009_1 of .*train\.txt, line 1, has no photograph", photograph)
    assert re.search(rf"image {OF_SBD} of .*train\.txt, line 3, has no ground truth", truth)


@pytest.mark.parametrize("labels", ["panoptic", "semantic"])
def test_images_without_ground_truth_are_named_with_their_lines(root, labels):
    write_list(root, "train", ["2007_000032", OF_SBD])
    message = r"1 of 2 images of .*train\.txt have no ground truth .*: line 2 2008_000002; SBD's .*prepare_voc\.py"
    with pytest.raises(FileNotFoundError, match=message):
        VOC2012(root, "train", labels=labels)


def test_a_folder_of_sbd_without_annotations_is_an_error(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*inst; expected SBD's folder dataset"):
        VOC2012(root, "train", sbd=tmp_path)


@pytest.mark.parametrize("folder", ["SegmentationClass", "SegmentationObject"])
def test_ground_truth_that_was_saved_as_rgb_is_an_error_that_names_it(root, folder):
    path = root / folder / "2007_000032.png"
    with Image.open(path) as image:
        colours = image.convert("RGB")
    colours.save(path)
    with pytest.raises(ValueError, match=rf"expected a PNG with palette indices.*{folder}/2007_000032\.png"):
        VOC2012(root, "train")[0]


@pytest.mark.parametrize("value", [21, 100, 254])
def test_an_unknown_class_is_an_error_that_names_the_file(root, value):
    classes = classes_of("2007_000032")
    classes[-1, -2:] = value
    write_palette_png(root / "SegmentationClass" / "2007_000032.png", classes)
    for labels in ("panoptic", "semantic"):
        with pytest.raises(ValueError, match=rf"unknown class {value} in .*2007_000032\.png, 2 pixels; expected 0 for"):
            VOC2012(root, "train", labels=labels)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((slice(7, 8), PERSON, 0), r"pixels of class 15 in .*Class.*\.png are of no object in .*Object.*\.png"),
        ((slice(7, 8), CHAIR, 2), r"expected one class 1\.\.20 of object 2 in .*Object.*, got \[9, 15\] in .*Class"),
        ((slice(7, 8), 0, 2), r"expected one class 1\.\.20 of object 2 in .*Object.*, got \[0, 15\] in .*Class"),
        ((slice(6, 8), 0, 2), r"expected one class 1\.\.20 of object 2 in .*Object.*, got \[0\] in .*Class"),
    ],
)
def test_classes_and_objects_that_disagree_are_an_error(root, change, message):
    rows, value, number = change
    classes, objects = classes_of("2007_000032"), objects_of("2007_000032")
    classes[rows, 3:7], objects[rows, 3:7] = value, number
    write_palette_png(root / "SegmentationClass" / "2007_000032.png", classes)
    write_palette_png(root / "SegmentationObject" / "2007_000032.png", objects)
    with pytest.raises(ValueError, match=message):
        VOC2012(root, "train")[0]


def test_maps_of_unequal_size_are_an_error_that_names_both(root):
    write_palette_png(root / "SegmentationObject" / "2007_000032.png", np.zeros((5, 7), np.uint8))
    with pytest.raises(ValueError, match=r"Class/2007.*\.png has size \(12, 17\), but .*Object/.*\.png \(5, 7\)"):
        VOC2012(root, "train")[0]


def test_a_photograph_of_another_size_than_its_ground_truth_is_named(root):
    Image.new("RGB", (9, 8)).save(root / "JPEGImages" / "2007_000032.jpg")
    for labels in ("panoptic", "semantic"):
        with pytest.raises(ValueError, match=r"2007_000032\.jpg has size \(8, 9\), but its ground truth \(12, 17\)"):
            VOC2012(root, "train", labels=labels)[0]


# Configurations


@pytest.mark.parametrize("data", ["voc", "voc_panoptic", "voc_trainval"])
def test_a_configuration_loads_crops_and_whole_images(root, data):
    small = ["data.train_transform.size=[12,17]", "data.num_workers=0", "data.batch_size=1"]
    split = [] if data == "voc_trainval" else ["data.train.split=train"]
    module = build_data(resolved(load_config("train", [f"data={data}", f"data.root={root}", *small, *split])))
    module.connect({}, SizeRule(16, 1))
    batches = list(module.train_dataloader())
    # of trainval the image with a chair comes again
    assert [batch.image_sizes for batch in batches] == [[(12, 17)]] * (3 if data == "voc_trainval" else 1)
    (batch,) = module.val_dataloader()
    assert batch.image_sizes == [(9, 20)]
    assert len(module.categories) == 21


@needs_samples
def test_the_palette_of_the_samples_has_these_colours():
    folder = Path(os.environ["PANOPTIC_SAMPLES"]) / "voc2012_style" / "VOCdevkit" / "VOC2012"
    for path in sorted(folder.glob("Segmentation*/*.png")):
        with Image.open(path) as image:
            palette = np.reshape(image.getpalette(), (-1, 3))
        assert len(palette) >= 21
        assert [tuple(colour) for colour in palette.tolist()] == [voc_colour(value) for value in range(len(palette))]


@needs_samples
def test_the_samples_are_read_pixel_by_pixel_in_both_forms():
    folder = Path(os.environ["PANOPTIC_SAMPLES"]) / "voc2012_style" / "VOCdevkit" / "VOC2012"
    for split, count in (("train", 2), ("val", 1)):
        forms = [VOC2012(folder, split, labels=labels) for labels in ("panoptic", "semantic")]
        assert [len(form) for form in forms] == [count, count]
        for panoptic, semantic in zip(*forms, strict=True):
            with Image.open(folder / "SegmentationClass" / f"{panoptic.image_id}.png") as image:
                classes = np.array(image)
            with Image.open(folder / "SegmentationObject" / f"{panoptic.image_id}.png") as image:
                objects = np.array(image)
            for sample in (panoptic, semantic):
                assert np.array_equal(category_map(sample.panoptic_map), classes)
                assert sample.size == classes.shape
            numbers = set(np.unique(objects[(classes != 255) & (classes != 0)]).tolist())
            assert {s.id for s in panoptic.panoptic_map.segments if s.category_id > 0} == numbers
