import json

import faster_coco_eval.core.mask as coco_mask
import numpy as np
import pytest
from tiny_conversions import SIZE, annotation, drawn, rectangle, write_categories, write_instances

from panoptic.conversion.cvat import BOXES, Cvat
from panoptic.conversion.objects import CLIPPED, DEGENERATE, EMPTY


def flat(*corners):
    return [coordinate for corner in rectangle(*corners) for coordinate in corner]


def runs_of(rows, columns, size=SIZE):
    mask = np.zeros(size, dtype=np.uint8, order="F")
    mask[rows, columns] = 1
    runs = coco_mask.encode(mask)
    return {"size": list(size), "counts": runs["counts"].decode()}


def plain_runs(rows, columns, size=SIZE):
    """The same as numbers, column by column."""
    mask = np.zeros(size, dtype=int)
    mask[rows, columns] = 1
    counts, last = [0], 0
    for pixel in mask.T.ravel().tolist():
        if pixel != last:
            counts.append(0)
            last = pixel
        counts[-1] += 1
    return {"size": list(size), "counts": counts}


def open_one(folder, *annotations, **changes):
    return Cvat(write_instances(folder / "instances.json", annotations, **changes), folder / "images")


def test_polygons_and_run_lengths_are_painted_from_the_largest_to_the_smallest(tmp_path):
    source = open_one(
        tmp_path,
        annotation(1, [flat(2, 2, 4, 4)]),  # 4 px
        annotation(2, [flat(0, 0, 6, 6), flat(10, 0, 13, 1)], category=2),  # 36 + 3 px
        annotation(3, runs_of(slice(3, 8), slice(3, 7)), iscrowd=1),  # 20 px
        annotation(4, plain_runs(slice(7, 9), slice(11, 13)), iscrowd=0),  # 4 px
        annotation(5, [flat(0, 0, 1, 1)], image=8),
    )
    first, second = (source[index] for index in range(len(source)))
    assert drawn(first) == [
        "111111....111",
        "111111.......",
        "113311.......",
        "1133222......",
        "1112222......",
        "1112222......",
        "...2222......",
        "...2222....44",
        "...........44",
    ]
    assert [(s.id, s.category_id, s.is_crowd) for s in first.panoptic_map.segments] == [
        (1, 1, False),
        (2, 0, True),
        (3, 0, False),
        (4, 0, False),
    ]
    assert (first.image_id, second.image_id, second.image_name) == (7, 8, "sub folder/zweite Straße.jpg")
    assert [(c.name, c.is_thing, c.group, c.dataset_category_id) for c in source.categories] == [
        ("car", True, None, 1),
        ("person", True, None, 2),
    ]


def test_crowds_can_be_taken_for_single_objects(tmp_path):
    path = write_instances(tmp_path / "i.json", [annotation(3, runs_of(slice(3, 8), slice(3, 7)), iscrowd=1)])
    assert [
        Cvat(path, tmp_path / "images", crowd=crowd)[0].panoptic_map.segments[0].is_crowd for crowd in (True, False)
    ] == [
        True,
        False,
    ]


def test_a_file_of_categories_says_what_is_stuff(tmp_path):
    path = write_instances(
        tmp_path / "i.json", [annotation(1, [flat(0, 0, 3, 3)], 2), annotation(2, [flat(5, 5, 6, 6)], 2)]
    )
    table = write_categories(tmp_path / "categories.json", (1, "car", True), (2, "person", False))
    image = Cvat(path, tmp_path / "images", table)[0]
    assert [(s.id, s.area) for s in image.panoptic_map.segments] == [(1, 10)]  # both are one segment
    other = write_categories(tmp_path / "other.json", (1, "car", True), (3, "person", False))
    with pytest.raises(
        ValueError, match=r"expected the categories .* got \[\(3, 'person'\)\] instead of \[\(2, 'person'\)\]"
    ):
        Cvat(path, tmp_path / "images", other)


@pytest.mark.parametrize(
    ("segmentation", "notes"),
    [
        ([], (BOXES,)),
        ([[1, 1, 5, 5]], (DEGENERATE,)),
        ([flat(20, 2, 25, 4)], (CLIPPED, EMPTY)),
        (runs_of(slice(0, 0), slice(0, 0)), (EMPTY,)),
    ],
)
def test_what_has_no_pixels_is_left_out_and_noted(tmp_path, segmentation, notes):
    image = open_one(tmp_path, annotation(1, segmentation), annotation(2, [flat(0, 0, 2, 2)]))[0]
    assert image.notes == notes
    assert len(image.panoptic_map.segments) == 1


