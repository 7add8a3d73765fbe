import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import draw
from PIL import Image
from tiny_coco import write_tiny_coco

from panoptic.data.panoptic_format import (
    check_files,
    read_panoptic_json,
    read_panoptic_map,
    read_panoptic_png,
    write_panoptic_png,
)
from panoptic.data.panoptic_writer import PanopticWriter
from panoptic.structures import Category, PanopticMap, Segment

needs_samples = pytest.mark.skipif("PANOPTIC_SAMPLES" not in os.environ, reason="PANOPTIC_SAMPLES is not set")

SAMPLES = [
    ("coco_panoptic/annotations/panoptic_val2017.json", None, 133, 56, 3),
    ("dsb2018/annotations/panoptic_val.json", None, 2, None, 0),
    ("coco_stuff/annotations/panoptic_stuffthing_val.json", None, 182, None, 0),
    ("mapillary_vistas/training/panoptic/panoptic_2018.json", "mapillary_vistas/training/panoptic", 65, 42, 0),
]

CATEGORIES = [
    Category(0, "car", True, group="vehicle", colour=(0, 0, 142), dataset_category_id=3),
    Category(1, "tree", False, dataset_category_id=184),
]


def test_categories_become_contiguous_in_the_order_of_their_ids(tmp_path):
    file = read_panoptic_json(write_tiny_coco(tmp_path).panoptic_json)
    assert file.categories == [
        Category(0, "car", True, "vehicle", (0, 0, 142), 3),
        Category(1, "toothbrush", True, "indoor", (191, 162, 208), 90),
        Category(2, "tree", False, "plant", (107, 142, 35), 184),
    ]


def test_map_equals_what_pillow_wrote(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    file = read_panoptic_json(tiny.panoptic_json)
    check_files(file)
    for image_id, annotation in file.annotations.items():
        panoptic_map = read_panoptic_map(file, annotation)
        assert panoptic_map.segment_ids.numpy().tolist() == tiny.ids[image_id].tolist()
        assert annotation.size == tiny.ids[image_id].shape
        for segment in panoptic_map.segments:
            assert segment.area == (tiny.ids[image_id] == segment.id).sum()
            assert segment.is_crowd == (segment.id == 70000)
            assert segment.category_id == (2 if segment.id == 2**24 - 1 else 0)


def test_ids_up_to_the_largest_survive_the_png(tmp_path):
    ids = torch.tensor([[0, 1, 255], [256, 65535, 65536], [2**24 - 1, 7, 1234567]])
    write_panoptic_png(tmp_path / "a.png", ids)
    assert read_panoptic_png(tmp_path / "a.png").tolist() == ids.tolist()
    with Image.open(tmp_path / "a.png") as image:
        red, green, blue = np.moveaxis(np.asarray(image).astype(int), -1, 0)
    assert (red + 256 * green + 65536 * blue).tolist() == ids.tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_an_id_that_the_png_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected segment ids 0\.\.16777215, got 0\.\.16777216"):
        write_panoptic_png(tmp_path / "a.png", torch.tensor([[0, 2**24]]))


@pytest.mark.parametrize("kept", [0, 8, 20, 60, -13, -12, -1])
def test_a_truncated_png_is_an_error_that_names_it(tmp_path, kept):
    path = tmp_path / "cut.png"
    write_panoptic_png(path, torch.arange(35).reshape(5, 7))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"cut\.png"):
        read_panoptic_png(path)


def test_a_png_with_a_flipped_byte_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "hurt.png"
    write_panoptic_png(path, torch.arange(3500).reshape(50, 70))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"truncated or damaged image: .*hurt\.png"):
        read_panoptic_png(path)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16"])
def test_a_png_that_is_not_rgb_is_an_error_that_names_it(tmp_path, mode):
    path = tmp_path / "other.png"
    Image.new(mode, (7, 5)).save(path)
    with pytest.raises(ValueError, match=r"three 8-bit channels.*other\.png"):
        read_panoptic_png(path)


