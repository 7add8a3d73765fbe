"""Faults that any format may have, planted into each: found by the check, and met in training with the same words."""

import json
import re
import shutil
import unicodedata
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny_cityscapes
import tiny_mapillary
import tiny_voc
from checked import check, check_agrees_with_training, found, train_on
from damage import cut, make_link_to_nowhere
from PIL import Image
from tiny_cityscapes import write_tiny_cityscapes
from tiny_coco import write_tiny_coco
from tiny_mapillary import write_tiny_mapillary, write_tiny_mapillary_v2
from tiny_voc import write_palette_png, write_tiny_sbd, write_tiny_voc

from panoptic.data.cityscapes import Cityscapes
from panoptic.data.cityscapes_semantic import CityscapesSemantic
from panoptic.data.coco import CocoPanoptic
from panoptic.data.coco_instances import CocoInstances
from panoptic.data.coco_stuff import CocoStuff
from panoptic.data.faults import Kind
from panoptic.data.mapillary import MapillaryVistas
from panoptic.data.voc import VOC2012

pytestmark = pytest.mark.slow

FRAME = "aachen_000000_000019"
V2 = {"config": "config_v2.0.json", "annotations": "v2.0", "panoptic_json": "panoptic_2020.json"}


@dataclass(frozen=True)
class Layout:
    """A tiny data set.

    Args:
        opened: makes it.
        photograph: of one image, 12 x 17 or 9 x 20 pixels.
        truth: its PNG; None where masks are in a JSON.
        kind: of that PNG: "rgb", "grey16" or "index".
    """

    opened: partial
    photograph: Path
    truth: Path | None = None
    kind: str | None = None


def coco_panoptic(root):
    tiny = write_tiny_coco(root, count=3)
    opened = partial(CocoPanoptic, tiny.panoptic_json, tiny.image_folder)
    return Layout(opened, tiny.image_folder / "100_photo.png", tiny.png_folder / "100.png", "rgb")


def coco_instances(root):
    tiny = write_tiny_coco(root, count=3)
    square = [[1, 2, 5, 2, 5, 5, 1, 5]]
    annotations = [{"id": i, "image_id": i, "category_id": 3, "segmentation": square} for i in tiny.ids]
    path = root / "instances.json"
    path.write_text(json.dumps({**tiny.content(), "annotations": annotations}))
    return Layout(partial(CocoInstances, path, tiny.image_folder), tiny.image_folder / "100_photo.png")


def coco_stuff(root):
    images, maps = root / "train2017", root / "stuffthingmaps_trainval2017" / "train2017"
    images.mkdir(parents=True)
    maps.mkdir(parents=True)
    for name, (height, width) in {"000000000139": (12, 17), "000000000285": (9, 20)}.items():
        Image.new("RGB", (width, height)).save(images / f"{name}.jpg")
        Image.new("L", (width, height), 181).save(maps / f"{name}.png")
    photograph, truth = images / "000000000139.jpg", maps / "000000000139.png"
    return Layout(partial(CocoStuff, images, maps), photograph, truth, "index")


def cityscapes(root, panoptic=False):
    write_tiny_cityscapes(root, "train", panoptic=panoptic)
    truth = root / f"gtFine/train/aachen/{FRAME}_gtFine_instanceIds.png"
    if panoptic:
        truth = root / f"gtFine/cityscapes_panoptic_train/{FRAME}_gtFine_panoptic.png"
    photograph = root / f"leftImg8bit/train/aachen/{FRAME}_leftImg8bit.png"
    return Layout(partial(Cityscapes, root, "train"), photograph, truth, "rgb" if panoptic else "grey16")


def cityscapes_semantic(root):
    photograph = cityscapes(root).photograph
    truth = root / f"gtFine/train/aachen/{FRAME}_gtFine_labelIds.png"
    return Layout(partial(CityscapesSemantic, root, "train"), photograph, truth, "index")


