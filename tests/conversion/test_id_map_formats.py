"""Cityscapes' and Mapillary's id maps to panoptic maps and back."""

import json
import shutil

import numpy as np
import pytest
import tiny_cityscapes
import tiny_mapillary
import torch
from PIL import Image
from tiny_conversions import write_categories, write_map, write_photograph

from panoptic.conversion.cityscapes_ids import CityscapesIds, CityscapesIdsTarget, all_labels, frame_of
from panoptic.conversion.contract import AnnotatedImage
from panoptic.conversion.mapillary_ids import MapillaryIds, MapillaryIdsTarget
from panoptic.conversion.numbering import number_things
from panoptic.data.cityscapes import CATEGORIES, Cityscapes
from panoptic.data.mapillary import MapillaryVistas
from panoptic.structures import Category, PanopticMap, Segment


@pytest.fixture
def cityscapes(tmp_path):
    return tiny_cityscapes.write_tiny_cityscapes(tmp_path / "cityscapes", "val", panoptic=False)


@pytest.fixture
def mapillary(tmp_path):
    return tiny_mapillary.write_tiny_mapillary(tmp_path / "mapillary", "validation", panoptic=False)


def open_cityscapes(root, **options):
    return CityscapesIds(root / "gtFine" / "val", root / "leftImg8bit" / "val", **options)


def open_mapillary(root):
    folder = root / "validation"
    return MapillaryIds(folder / "instances", folder / "images", root / "config.json")


def pixels_of(path):
    with Image.open(path) as image:
        return np.array(image)


def assert_same_map(ours, theirs):
    assert torch.equal(ours.segment_ids, theirs.segment_ids)
    assert set(ours.segments) == set(theirs.segments)


def assert_read_alike(source, data):
    """A source of maps gives what the data set for training gives."""
    assert source.categories == data.categories
    found = [source[index] for index in range(len(source))]
    assert [image.image_id for image in found] == data.image_ids
    for image, sample in zip(found, (data[index] for index in range(len(data))), strict=True):
        assert image.image_name == sample.file_name
        assert_same_map(image.panoptic_map, sample.panoptic_map)


def test_cityscapes_maps_are_those_that_training_reads(cityscapes):
    assert_read_alike(open_cityscapes(cityscapes), Cityscapes(cityscapes, "val"))


def test_mapillary_maps_are_those_that_training_reads(mapillary):
    assert_read_alike(open_mapillary(mapillary), MapillaryVistas(mapillary, "validation"))