def _edit(tiny, change):
    content = tiny.content()
    change(content)
    tiny.rewrite(content)
    return tiny


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("annotations"), "expected an object with a list `annotations`"),
        (lambda c: c.pop("categories"), r"tiny\.json has no list `categories`, which say what its ids mean"),
        (lambda c: c["categories"][0].pop("isthing"), "a category of .*tiny.json lacks the key 'isthing'"),
        (lambda c: c["categories"][0].update(id=3), "lists a category id twice"),
        (lambda c: c["categories"][0].update(name="car"), r"tiny\.json: category names must be unique"),
        (lambda c: c["annotations"][0].pop("file_name"), "an entry of .*tiny.json lacks the key 'file_name'"),
        (
            lambda c: c["annotations"][0].update(file_name=7),
            r"an entry of .*tiny\.json .*: expected a text as file_name",
        ),
        (lambda c: c["images"][0].update(file_name=None), r"an entry of .*tiny\.json .*a text as file_name, got None"),
        (lambda c: c["categories"][0].update(name=5), r"a category of .*tiny\.json .*: expected a text as name, got 5"),
        (lambda c: c["annotations"][1].update(image_id=100), "more than one annotation of image 100"),
        (
            lambda c: c["annotations"][0]["segments_info"][1].update(category_id=77),
            r"unknown category id 77 in .*tiny\.json, image 100, segment 256; known are \[3, 90, 184\]",
        ),
        (lambda c: c["annotations"][0]["segments_info"][1].update(id=70000), "lists a segment id of image 100 twice"),
        (lambda c: c["annotations"][0]["segments_info"][1].update(id=2**24), r"expected segment ids 1\.\.16777215"),
    ],
)
def test_a_wrong_json_is_an_error_that_says_what(tmp_path, change, message):
    tiny = _edit(write_tiny_coco(tmp_path), change)
    with pytest.raises(ValueError, match=message):
        read_panoptic_json(tiny.panoptic_json)


def test_a_file_that_is_not_json_is_an_error_that_names_it(tmp_path):
    (tmp_path / "half.json").write_text('{"annotations": [')
    with pytest.raises(ValueError, match=r"expected JSON in .*half\.json"):
        read_panoptic_json(tmp_path / "half.json")


def test_an_id_without_entry_is_an_error(tmp_path):
    tiny = _edit(write_tiny_coco(tmp_path), lambda c: c["annotations"][0]["segments_info"].pop(1))
    file = read_panoptic_json(tiny.panoptic_json)
    with pytest.raises(ValueError, match=r"id 256 in .*100\.png has no entry in .*tiny\.json, image 100"):
        read_panoptic_map(file, file.annotations[100])


def test_an_entry_without_pixels_is_an_error(tmp_path):
    extra = {"id": 9, "category_id": 3}
    tiny = _edit(write_tiny_coco(tmp_path), lambda c: c["annotations"][0]["segments_info"].append(extra))
    file = read_panoptic_json(tiny.panoptic_json)
    with pytest.raises(ValueError, match=r"tiny\.json lists segment 9 of image 100, which .*100\.png lacks"):
        read_panoptic_map(file, file.annotations[100])


def test_a_size_that_differs_is_an_error(tmp_path):
    tiny = _edit(write_tiny_coco(tmp_path), lambda c: c["images"][0].update(height=13))
    file = read_panoptic_json(tiny.panoptic_json)
    with pytest.raises(ValueError, match=r"100\.png has size \(12, 17\), but .*tiny\.json says \(13, 17\)"):
        read_panoptic_map(file, file.annotations[100])


