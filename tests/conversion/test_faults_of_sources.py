"""Faults that any format may have, planted into each that `panoptic convert` reads: named, and nothing is written."""

import re
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny_voc
from damage import cut, make_link_to_nowhere
from PIL import Image
from tiny_cityscapes import write_tiny_cityscapes
from tiny_conversions import (
    HALF_TURN,
    annotation,
    rectangle,
    shape,
    write_categories,
    write_instances,
    write_labelme,
    write_map,
    write_photograph,
)
from tiny_mapillary import write_tiny_mapillary

from panoptic.conversion.cityscapes_ids import CityscapesIds
from panoptic.conversion.cvat import Cvat
from panoptic.conversion.labelme import Labelme
from panoptic.conversion.map_pairs import MapPairs
from panoptic.conversion.mapillary_ids import MapillaryIds
from panoptic.conversion.object_masks import ObjectMasks
from panoptic.conversion.panoptic_files import PanopticTarget
from panoptic.conversion.spade import Spade
from panoptic.conversion.stream import convert
from panoptic.conversion.voc_pngs import VocPngs

pytestmark = pytest.mark.slow

FRAME = "aachen_000000_000019"


@dataclass(frozen=True)
class Files:
    """A source of two images or more.

    Args:
        opened: makes it.
        photograph: of one image; no format has square ones.
        maps: the PNGs of that image's annotation, none where it is in a JSON.
    """

    opened: partial
    photograph: Path
    maps: tuple[Path, ...] = ()


def cityscapes_ids(root):
    write_tiny_cityscapes(root, "val", panoptic=False)
    maps, images = root / "gtFine" / "val", root / "leftImg8bit" / "val"
    truth = maps / "aachen" / f"{FRAME}_gtFine_instanceIds.png"
    return Files(partial(CityscapesIds, maps, images), images / "aachen" / f"{FRAME}_leftImg8bit.png", (truth,))


def mapillary_ids(root):
    write_tiny_mapillary(root, "training", panoptic=False)
    maps, images = root / "training" / "instances", root / "training" / "images"
    opened = partial(MapillaryIds, maps, images, root / "config.json")
    return Files(opened, images / "a_first.jpg", (maps / "a_first.png",))


def voc_pngs(root):
    tiny_voc.write_tiny_voc(root)
    maps = tuple(root / folder / "2007_000032.png" for folder in ("SegmentationClass", "SegmentationObject"))
    return Files(partial(VocPngs, root), root / "JPEGImages" / "2007_000032.jpg", maps)


def pairs(root, source=MapPairs):
    for name in "ab":
        write_photograph(root / "photos" / f"{name}.jpg", (2, 3))
        write_map(root / "classes" / f"{name}.png", [[1, 1, 2], [2, 2, 2]])
        write_map(root / "numbers" / f"{name}.png", [[1, 1, 2], [3, 3, 3]])
    table = write_categories(root / "c.json", (1, "person", True), (2, "car", True), (3, "road", False))
    opened = partial(source, root / "classes", root / "numbers", root / "photos", table)
    return Files(opened, root / "photos" / "a.jpg", (root / "classes" / "a.png", root / "numbers" / "a.png"))


def object_masks(root):
    for name in "ab":
        write_photograph(root / name / "images" / "x.png", (5, 7))
        mask = np.zeros((5, 7))
        mask[1:3, 2:5] = 255
        write_map(root / name / "masks" / "1.png", mask)
    return Files(partial(ObjectMasks, root, "nucleus"), root / "a" / "images" / "x.png", (root / "a/masks/1.png",))


def cvat(root):
    root.mkdir()
    path = write_instances(root / "i.json", [annotation(1, [[0, 0, 3, 0, 3, 3]])])
    return Files(partial(Cvat, path, root / "images"), root / "images" / "first.jpg")


def labelme(root):
    for name in "ab":
        write_labelme(root, name, [shape("car", rectangle(0, 0, 2, 2))])
    return Files(partial(Labelme, root), root / "a.png")


