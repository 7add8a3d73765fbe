"""VOC's PNGs, class and instance maps, SPADE's layout, one mask an object."""

import numpy as np
import pytest
import tiny_voc
import torch
from PIL import Image
from tiny_conversions import drawn, write_categories, write_map, write_photograph

from panoptic.conversion.contract import AnnotatedImage
from panoptic.conversion.map_pairs import UNNUMBERED, MapPairs
from panoptic.conversion.object_masks import EMPTY_MASKS, ObjectMasks
from panoptic.conversion.spade import OUTLINES, Spade
from panoptic.conversion.voc_pngs import VocPngs, VocPngsTarget
from panoptic.data.voc import CATEGORIES, VOC2012
from panoptic.structures import Category, PanopticMap, Segment


@pytest.fixture
def voc(tmp_path):
    return tiny_voc.write_tiny_voc(tmp_path / "VOC2012")


def pixels_of(path):
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.array(image)


@pytest.mark.parametrize("void", [255, 0])
def test_voc_maps_are_those_that_training_reads(tmp_path, void):
    root = tiny_voc.write_tiny_voc(tmp_path / "VOC2012", void=void)
    source, data = VocPngs(root), VOC2012(root, "trainval")
    assert source.categories == data.categories
    found = {source[index].image_id: source[index] for index in range(len(source))}
    assert list(found) == data.image_ids
    for index, name in enumerate(data.image_ids):
        sample = data[index]
        assert torch.equal(found[name].panoptic_map.segment_ids, sample.panoptic_map.segment_ids)
        assert set(found[name].panoptic_map.segments) == set(sample.panoptic_map.segments)


def test_every_value_of_voc_comes_back(voc, tmp_path):
    source = VocPngs(voc)
    (tmp_path / "out").mkdir()
    target = VocPngsTarget(tmp_path / "out", source.categories)
    for index in range(len(source)):
        target.add(source[index])
    assert target.close() == []
    for name in ("2007_000032", "2007_000033"):
        assert np.array_equal(
            pixels_of(tmp_path / "out" / "SegmentationClass" / f"{name}.png"), tiny_voc.classes_of(name)
        )
        assert np.array_equal(
            pixels_of(tmp_path / "out" / "SegmentationObject" / f"{name}.png"), tiny_voc.objects_of(name)
        )


def test_a_list_says_which_images_of_voc(voc):
    names = voc / "ImageSets" / "Segmentation" / "val.txt"
    source = VocPngs(voc, names)
    assert [source[index].image_id for index in range(len(source))] == ["2007_000033"]
    tiny_voc.write_list(voc, "val", ["2007_000033", "2008_000003", "typo"])
    with pytest.raises(
        ValueError, match=r"2 names in .*val\.txt have no map in SegmentationClass:\n  2008_000003\n  typo"
    ):
        VocPngs(voc, names)
    with pytest.raises(FileNotFoundError, match=r"from\.names=.*none\.txt: no such file"):
        VocPngs(voc, voc / "none.txt")


def test_voc_maps_of_ones_own_classes(tmp_path):
    classes, objects = [[0, 30, 30, 31], [255, 254, 254, 31]], [[0, 1, 1, 0], [0, 7, 7, 0]]
    write_photograph(tmp_path / "JPEGImages" / "a b.jpg", (2, 4))
    write_map(tmp_path / "SegmentationClass" / "a b.png", classes)
    write_map(tmp_path / "SegmentationObject" / "a b.png", objects)
    table = write_categories(
        tmp_path / "c.json", (0, "ground", False), (30, "cow", True), (31, "sky", False), (254, "dog", True)
    )
    image = VocPngs(tmp_path, categories=table)[0]
    assert image.panoptic_map.segment_ids.tolist() == [[255, 1, 1, 286], [0, 7, 7, 286]]
    assert {(s.id, s.category_id) for s in image.panoptic_map.segments} == {(255, 0), (1, 1), (7, 3), (286, 2)}