def mapillary(root, panoptic=False):
    write_tiny_mapillary(root, "training", panoptic=panoptic)
    truth = root / "training" / ("panoptic" if panoptic else "instances") / "a_first.png"
    photograph = root / "training" / "images" / "a_first.jpg"
    return Layout(partial(MapillaryVistas, root, "training"), photograph, truth, "rgb" if panoptic else "grey16")


def mapillary_v2(root, panoptic=False):
    write_tiny_mapillary_v2(root, "training", panoptic=panoptic)
    truth = root / "training" / "v2.0" / ("panoptic" if panoptic else "instances") / "a_first.png"
    photograph = root / "training" / "images" / "a_first.jpg"
    return Layout(partial(MapillaryVistas, root, "training", **V2), photograph, truth, "rgb" if panoptic else "grey16")


def voc(root, labels="semantic", folder="SegmentationClass"):
    write_tiny_voc(root / "VOC2012")
    photograph = root / "VOC2012" / "JPEGImages" / "2007_000032.jpg"
    opened = partial(VOC2012, root / "VOC2012", "train", labels=labels)
    return Layout(opened, photograph, root / "VOC2012" / folder / "2007_000032.png", "index")


LAYOUTS = {
    "coco_panoptic": coco_panoptic,
    "coco_instances": coco_instances,
    "coco_stuff": coco_stuff,
    "cityscapes": cityscapes,
    "cityscapes, panoptic": partial(cityscapes, panoptic=True),
    "cityscapes_semantic": cityscapes_semantic,
    "mapillary": mapillary,
    "mapillary, panoptic": partial(mapillary, panoptic=True),
    "mapillary_v2": mapillary_v2,
    "mapillary_v2, panoptic": partial(mapillary_v2, panoptic=True),
    "voc": voc,
    "voc_panoptic, classes": partial(voc, labels="panoptic"),
    "voc_panoptic, objects": partial(voc, labels="panoptic", folder="SegmentationObject"),
}
WITH_TRUTH = [name for name in LAYOUTS if name != "coco_instances"]


@pytest.fixture
def layout(request, tmp_path):
    return LAYOUTS[request.param](tmp_path / "data")


in_every_layout = pytest.mark.parametrize("layout", LAYOUTS, indirect=True)
in_every_layout_with_truth = pytest.mark.parametrize("layout", WITH_TRUTH, indirect=True)


def replace(path, mode, file_format="PNG"):
    """Another image of the same size."""
    with Image.open(path) as image:
        size = image.size
    Image.new(mode, size).save(path, file_format)


def words_of(layout):
    """The check finds one fault; its message, which is that of training."""
    (finding,) = check(layout.opened).errors
    with pytest.raises((ValueError, OSError)) as raised:
        train_on(layout.opened)
    assert str(raised.value) == finding.message
    return finding


@in_every_layout
@pytest.mark.parametrize(
    ("plant", "kind", "words"),
    [
        (make_link_to_nowhere, Kind.MISSING_FILE, "no file {path}, or a link that leads nowhere; add the file, or"),
        (partial(cut, kept=0), Kind.UNREADABLE, "truncated or damaged image: {path} (0 bytes); fetch the file again"),
        (partial(cut, kept=0.7), Kind.UNREADABLE, "truncated or damaged image: {path} ("),
        (lambda path: path.write_text("none"), Kind.UNREADABLE, "truncated or damaged image: {path} (4 bytes); fetch"),
        (lambda path: Image.new("RGB", (8, 7)).save(path), Kind.SIZE, "image {path} has size (7, 8), but "),
    ],
    ids=["dangling link", "empty", "truncated", "text", "another size"],
)
def test_a_faulty_photograph_is_named(layout, plant, kind, words):
    plant(layout.photograph)
    finding = words_of(layout)
    assert (finding.kind, finding.file) == (kind, str(layout.photograph))
    assert finding.message.startswith(words.format(path=layout.photograph))


@in_every_layout
def test_a_layout_without_fault_has_no_error(layout):
    assert check(layout.opened).errors == []
    train_on(layout.opened)