def test_a_missing_png_is_an_error(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    (tiny.png_folder / "101.png").unlink()
    file = read_panoptic_json(tiny.panoptic_json)
    with pytest.raises(ValueError, match=r"1 PNGs of .*tiny\.json are missing, the first is .*101\.png"):
        check_files(file)
    with pytest.raises(FileNotFoundError, match=r"no PNG .*101\.png of image 101"):
        read_panoptic_map(file, file.annotations[101])


def test_a_png_without_entry_is_an_error(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    Image.new("RGB", (7, 5)).save(tiny.png_folder / "stray.png")
    with pytest.raises(ValueError, match=r"1 PNGs have no entry in .*tiny\.json, the first is .*stray\.png"):
        check_files(read_panoptic_json(tiny.panoptic_json))


def test_a_missing_png_folder_is_an_error(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    with pytest.raises(ValueError, match=r"no folder .*elsewhere with the PNGs of .*give png_folder"):
        check_files(read_panoptic_json(tiny.panoptic_json, tmp_path / "elsewhere"))


def test_a_json_with_annotations_alone_reads_when_categories_are_given(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    categories = read_panoptic_json(tiny.panoptic_json).categories
    tiny.rewrite({"annotations": tiny.content()["annotations"]})
    file = read_panoptic_json(tiny.panoptic_json, categories=categories)
    assert file.categories == categories
    assert file.annotations[100].image_name is None
    assert file.annotations[100].size is None
    assert read_panoptic_map(file, file.annotations[100]).size == (12, 17)


def test_what_is_written_is_read_back(tmp_path):
    scored = PanopticMap(
        torch.tensor([[0, 5, 5], [9, 9, 2**24 - 1]]),
        [Segment(5, 0, score=0.25), Segment(9, 0, is_crowd=True), Segment(2**24 - 1, 1), Segment(77, 0)],
    )
    drawn = draw("aab", "aab", "..b", categories={"b": 1})
    with PanopticWriter(tmp_path / "out.json", CATEGORIES) as writer:
        writer.add(scored, image_id=7, image_name="city/first.jpg")
        writer.add(drawn, image_id="b", image_name="second.jpg")
    file = read_panoptic_json(tmp_path / "out.json")
    check_files(file)
    assert file.categories == CATEGORIES
    assert file.annotations[7].image_name == "city/first.jpg"
    first = read_panoptic_map(file, file.annotations[7])
    assert torch.equal(first.segment_ids, scored.segment_ids)
    # the entry 77 has no pixel and is left out
    assert first.segments == (
        Segment(5, 0, False, 0.25, 2),
        Segment(9, 0, True, None, 2),
        Segment(2**24 - 1, 1, area=1),
    )
    second = read_panoptic_map(file, file.annotations["b"])
    assert torch.equal(second.segment_ids, drawn.segment_ids)
    assert second.segments == drawn.segments


def test_written_boxes_are_x_y_width_height(tmp_path):
    with PanopticWriter(tmp_path / "out.json", CATEGORIES) as writer:
        writer.add(draw("....bb", ".aa..b", ".a..a.", "......"), image_id=1, image_name="a.jpg")
    infos = json.loads((tmp_path / "out.json").read_text())["annotations"][0]["segments_info"]
    # a: columns 1..4, rows 1..2; b: columns 4..5, rows 0..1
    assert [(info["bbox"], info["area"]) for info in infos] == [([1, 1, 4, 2], 4), ([4, 0, 2, 2], 3)]


def test_an_error_while_writing_leaves_nothing_behind(tmp_path):
    def fail():
        with PanopticWriter(tmp_path / "out.json", CATEGORIES) as writer:
            writer.add(draw("ab"), image_id=1, image_name="a.jpg")
            writer.add(draw("ab"), image_id=2, image_name="a.png")

    with pytest.raises(ValueError, match=r"image name a\.png would write a\.png a second time"):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", ["out.json", "out"])
def test_nothing_is_overwritten(tmp_path, existing):
    (tmp_path / existing).mkdir()
    with pytest.raises(FileExistsError, match=rf"{existing} exists already; remove it or choose another path"):
        PanopticWriter(tmp_path / "out.json", CATEGORIES)


def test_a_path_without_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected a path that ends in \.json"):
        PanopticWriter(tmp_path / "out", CATEGORIES)


@needs_samples
@pytest.mark.parametrize(("name", "folder", "num_categories", "num_segments", "num_crowds"), SAMPLES)
def test_sample_maps_have_the_areas_of_their_json(name, folder, num_categories, num_segments, num_crowds):
    root = Path(os.environ["PANOPTIC_SAMPLES"])
    file = read_panoptic_json(root / name, folder and root / folder)
    check_files(file)
    assert len(file.categories) == num_categories
    segments = [segment for annotation in file.annotations.values() for segment in annotation.segments]
    assert num_segments in (None, len(segments))
    assert sum(segment.is_crowd for segment in segments) == num_crowds
    for annotation in file.annotations.values():
        read = read_panoptic_map(file, annotation)
        assert [segment.area for segment in read.segments] == [segment.area for segment in annotation.segments]


@needs_samples
def test_sample_of_deeplab2_reads_with_categories_given():
    folder = Path(os.environ["PANOPTIC_SAMPLES"]) / "cityscapes_panoptic_deeplab2" / "gtFine"
    categories = [Category(number, f"train id {number}", number >= 11) for number in range(19)]
    file = read_panoptic_json(folder / "cityscapes_panoptic_dummy_trainId.json", categories=categories)
    panoptic_map = read_panoptic_map(file, next(iter(file.annotations.values())))
    assert panoptic_map.size == (800, 800)
    assert [segment.id for segment in panoptic_map.segments if segment.is_crowd] == [26]