def test_all_faults_of_voc_maps_are_reported_together(tmp_path):
    classes = [[21, 7, 7, 9, 0, 15, 0]]
    objects = [[1, 0, 2, 2, 4, 5, 0]]
    write_photograph(tmp_path / "JPEGImages" / "a.jpg", (1, 7))
    write_map(tmp_path / "SegmentationClass" / "a.png", classes)
    write_map(tmp_path / "SegmentationObject" / "a.png", objects)
    with pytest.raises(ValueError, match="4 faults in the maps of one image") as caught:
        VocPngs(tmp_path)[0]
    for part in (
        "class 21 in",
        "pixels of 'car' in",
        "object 4 in",
        "which is no thing",
        "is of classes 7 and 9 in",
    ):
        assert part in str(caught.value)


def test_voc_files_that_do_not_belong_together_are_an_error(voc):
    Image.new("P", (3, 2)).save(voc / "SegmentationObject" / "2007_000033.png")
    with pytest.raises(
        ValueError, match=r"Class/2007_000033\.png has size \(9, 20\), but .*Object/2007_000033\.png \(2, 3\)"
    ):
        VocPngs(voc)[1]
    Image.new("RGB", (20, 9)).save(voc / "SegmentationClass" / "2007_000033.png")
    with pytest.raises(ValueError, match=r"expected a PNG with palette indices.*SegmentationClass/2007_000033\.png"):
        VocPngs(voc)[1]
    (voc / "JPEGImages" / "2007_000032.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 maps have no partner; .*:\n  .*2007_000032\.png has no photograph in"):
        VocPngs(voc)
    (voc / "SegmentationObject" / "2007_000033.png").unlink()
    with pytest.raises(ValueError, match=r"2007_000033\.png has no map in .*SegmentationObject"):
        VocPngs(voc)


def test_voc_numbers_objects_through_all_classes_and_has_no_crowds(tmp_path):
    segments = [Segment(9, 7), Segment(255, 0), Segment(700, 15), Segment(1, 7), Segment(5, 7, is_crowd=True)]
    ids = torch.tensor([[9, 255, 700, 1, 5, 0]])
    target = VocPngsTarget(tmp_path, CATEGORIES)
    target.add(AnnotatedImage("x", "x.jpg", PanopticMap(ids, segments)))
    assert pixels_of(tmp_path / "SegmentationObject" / "x.png").tolist() == [[9, 0, 2, 1, 255, 255]]
    assert pixels_of(tmp_path / "SegmentationClass" / "x.png").tolist() == [[7, 0, 15, 7, 255, 255]]
    with pytest.raises(ValueError, match=r"x\.png would be written a second time"):
        target.add(AnnotatedImage("y", "x.png", PanopticMap(ids, segments)))
    with pytest.raises(ValueError, match=r"expected category ids 0\.\.254 for maps in VOC's form, got \[300\]"):
        VocPngsTarget(tmp_path, [Category(0, "a", True, dataset_category_id=300)])


@pytest.fixture
def table(tmp_path):
    return write_categories(tmp_path / "c.json", (1, "person", True), (2, "car", True), (400, "road", False))


def write_pair(root, classes, numbers, dtype=np.uint8):
    classes, numbers = (np.asarray(values) for values in (classes, numbers))
    write_photograph(root / "photos" / "below" / "a.jpg", classes.shape)
    write_map(root / "classes" / "below" / "a.png", classes, dtype)
    write_map(root / "numbers" / "below" / "a.png", numbers, dtype)
    return root / "classes", root / "numbers", root / "photos"


def test_numbers_may_start_anew_with_each_class(tmp_path, table):
    classes = [[1, 1, 2, 2, 2], [400, 400, 400, 255, 2]]
    numbers = [[1, 9, 1, 1, 0], [0, 3, 9, 1, 0]]
    image = MapPairs(*write_pair(tmp_path, classes, numbers, np.uint16), table)[0]
    # sorted by number, then by class: (2, 0), (400, 0), (1, 1), (2, 1), (1, 9)
    assert drawn(image) == ["35441", "222.1"]
    assert [(s.id, s.category_id, s.is_crowd, s.area) for s in image.panoptic_map.segments] == [
        (1, 1, True, 2),
        (2, 2, False, 3),
        (3, 0, False, 1),
        (4, 1, False, 2),
        (5, 0, False, 1),
    ]
    assert (image.image_id, image.image_name, image.notes) == ("below/a", "below/a.jpg", (UNNUMBERED,))