SOURCES = {
    "cityscapes_ids": cityscapes_ids,
    "mapillary_ids": mapillary_ids,
    "voc_pngs": voc_pngs,
    "map_pairs": pairs,
    "spade": partial(pairs, source=Spade),
    "object_masks": object_masks,
    "cvat": cvat,
    "labelme": labelme,
}
MAPS = [
    *(("cityscapes_ids", 0), ("mapillary_ids", 0), ("voc_pngs", 0), ("voc_pngs", 1), ("map_pairs", 0)),
    *(("map_pairs", 1), ("spade", 0), ("spade", 1), ("object_masks", 0)),
]
"""(source, which of its maps)."""


@pytest.fixture
def files(request, tmp_path):
    return SOURCES[request.param](tmp_path / "data")


in_every_source = pytest.mark.parametrize("files", SOURCES, indirect=True)
in_every_map = pytest.mark.parametrize(("files", "number"), MAPS, indirect=["files"])


def convert_all(files, out):
    """Convert to panoptic files."""
    source = files.opened()
    out.mkdir()
    return convert(source, PanopticTarget(out, source.categories), num_workers=1, advance=lambda: None)


def check_one_fault(files, out, words):
    """One image of the source has a fault, told in these words; nothing that could be read is in the folder."""
    count = len(files.opened())
    summary = f"1 of {count} images could not be converted, and nothing was written:\n  {words}"
    with pytest.raises(ValueError, match=f"^{re.escape(summary)}"):
        convert_all(files, out)
    assert not list(out.glob("*.json"))


@in_every_source
@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (make_link_to_nowhere, "no photograph {path}, or a link that leads nowhere"),
        (partial(cut, kept=0), "{path} is no image that can be read (0 bytes); fetch it again"),
        (lambda path: path.write_text("none"), "{path} is no image that can be read (4 bytes); fetch it again"),
        (lambda path: Image.new("RGB", (8, 11)).save(path), "{path} has size (11, 8), but its annotation ("),
        (lambda path: write_photograph(path, size_of(path), HALF_TURN), "{path} has EXIF orientation 3, which reading"),
    ],
    ids=["dangling link", "empty", "text", "another size", "turned"],
)
def test_a_faulty_photograph_is_named(files, tmp_path, plant, words):
    plant(files.photograph)
    check_one_fault(files, tmp_path / "out", words.format(path=files.photograph))


def size_of(path):
    """(H, W) in pixels."""
    with Image.open(path) as image:
        return image.size[::-1]


@in_every_source
def test_a_missing_photograph_is_named(files, tmp_path):
    files.photograph.unlink()
    with pytest.raises(ValueError, match=r" has no photograph |no photograph |expected one photograph in ") as raised:
        convert_all(files, tmp_path / "out")
    name = files.photograph.name.removesuffix("_leftImg8bit.png").removesuffix(".jpg")
    assert name in str(raised.value) or f"{files.photograph.parent}, found 0" in str(raised.value)


@in_every_map
def test_a_missing_map_is_named(files, number, tmp_path):
    path = files.maps[number]
    path.unlink()
    with pytest.raises(ValueError, match=r" has no (class |instance )?map |no PNG in .*/a/masks; expected") as raised:
        convert_all(files, tmp_path / "out")
    assert path.stem.removesuffix("_gtFine_instanceIds") in str(raised.value)


@in_every_map
@pytest.mark.parametrize("kept", [0, 20, 0.6, -1])
def test_a_truncated_map_is_named(files, number, tmp_path, kept):
    cut(files.maps[number], kept)
    check_one_fault(files, tmp_path / "out", f"truncated or damaged image: {files.maps[number]} (")


@in_every_map
def test_a_map_that_is_a_link_to_nowhere_is_named(files, number, tmp_path):
    make_link_to_nowhere(files.maps[number])
    check_one_fault(files, tmp_path / "out", f"no file {files.maps[number]}, or a link that leads nowhere")


INDEX = "palette indices, or one 8-bit channel (grey)"