@in_every_layout_with_truth
@pytest.mark.parametrize("kept", [0, 20, 0.6, -1])
def test_a_truncated_truth_is_named(layout, kept):
    cut(layout.truth, kept)
    finding = words_of(layout)
    assert (finding.kind, finding.file) == (Kind.UNREADABLE, str(layout.truth))
    assert finding.message.startswith(f"truncated or damaged image: {layout.truth} (")
    assert finding.message.endswith(" bytes); fetch the file again")


@in_every_layout_with_truth
def test_a_truth_that_is_a_link_to_nowhere_is_named(layout):
    make_link_to_nowhere(layout.truth)
    finding = words_of(layout)
    assert (finding.kind, finding.file) == (Kind.MISSING_FILE, str(layout.truth))
    assert "or a link that leads nowhere; add" in finding.message


EXPECTED = {
    "rgb": "three 8-bit channels (RGB)",
    "grey16": "one 16-bit channel (grey)",
    "index": "palette indices, or one 8-bit channel (grey)",
}
KINDS = {
    "1": "one of 1 bits, grey",
    "L": "one of 8 bits, grey",
    "P": "one of 1 bits, palette",  # Pillow writes as few bits as the palette needs
    "RGB": "one of 8 bits, RGB",
    "LA": "one of 8 bits, grey with alpha",
    "RGBA": "one of 8 bits, RGB with alpha",
    "I;16": "one of 16 bits, grey",
}
OTHERS = {
    "coco_panoptic": ["1", "L", "P", "LA", "RGBA", "I;16"],
    "cityscapes, panoptic": ["L", "P", "RGBA", "I;16"],
    "mapillary_v2, panoptic": ["L", "P"],
    "cityscapes": ["1", "L", "P", "LA", "RGB", "RGBA"],
    "mapillary": ["L", "RGB"],
    "mapillary_v2": ["L", "RGB"],
    "coco_stuff": ["1", "RGB", "LA", "RGBA", "I;16"],
    "cityscapes_semantic": ["RGB", "I;16"],
    "voc": ["RGB", "I;16"],
    "voc_panoptic, classes": ["RGB"],
    "voc_panoptic, objects": ["RGB", "I;16"],
}
"""{layout: kinds that its truth must not be}; what reads a kind of PNG is shared, and tried with all of them once."""


@pytest.mark.parametrize(
    ("layout", "mode"), [(name, mode) for name, modes in OTHERS.items() for mode in modes], indirect=["layout"]
)
def test_a_truth_of_another_kind_is_named_with_what_it_is(layout, mode):
    replace(layout.truth, mode)
    finding = words_of(layout)
    assert (finding.kind, finding.file) == (Kind.UNREADABLE, str(layout.truth))
    found_and_advice = f"got {KINDS[mode]}: {layout.truth}; use the original, converting loses its values"
    assert finding.message == f"expected a PNG with {EXPECTED[layout.kind]}, {found_and_advice}"


@in_every_layout_with_truth
def test_a_truth_that_was_saved_as_jpeg_is_named(layout):
    replace(layout.truth, "RGB", "JPEG")
    assert words_of(layout).message.startswith(f"expected a PNG with {EXPECTED[layout.kind]}, got no PNG: ")


@in_every_layout_with_truth
def test_a_photograph_or_truth_without_the_other_is_an_error_that_names_it(layout, tmp_path):
    for path in (layout.truth, layout.photograph):
        shutil.move(path, tmp_path / "kept")
        (finding,) = check(layout.opened).errors
        assert finding.kind in (Kind.MISSING_FILE, Kind.STRAY_FILE)
        stem = path.stem.removesuffix("_leftImg8bit").removesuffix("_gtFine_panoptic").removesuffix("_photo")
        assert stem.removesuffix("_gtFine_instanceIds").removesuffix("_gtFine_labelIds") in finding.message
        with pytest.raises(FileNotFoundError, match=r"; |\.png"):
            layout.opened()
        shutil.move(tmp_path / "kept", path)
    train_on(layout.opened)