def test_every_number_can_be_an_object_and_classes_count_from_zero(tmp_path, table):
    paths = write_pair(tmp_path, [[0, 0, 1, 7]], [[0, 5, 0, 0]])
    image = MapPairs(*paths, table, no_number=None, id_of_zero=1, void=7)[0]
    assert drawn(image) == ["132."]
    assert image.notes == ()


def test_an_unknown_class_is_an_error(tmp_path, table):
    paths = write_pair(tmp_path, [[1, 3, 9]], [[1, 1, 1]])
    with pytest.raises(
        ValueError, match=r"unknown values in .*classes/below/a\.png, expected classes \[1, 2, 400\].*\n  3\n  9$"
    ):
        MapPairs(*paths, table)[0]
    with pytest.raises(ValueError, match=r"unknown values in .*classes/below/a\.png, expected classes \[0, 1, 399\]"):
        Spade(*paths, table)[0]


def test_pairs_of_unequal_size_or_colours_are_an_error(tmp_path, table):
    paths = write_pair(tmp_path, [[1, 1, 1]], [[1, 1, 1]])
    write_map(tmp_path / "numbers" / "below" / "a.png", np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"a\.png has size \(1, 3\), but .*numbers/below/a\.png \(2, 3\)"):
        MapPairs(*paths, table)[0]
    Image.new("RGB", (3, 1)).save(tmp_path / "numbers" / "below" / "a.png")
    with pytest.raises(ValueError, match=r"expected a PNG with palette indices, or one 8-bit channel.*numbers/below/a"):
        MapPairs(*paths, table)[0]
    (tmp_path / "numbers" / "below" / "a.png").rename(tmp_path / "numbers" / "below" / "b.png")
    with pytest.raises(ValueError, match="2 files have no partner"):
        MapPairs(*paths, table)


def test_a_link_that_leads_nowhere_is_named(tmp_path, table):
    paths = write_pair(tmp_path, [[1, 1, 1]], [[1, 1, 1]])
    (tmp_path / "numbers" / "below" / "a.png").unlink()
    (tmp_path / "numbers" / "below" / "a.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(FileNotFoundError, match=r"no file .*a\.png, or a link that leads nowhere"):
        MapPairs(*paths, table)[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", r"c\.json has no list `categories`"),
        ("3", r"expected a list of categories in .*c\.json, got int"),
        ("[", r"expected JSON in .*c\.json"),
        ('[{"id": 1, "name": "a", "isthing": 1}, {"id": 1, "name": "b", "isthing": 1}]', "lists a category id twice"),
    ],
)
def test_an_unusable_file_of_categories_is_named(tmp_path, table, content, message):
    paths = write_pair(tmp_path, [[1]], [[1]])
    table.write_text(content)
    with pytest.raises(ValueError, match=message):
        MapPairs(*paths, table)
    with pytest.raises(FileNotFoundError, match=r"from\.categories=.*none\.json: no such file; expected a JSON"):
        MapPairs(*paths, tmp_path / "none.json")


def test_in_spades_layout_the_outlines_of_objects_win(tmp_path):
    table = write_categories(tmp_path / "c.json", (1, "person", True), (8, "car", True), (101, "sky", False))
    # classes: person 0, car 7, sky 100; objects 0 (a car), 1 (a person), 2 (a person)
    classes = [[100, 7, 7, 7, 7, 100], [100, 0, 0, 255, 100, 255], [0, 0, 0, 7, 0, 7]]
    numbers = [[100, 0, 0, 0, 7, 100], [1, 1, 1, 1, 100, 255], [0, 2, 2, 2, 2, 7]]
    image = Spade(*write_pair(tmp_path, classes, numbers), table)[0]
    ids = image.panoptic_map.segment_ids.tolist()
    # the car 0 has 3 px of car and 1 of person, which is void; the person 1 takes a pixel of sky and one of void;
    # the person 2 loses one to the class car; cars of value 7 lie outside all outlines
    assert ids == [[65636, 1, 1, 1, 0, 65636], [2, 2, 2, 2, 65636, 0], [0, 3, 3, 0, 3, 0]]
    assert {(s.id, s.category_id) for s in image.panoptic_map.segments} == {(65636, 2), (1, 1), (2, 0), (3, 0)}
    assert image.notes == (OUTLINES,)