@pytest.mark.parametrize(
    ("files", "number", "mode", "words"),
    [
        ("cityscapes_ids", 0, "L", "one 16-bit channel (grey), got one of 8 bits, grey"),
        ("cityscapes_ids", 0, "RGB", "one 16-bit channel (grey), got one of 8 bits, RGB"),
        ("mapillary_ids", 0, "L", "one 16-bit channel (grey), got one of 8 bits, grey"),
        ("mapillary_ids", 0, "P", "one 16-bit channel (grey), got one of 1 bits, palette"),
        ("mapillary_ids", 0, "RGBA", "one 16-bit channel (grey), got one of 8 bits, RGB with alpha"),
        ("voc_pngs", 0, "RGB", f"{INDEX}, got one of 8 bits, RGB"),
        ("voc_pngs", 0, "I;16", f"{INDEX}, got one of 16 bits, grey"),
        ("voc_pngs", 1, "RGB", f"{INDEX}, got one of 8 bits, RGB"),
        ("map_pairs", 0, "RGB", f"{INDEX}, got one of 8 bits, RGB"),
        ("map_pairs", 1, "LA", f"{INDEX}, got one of 8 bits, grey with alpha"),
        ("spade", 0, "RGBA", f"{INDEX}, got one of 8 bits, RGB with alpha"),
        ("spade", 1, "RGB", f"{INDEX}, got one of 8 bits, RGB"),
        ("object_masks", 0, "RGB", f"{INDEX}, got one of 8 bits, RGB"),
        ("object_masks", 0, "1", f"{INDEX}, got one of 1 bits, grey"),
        ("object_masks", 0, "I;16", f"{INDEX}, got one of 16 bits, grey"),
    ],
    indirect=["files"],
)
def test_a_map_of_another_kind_is_named_with_what_it_is(files, number, mode, words, tmp_path):
    path = files.maps[number]
    Image.new(mode, size_of(path)[::-1]).save(path)
    advice = f"{path}; use the original, converting loses its values"
    check_one_fault(files, tmp_path / "out", f"expected a PNG with {words}: {advice}")


@pytest.mark.parametrize(
    ("files", "number", "values", "words"),
    [
        # Mapillary's arithmetic, 26 * 256 + 1
        ("cityscapes_ids", 0, np.full((12, 17), 6657, np.uint16), "expected a label id, or for things 1000 times"),
        # Cityscapes' arithmetic, 3 * 1000 + 1 = 11 * 256 + 185
        ("mapillary_ids", 0, np.full((9, 20), 3001, np.uint16), "expected 256 times a label 0..3 plus a number, got"),
        ("map_pairs", 0, np.full((2, 3), 4, np.uint8), "expected classes [1, 2, 3], and 255 for void"),
        # ids instead of these less 1
        ("spade", 0, np.full((2, 3), 3, np.uint8), "expected classes [0, 1, 2], and 255 for void"),
    ],
    indirect=["files"],
)
def test_values_of_wrong_arithmetic_are_named(files, number, values, words, tmp_path):
    Image.fromarray(values).save(files.maps[number])
    check_one_fault(files, tmp_path / "out", f"unknown values in {files.maps[number]}, {words}")


@in_every_source
def test_links_to_files_are_no_fault(files, tmp_path):
    maps = [image.panoptic_map.segment_ids.tolist() for image in read_all(files)]
    for number, path in enumerate((files.photograph, *files.maps)):
        elsewhere = tmp_path / f"straße {number} {path.name}"
        shutil.move(path, elsewhere)
        path.symlink_to(elsewhere)
    assert [image.panoptic_map.segment_ids.tolist() for image in read_all(files)] == maps


def read_all(files):
    source = files.opened()
    return [source[index] for index in range(len(source))]


@in_every_source
@pytest.mark.parametrize(("mode", "file_format"), [("L", "PNG"), ("CMYK", "JPEG"), ("I;16", "PNG")])
def test_a_photograph_of_other_channels_is_no_fault(files, tmp_path, mode, file_format):
    Image.new(mode, size_of(files.photograph)[::-1]).save(files.photograph, file_format)
    assert convert_all(files, tmp_path / "out").images == len(files.opened())


NAME = "größe 1 東京"


@pytest.mark.parametrize("files", ["cityscapes_ids", "mapillary_ids", "voc_pngs", "map_pairs", "spade"], indirect=True)
def test_unicode_and_blanks_in_names_are_no_fault(files, tmp_path):
    old = files.photograph.name.removesuffix("_leftImg8bit.png").removesuffix(".jpg")
    for path in (files.photograph, *files.maps):
        path.rename(path.with_name(path.name.replace(old, NAME)))
    assert NAME in [image.image_id for image in read_all(files)]
    convert_all(files, tmp_path / "out")
    assert len(list((tmp_path / "out" / "panoptic").rglob(f"*{NAME}*.png"))) == 1