@in_every_layout
def test_links_to_files_are_no_fault(layout, tmp_path):
    before = [sample.image.tolist() for sample in layout.opened()]
    for path in (layout.photograph, layout.truth):
        if path is not None:
            elsewhere = tmp_path / f"straße 1 {path.name}"
            shutil.move(path, elsewhere)
            path.symlink_to(elsewhere)
    assert check(layout.opened).errors == []
    assert [sample.image.tolist() for sample in layout.opened()] == before


@in_every_layout
@pytest.mark.parametrize(("mode", "file_format"), [("L", "PNG"), ("CMYK", "JPEG"), ("I;16", "PNG")])
def test_a_photograph_of_other_channels_is_no_fault(layout, mode, file_format):
    shapes = [sample.image.shape for sample in layout.opened()]
    replace(layout.photograph, mode, file_format)
    assert check(layout.opened).errors == []
    assert [sample.image.shape for sample in layout.opened()] == shapes


@in_every_layout
def test_a_photograph_to_be_shown_turned_is_a_warning_and_is_read_as_it_is_stored(layout):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show it
    with Image.open(layout.photograph) as image:
        size = image.size
    Image.new("RGB", size).save(layout.photograph, exif=exif)
    split = check(layout.opened)
    assert split.errors == []
    assert found(split.warnings)[Kind.TURNED, layout.photograph.name] == 1
    train_on(layout.opened)


# Names of files with blanks and letters beyond ASCII

NAME = "größe 1 東京"


@pytest.mark.parametrize(
    "layout", ["coco_stuff", "cityscapes", "cityscapes_semantic", "mapillary", "mapillary_v2", "voc"], indirect=True
)
def test_unicode_and_blanks_in_names_are_no_fault(layout):
    old = layout.photograph.name.removesuffix("_leftImg8bit.png").removesuffix(".jpg")
    for path in (layout.photograph, layout.truth):
        path.rename(path.with_name(path.name.replace(old, NAME)))
    if old == "2007_000032":
        tiny_voc.write_list(layout.photograph.parent.parent, "train", [NAME])
    assert check(layout.opened).errors == []
    dataset = layout.opened()
    assert NAME in dataset.image_ids
    assert len(dataset[dataset.image_ids.index(NAME)].panoptic_map.segments) > 0


@pytest.mark.parametrize("layout", ["coco_stuff", "cityscapes", "mapillary"], indirect=True)
def test_accents_that_unicode_writes_in_two_ways_are_told(layout):
    old = layout.photograph.name.removesuffix("_leftImg8bit.png").removesuffix(".jpg")
    for path, form in ((layout.photograph, "NFC"), (layout.truth, "NFD")):
        path.rename(path.with_name(path.name.replace(old, unicodedata.normalize(form, "größe"))))
    message = r"1 of . images have no PNGs .*, the first is größe; there is one whose accents Unicode writes otherwise"
    with pytest.raises(FileNotFoundError, match=message):
        layout.opened()


def test_accents_that_a_json_writes_otherwise_are_told(tmp_path):
    tiny = write_tiny_coco(tmp_path, count=3)
    content = tiny.content()
    (tiny.image_folder / "100_photo.png").rename(tiny.image_folder / unicodedata.normalize("NFD", "größe.png"))
    content["images"][0]["file_name"] = unicodedata.normalize("NFC", "größe.png")
    tiny.rewrite(content)
    message = (
        r"1 of 3 images of .*tiny\.json are missing, the first is .*größe\.png; there is one whose accents Unicode"
    )
    with pytest.raises(FileNotFoundError, match=message):
        CocoPanoptic(tiny.panoptic_json, tiny.image_folder)


def test_a_list_of_voc_may_begin_with_the_mark_that_editors_on_windows_write(tmp_path):
    layout = voc(tmp_path)
    path = tmp_path / "VOC2012" / "ImageSets" / "Segmentation" / "train.txt"
    path.write_bytes(b"\xef\xbb\xbf2007_000032\r\n")
    assert layout.opened().image_ids == ["2007_000032"]