def test_an_object_whose_number_is_its_class_is_one_if_larger_numbers_occur(tmp_path):
    table = write_categories(tmp_path / "c.json", (1, "person", True), (8, "car", True))
    image = Spade(*write_pair(tmp_path, [[0, 0, 7, 7]], [[0, 0, 1, 7]]), table)[0]
    assert drawn(image) == ["112."]


def write_object(folder, name, rows, columns, size=(5, 7)):
    mask = np.zeros(size)
    mask[rows, columns] = 255
    return write_map(folder / "masks" / f"{name}.png", mask)


def test_masks_are_painted_in_the_order_of_their_names_and_kept_whole(tmp_path):
    write_photograph(tmp_path / "b c" / "images" / "x.png", (5, 7))
    write_object(tmp_path / "b c", "2", slice(0, 3), slice(0, 4))
    write_object(tmp_path / "b c", "1", slice(2, 5), slice(2, 6))
    write_object(tmp_path / "b c", "3", slice(0, 0), slice(0, 0))
    write_photograph(tmp_path / "a" / "images" / "y.jpg", (4, 3))
    write_object(tmp_path / "a", "only", slice(0, 4), slice(0, 3), (4, 3))
    source = ObjectMasks(tmp_path, "nucleus", "background")
    assert source.categories == [
        Category(0, "nucleus", True, dataset_category_id=1),
        Category(1, "background", False, dataset_category_id=2),
    ]
    first, second = source[0], source[1]
    assert (second.image_id, second.image_name, second.notes) == ("b c", "b c/images/x.png", (EMPTY_MASKS,))
    assert drawn(second) == ["2222333", "2222333", "2222113", "3311113", "3311113"]
    assert len(second.objects) == 2
    assert drawn(first) == ["111"] * 4
    assert [segment.category_id for segment in first.panoptic_map.segments] == [0]
    assert drawn(ObjectMasks(tmp_path, "nucleus")[1])[0] == "2222..."


def test_image_folders_of_another_layout_are_reported_together(tmp_path):
    with pytest.raises(ValueError, match=r"no folder in .*; expected one for each image"):
        ObjectMasks(tmp_path, "nucleus")
    for name in ("none", "two", "good"):
        (tmp_path / name / "masks").mkdir(parents=True)
    write_photograph(tmp_path / "good" / "images" / "a.png")
    write_photograph(tmp_path / "two" / "images" / "a.png")
    write_photograph(tmp_path / "two" / "images" / "b.png")
    write_photograph(tmp_path / "maskless" / "images" / "a.png")
    with pytest.raises(ValueError, match="3 folders are not as expected") as caught:
        ObjectMasks(tmp_path, "nucleus")
    assert f"expected one photograph in {tmp_path / 'none' / 'images'}, found 0" in str(caught.value)
    assert f"expected one photograph in {tmp_path / 'two' / 'images'}, found 2" in str(caught.value)
    assert f"no folder {tmp_path / 'maskless' / 'masks'}" in str(caught.value)


def test_masks_that_do_not_fit_are_an_error(tmp_path):
    write_photograph(tmp_path / "a" / "images" / "x.png", (5, 7))
    (tmp_path / "a" / "masks").mkdir()
    with pytest.raises(ValueError, match=r"no PNG in .*masks; expected one for each object"):
        ObjectMasks(tmp_path, "nucleus")[0]
    write_object(tmp_path / "a", "1", slice(0, 3), slice(0, 4), (7, 5))
    with pytest.raises(ValueError, match=r"x\.png has size \(5, 7\), but its annotation \(7, 5\)"):
        ObjectMasks(tmp_path, "nucleus")[0]
    write_object(tmp_path / "a", "2", slice(0, 3), slice(0, 4), (5, 7))
    with pytest.raises(ValueError, match=r"expected masks of one size in .*masks, got \[\(5, 7\), \(7, 5\)\]"):
        ObjectMasks(tmp_path, "nucleus")[0]
    Image.new("RGB", (7, 5)).save(tmp_path / "a" / "masks" / "1.png")
    with pytest.raises(ValueError, match=r"expected a PNG with palette indices, or one 8-bit channel.*masks/1\.png"):
        ObjectMasks(tmp_path, "nucleus")[0]