def test_unicode_and_blanks_in_names_of_object_masks_are_no_fault(tmp_path):
    files = object_masks(tmp_path / "data")
    (tmp_path / "data" / "a").rename(tmp_path / "data" / NAME)
    assert [image.image_id for image in read_all(files)] == ["b", NAME]


def test_a_labelme_file_that_is_a_link_to_nowhere_is_named(tmp_path):
    files = labelme(tmp_path / "data")
    make_link_to_nowhere(tmp_path / "data" / "b.json")
    words = f"1 of 2 files cannot be read:\n  no file {tmp_path / 'data' / 'b.json'}, or a link that leads nowhere"
    with pytest.raises(ValueError, match=re.escape(words)):
        files.opened()


@pytest.mark.parametrize("far", [1e6 + 1, -1e15, float("inf"), float("nan")])
def test_points_so_far_outside_that_they_cannot_be_drawn_are_an_error(tmp_path, far):
    root = tmp_path / "cvat"
    root.mkdir()
    path = write_instances(root / "i.json", [annotation(1, [[0, 0, far, 0, 3, 3]])])
    words = r"expected a polygon as x, y, .*, got \[0, 0, .*\] in annotation 1 .*; coordinates go up to 1000000"
    with pytest.raises(ValueError, match=words):
        Cvat(path, root / "images")[0]
    write_labelme(tmp_path / "labelme", "a", [shape("car", [[0, 0], [far, 0], [3, 3]])])
    words = r"expected points as pairs of numbers, got .* in shape 0 \('car'\) of .*a\.json; coordinates go up to"
    with pytest.raises(ValueError, match=words):
        Labelme(tmp_path / "labelme")[0]


def test_a_list_of_voc_may_begin_with_the_mark_that_editors_on_windows_write(tmp_path):
    voc_pngs(tmp_path / "data")
    names = tmp_path / "names.txt"
    names.write_bytes(b"\xef\xbb\xbf2007_000033\r\n")
    assert [image.image_id for image in read_all(Files(partial(VocPngs, tmp_path / "data", names), names))] == [
        "2007_000033"
    ]
    names.write_bytes("größe".encode("latin-1"))
    with pytest.raises(ValueError, match=r"expected a text of UTF-8 in .*names\.txt, got: .*; save it so"):
        VocPngs(tmp_path / "data", names)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_id": [7]}, "entry 0 of `annotations` has image_id [7] and category_id 1, expected ids as in `images`"),
        ({"category_id": {}}, "entry 0 of `annotations` has image_id 7 and category_id {}, expected ids as in"),
    ],
)
def test_an_annotation_whose_ids_are_none_is_named(tmp_path, changes, words):
    path = write_instances(tmp_path / "i.json", [{**annotation(1, []), **changes}])
    with pytest.raises(ValueError, match=r"1 entries of .*i\.json are not as in") as raised:
        Cvat(path, tmp_path / "images")
    assert words in str(raised.value)


def test_an_image_whose_id_is_none_is_named(tmp_path):
    images = [{"id": [7], "file_name": "first.jpg", "height": 9, "width": 13}]
    path = write_instances(tmp_path / "i.json", [], images=images)
    with pytest.raises(ValueError, match=r"entry 0 of `images` lacks id"):
        Cvat(path, tmp_path / "images")


def test_a_photograph_whose_header_gives_an_impossible_size_is_named(tmp_path):
    files = labelme(tmp_path / "data")
    path = files.photograph.with_suffix(".jpg")
    write_photograph(path, (9, 13))
    data = bytearray(path.read_bytes())
    place = data.index(b"\xff\xc0") + 5  # of height and width in the frame's header
    data[place : place + 4] = b"\xff" * 4
    files.photograph.write_bytes(data)
    check_one_fault(files, tmp_path / "out", f"{files.photograph} is damaged: Image size (4294836225 pixels)")