def test_a_polygon_beyond_the_image_is_cut_off_and_its_others_stay(tmp_path):
    image = open_one(tmp_path, annotation(1, [flat(-3, 7, 2, 12), [0, 0, 1, 1], flat(5, 5, 6, 6)]))[0]
    assert image.notes == (CLIPPED, DEGENERATE)
    assert drawn(image)[5:] == [".....1.......", ".............", "11...........", "11..........."]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (
            runs_of(slice(1, 3), slice(1, 3), (13, 9)),
            r"run lengths have size \[13, 9\], the image \[9, 13\] in annotation 1",
        ),
        ({"size": [9, 13], "counts": [100, 16]}, r"expected run lengths of 117 pixels together, got other counts in"),
        ({"size": [9, 13], "counts": [118, -1]}, r"expected run lengths of 117 pixels together, got other counts in"),
        (
            {"size": [9, 13], "counts": "0" * 3},
            r"run lengths cannot be read, .*decoded 0 pixels but expected 117.* in annotation 1",
        ),
        ({"size": [9, 13], "counts": "P"}, r"run lengths cannot be read, .* in annotation 1"),
        ({"size": [9, 13], "counts": "PP9"}, r"run lengths cannot be read, .*exceed the mask"),
        ({"size": [9, 13], "counts": {}}, r"expected run lengths as numbers or as a string, got '\{\}' in"),
        ({"counts": [117]}, r"expected polygons, or run lengths with `size` and `counts`, as segmentation of"),
        ("polygon", r"expected polygons, or run lengths"),
        (
            [[1, 2, 3, 4, 5]],
            r"expected a polygon as x, y, x, y, \.\.\., got \[1, 2, 3, 4, 5\] in annotation 1 of image 7",
        ),
        ([[1, 2, 3, 4, 5, "x"]], r"expected a polygon as x, y"),
        ([[[1, 2], [3, 4], [5, 2]]], r"expected a polygon as x, y"),
        ([[1, 2, 3, 4, 5, float("nan")]], r"expected a polygon as x, y"),
    ],
)
def test_a_wrong_segmentation_is_named(tmp_path, segmentation, message):
    source = open_one(tmp_path, annotation(1, segmentation))
    with pytest.raises(ValueError, match=message):
        source[0]


def test_all_wrong_entries_are_reported_together(tmp_path):
    images = [
        {"id": 7, "file_name": "first.jpg", "height": 9, "width": 13},
        {"id": 7, "file_name": "first.jpg", "height": 9, "width": 13},
        {"id": 9, "file_name": "x.jpg", "height": "9"},
    ]
    path = write_instances(
        tmp_path / "i.json",
        [annotation(1, [], category=5), annotation(2, [], image=11), {"id": 3, "image_id": 7}, "four"],
        images=images,
    )
    with pytest.raises(ValueError, match=r"7 entries of .*i\.json are not as in COCO's instances format") as caught:
        Cvat(path, tmp_path / "images")
    for part in (
        "entry 2 of `images` lacks height, width",
        "id 7 occurs 2 times in `images`",
        "file_name 'first.jpg' occurs 2 times in `images`",
        "annotation 1 has category 5, not one of ['1', '2']",
        "annotation 2 is of image 11, which `images` does not list",
        "entry 2 of `annotations` lacks id, image_id, category_id or segmentation",
        "entry 3 of `annotations` lacks id, image_id, category_id or segmentation",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([{"id": 1, "name": "car"}, {"id": 1, "name": "bus"}], r"i\.json lists a category id twice"),
        ([{"id": 1, "name": "car"}, {"id": 2, "name": "car"}], r"\['car'\] occur more than once"),
        ([{"id": 1}], r"a category of .*i\.json lacks the key 'name'"),
        ([], r"i\.json has no list `categories`"),
    ],
)
def test_wrong_categories_are_an_error(tmp_path, categories, message):
    with pytest.raises(ValueError, match=message):
        Cvat(write_instances(tmp_path / "i.json", [], categories=categories), tmp_path / "images")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected JSON in"),
        ("[]", "expected an object with a list `images`"),
        ('{"images": []}', "list `annotations`"),
    ],
)
def test_a_file_of_another_kind_is_an_error(tmp_path, content, message):
    write_instances(tmp_path / "i.json", [])
    (tmp_path / "i.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        Cvat(tmp_path / "i.json", tmp_path / "images")


def test_a_missing_photograph_is_named(tmp_path):
    path = write_instances(tmp_path / "i.json", [])
    (tmp_path / "images" / "first.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"no photograph .*first\.jpg, or a link that leads nowhere"):
        Cvat(path, tmp_path / "images")[0]
    with pytest.raises(FileNotFoundError, match=r"from\.instances_json=.*none\.json: no such file"):
        Cvat(tmp_path / "none.json", tmp_path / "images")


def test_the_json_is_only_read(tmp_path):
    path = write_instances(tmp_path / "i.json", [annotation(1, [flat(0, 0, 2, 2)])])
    before = json.loads(path.read_text())
    Cvat(path, tmp_path / "images")[0]
    assert json.loads(path.read_text()) == before