def test_a_list_of_voc_that_is_not_utf_8_is_named(tmp_path):
    layout = voc(tmp_path)
    path = tmp_path / "VOC2012" / "ImageSets" / "Segmentation" / "train.txt"
    path.write_bytes("größe".encode("latin-1"))
    finding = words_of(layout)
    assert (finding.kind, finding.file) == (Kind.UNREADABLE, str(path))
    assert finding.message.startswith(f"expected a text of UTF-8 in {path}, got: ")


@pytest.mark.parametrize("labels", ["semantic", "panoptic"])
def test_an_annotation_of_sbd_that_is_a_link_to_nowhere_is_named(tmp_path, labels):
    layout = voc(tmp_path)
    sbd = write_tiny_sbd(tmp_path / "dataset")
    tiny_voc.write_list(tmp_path / "VOC2012", "trainaug", [tiny_voc.OF_SBD])
    path = sbd / ("cls" if labels == "semantic" else "inst") / f"{tiny_voc.OF_SBD}.mat"
    make_link_to_nowhere(path)
    opened = partial(VOC2012, tmp_path / "VOC2012", "trainaug", labels=labels, sbd=sbd)
    finding = words_of(Layout(opened, layout.photograph))
    assert (finding.kind, finding.file) == (Kind.MISSING_FILE, str(path))
    assert finding.message == f"no file {path}, or a link that leads nowhere; expected an annotation of SBD"


# Values that the format has not


def with_values(values, *changed):
    """The values with some in the row 3, from column 3 on."""
    values[3, 3 : 3 + len(changed)] = changed
    return values


@pytest.mark.parametrize(
    ("layout", "values", "count", "words"),
    [
        # the official ids instead of these less 1: wood is 182
        ("coco_stuff", np.full((12, 17), 182, np.uint8), 1, r"unknown value 182 in {path}, 204 pixels; expected off"),
        # a thing that the instances do not have: id 12, "street sign"
        ("coco_stuff", np.full((12, 17), 11, np.uint8), 1, r"unknown value 11 in {path}, 204 pixels; expected off"),
        # Mapillary's arithmetic, 26 * 256 + 1 and 24 * 256
        ("cityscapes", with_values(tiny_cityscapes.values_of(FRAME), 6657, 6144), 2, r"unknown value 6144 in {path};"),
        # train ids, where 255 is void
        ("cityscapes_semantic", np.full((12, 17), 255, np.uint8), 1, r"unknown label 255 in {path}; expected label"),
        # Cityscapes' arithmetic, 3 * 1000 + 1 = 11 * 256 + 185
        ("mapillary", with_values(tiny_mapillary.values_of("a_first"), 3001), 1, r"of config.json in {path}, got 11"),
        ("mapillary_v2", with_values(tiny_mapillary.values_of("a_first"), 3001), 1, r"v2.0.json in {path}, got 11"),
        ("mapillary_v2", with_values(tiny_mapillary.values_of("a_first"), 1024), 1, r"v2.0.json in {path}, got 4"),
        ("voc", np.full((12, 17), 21, np.uint8), 1, r"unknown class 21 in {path}, 204 pixels; expected 0 for back"),
    ],
    indirect=["layout"],
)
def test_values_of_wrong_arithmetic_are_found_and_met_in_training(layout, values, count, words):
    if layout.truth.parent.name == "SegmentationClass":
        write_palette_png(layout.truth, values)
    else:
        Image.fromarray(values).save(layout.truth)
    check_agrees_with_training(layout.opened, {(Kind.UNKNOWN_CATEGORY, layout.truth.name): count})
    message = check(layout.opened).errors[0].message
    assert words.format(path=layout.truth) in message
    with pytest.raises(ValueError, match=re.escape(message)):
        train_on(layout.opened)