def test_every_value_of_cityscapes_comes_back(cityscapes, tmp_path):
    source = open_cityscapes(cityscapes, evaluated_only=False)
    (tmp_path / "out").mkdir()
    target = CityscapesIdsTarget(tmp_path / "out", source.categories)
    for index in range(len(source)):
        target.add(source[index])
    assert target.close() == []
    for frame in tiny_cityscapes.FRAMES:
        values = tiny_cityscapes.values_of(frame)
        written = pixels_of(tmp_path / "out" / f"{frame}_gtFine_instanceIds.png")
        assert written.dtype == np.uint16
        assert np.array_equal(written, values)
        labels = pixels_of(tmp_path / "out" / f"{frame}_gtFine_labelIds.png")
        assert labels.dtype == np.uint8
        assert np.array_equal(labels, np.where(values < 1000, values, values // 1000))
    assert len(list((tmp_path / "out").iterdir())) == 2 * len(tiny_cityscapes.FRAMES)


def test_every_value_of_mapillary_comes_back(mapillary, tmp_path):
    source = open_mapillary(mapillary)
    (tmp_path / "out").mkdir()
    target = MapillaryIdsTarget(tmp_path / "out", source.categories, config=mapillary / "config.json")
    for index in range(len(source)):
        target.add(source[index])
    for key in tiny_mapillary.SIZES:
        values = tiny_mapillary.values_of(key)
        expected = np.where(values // 256 == tiny_mapillary.SKY, values // 256 * 256, values)  # stuff has no numbers
        written = pixels_of(tmp_path / "out" / "instances" / f"{key}.png")
        assert written.dtype == np.uint16
        assert np.array_equal(written, expected)
        labels = pixels_of(tmp_path / "out" / "labels" / f"{key}.png")
        assert labels.dtype == np.uint8
        assert np.array_equal(labels, values // 256)


def test_the_whole_table_of_cityscapes_has_all_labels_but_unlabeled():
    table = all_labels()
    assert [category.dataset_category_id for category in table] == list(range(1, 34))
    evaluated = [category for category in table if category.name in {c.name for c in CATEGORIES}]
    assert [(c.dataset_category_id, c.is_thing, c.colour) for c in evaluated] == [
        (c.dataset_category_id, c.is_thing, c.colour) for c in CATEGORIES
    ]
    things = [category.dataset_category_id for category in table if category.is_thing]
    assert things == list(tiny_cityscapes.THINGS)


def test_things_keep_fitting_numbers_and_others_get_the_free_ones():
    categories = [Category(0, "road", False), Category(1, "car", True), Category(2, "person", True)]
    ids = torch.tensor([[1, 26001, 5, 26003, 24000, 9, 26000]])
    segments = [Segment(1, 0), Segment(26001, 1), Segment(5, 1), Segment(26003, 1), Segment(24000, 2)]
    segments += [Segment(9, 1), Segment(26000, 1, is_crowd=True)]
    numbers = number_things(PanopticMap(ids, segments), categories, [7, 26, 24], base=1000, first=0)
    assert numbers == {26001: 1, 5: 0, 26003: 3, 24000: 0, 9: 2}


def test_more_things_than_numbers_are_an_error():
    ids = torch.arange(1, 6)[None]
    segments = [Segment(number, 0) for number in range(1, 6)]
    with pytest.raises(ValueError, match="expected at most 4 things of label 3 in one image, got 5"):
        number_things(PanopticMap(ids, segments), [Category(0, "car", True)], [3], base=5, first=1)
    assert len(number_things(PanopticMap(ids, segments), [Category(0, "car", True)], [3], base=6, first=1)) == 5


def test_maps_of_ones_own_have_a_file_of_categories(tmp_path):
    write_photograph(tmp_path / "photos" / "in town" / "größe 1.jpg", (2, 3))
    write_map(tmp_path / "maps" / "in town" / "größe 1.png", [[0, 3, 3], [5000, 5, 5999]], np.uint16)
    table = write_categories(tmp_path / "c.json", (3, "field", False), (5, "cow", True))
    options = {"maps_suffix": ".png", "images_suffix": None, "categories": table}
    source = CityscapesIds(tmp_path / "maps", tmp_path / "photos", **options)
    (image,) = [source[index] for index in range(len(source))]
    assert (image.image_id, image.image_name) == ("größe 1", "in town/größe 1.jpg")
    assert [(s.id, s.category_id, s.is_crowd) for s in image.panoptic_map.segments] == [
        (3, 0, False),
        (5, 1, True),
        (5000, 1, False),
        (5999, 1, False),
    ]
    write_categories(table, (0, "field", False), (5, "cow", True))
    with pytest.raises(ValueError, match=r"expected label ids from 1 on in .*c\.json, 0 is void; got 0"):
        CityscapesIds(tmp_path / "maps", tmp_path / "photos", **options)


# 7001 numbers road, 29 and 29000 are not evaluated, 34 and 999 are no labels
@pytest.mark.parametrize(
    ("value", "is_known"), [(7001, False), (29, True), (29000, True), (34, False), (999, False), (33999, True)]
)
def test_values_of_wrong_arithmetic_are_an_error(cityscapes, value, is_known):
    frame = "aachen_000000_000019"
    values = tiny_cityscapes.values_of(frame)
    values[3, 3] = value
    path = cityscapes / "gtFine" / "val" / "aachen" / f"{frame}_gtFine_instanceIds.png"
    write_map(path, values, np.uint16)
    source = open_cityscapes(cityscapes)
    if is_known:
        assert source[0].panoptic_map.segment_ids[3, 3] in (0, value)
        return
    with pytest.raises(
        ValueError, match=rf"unknown values in .*aachen.*, expected a label id, or for things 1000 .*\n  {value}"
    ):
        source[0]


def test_a_label_that_mapillary_lacks_is_an_error(mapillary):
    values = tiny_mapillary.values_of("a_first")
    values[0, :2] = 4 * 256, 9 * 256 + 3
    write_map(mapillary / "validation" / "instances" / "a_first.png", values, np.uint16)
    with pytest.raises(
        ValueError, match=r"unknown values in .*a_first\.png, expected 256 times a label 0\.\.3 .*\n  4\n  9$"
    ):
        open_mapillary(mapillary)[0]


@pytest.mark.parametrize("data", [b"", "eight bits", "cut"])
def test_a_map_of_another_kind_is_named(cityscapes, data):
    path = cityscapes / "gtFine" / "val" / "aachen" / "aachen_000000_000019_gtFine_instanceIds.png"
    if data == "eight bits":
        write_map(path, np.zeros(tiny_cityscapes.SIZE))
    else:
        path.write_bytes(path.read_bytes()[:60] if data == "cut" else data)
    with pytest.raises(ValueError, match=r"(expected a PNG with one 16-bit channel|truncated or damaged).*aachen_"):
        open_cityscapes(cityscapes)[0]


def test_a_photograph_of_another_size_is_named(cityscapes):
    write_photograph(cityscapes / "leftImg8bit" / "val" / "aachen" / "aachen_000000_000019_leftImg8bit.png", (17, 12))
    with pytest.raises(ValueError, match=r"_leftImg8bit\.png has size \(17, 12\), but its annotation \(12, 17\)"):
        open_cityscapes(cityscapes)[0]


def test_all_files_without_partner_are_reported_together(cityscapes):
    (cityscapes / "gtFine" / "val" / "berlin" / "berlin_000000_000019_gtFine_instanceIds.png").unlink()
    (cityscapes / "leftImg8bit" / "val" / "aachen" / "aachen_000000_000019_leftImg8bit.png").unlink()
    with pytest.raises(ValueError, match=r"2 files have no partner; add those or remove these") as caught:
        open_cityscapes(cityscapes)
    message = str(caught.value)
    assert "aachen_000000_000019_gtFine_instanceIds.png has no photograph *_leftImg8bit.png in" in message
    assert "berlin_000000_000019_leftImg8bit.png has no map *_gtFine_instanceIds.png in" in message


def test_a_folder_without_maps_is_an_error(cityscapes):
    with pytest.raises(ValueError, match=r"no map \*_ids\.png in .*; check the folder and the suffix"):
        open_cityscapes(cityscapes, maps_suffix="_ids.png")


def test_accents_may_be_written_in_two_ways_and_hidden_files_are_left_out(tmp_path):
    write_photograph(tmp_path / "photos" / "stra\u00dfe \u00fc.jpg", (1, 2))
    write_map(tmp_path / "maps" / "stra\u00dfe u\u0308.png", [[0, 7]], np.uint16)
    (tmp_path / "maps" / "._stra\u00dfe u\u0308.png").write_bytes(b"of an archive made on macOS")
    source = CityscapesIds(tmp_path / "maps", tmp_path / "photos", ".png", None)
    assert [source[index].image_id for index in range(len(source))] == ["stra\u00dfe \u00fc"]


def test_two_photographs_of_one_name_are_an_error(cityscapes):
    folder = cityscapes / "leftImg8bit" / "val" / "aachen"
    shutil.copy(folder / "aachen_000000_000019_leftImg8bit.png", folder / "aachen_000000_000019_leftImg8bit.PNG")
    with pytest.raises(ValueError, match="have one name without suffix; rename one of them"):
        open_cityscapes(cityscapes)


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("frankfurt/frankfurt_000000_000294_leftImg8bit.png", "frankfurt_000000_000294"),
        ("frankfurt_000000_000294_gtFine_leftImg8bit.png", "frankfurt_000000_000294"),
        ("photo 1.jpg", "photo 1"),
    ],
)
def test_frames_are_named_as_the_benchmark_does(name, frame):
    assert frame_of(name) == frame


def image_of(*segments, name="a.png"):
    ids = torch.tensor([[segment.id for segment in segments]])
    return AnnotatedImage("a", name, PanopticMap(ids, segments))


def test_what_the_maps_cannot_hold_is_an_error(mapillary, tmp_path):
    with pytest.raises(ValueError, match=r"expected label ids 1\.\.64 in Cityscapes' maps, got \[0, 65\]"):
        CityscapesIdsTarget(tmp_path, [Category(0, "a", True), Category(1, "b", True, dataset_category_id=65)])
    config = mapillary / "config.json"
    categories = open_mapillary(mapillary).categories
    (tmp_path / "out").mkdir()
    target = MapillaryIdsTarget(tmp_path / "out", categories, config=config)
    with pytest.raises(ValueError, match=r"a\.png: expected no crowds in Mapillary's maps, got segments \[3\]"):
        target.add(image_of(Segment(3, 0, is_crowd=True)))
    target.add(image_of(Segment(3, 0)))
    with pytest.raises(ValueError, match=r"a\.png would be written a second time; names of images must be unique"):
        target.add(image_of(Segment(3, 0)))
    other = [Category(0, "Bird", False, dataset_category_id=1)]
    with pytest.raises(
        ValueError, match=r"expected categories \(id, name, thing\) of .*config\.json, got \[\(1, 'bird', False\)\]"
    ):
        MapillaryIdsTarget(tmp_path / "out", other, config=config)
    content = json.loads(config.read_text())
    content["labels"] = [label for label in content["labels"] if label["evaluate"]]
    config.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"expected a label in .*config\.json that is not evaluated"):
        MapillaryIdsTarget(tmp_path / "out", categories[:2], config=config)
