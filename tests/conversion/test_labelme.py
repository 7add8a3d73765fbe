import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from tiny_conversions import (
    HALF_TURN,
    QUARTER_TURN,
    SIZE,
    drawn,
    rectangle,
    shape,
    write_categories,
    write_labelme,
    write_photograph,
)

from panoptic.conversion.labelme import Labelme
from panoptic.conversion.labelme_shapes import LEFT_OUT
from panoptic.conversion.objects import CLIPPED, DEGENERATE, EMPTY, decode
from panoptic.structures import Category


@pytest.fixture
def categories(tmp_path):
    """Ids of one's own; the road is stuff."""
    return write_categories(tmp_path / "categories.txt", (40, "car", True), (7, "road", False))


def open_one(folder, *shapes, **changes):
    write_labelme(folder / "photos", "one", shapes, **changes)
    return Labelme(folder / "photos")


def test_shapes_are_painted_in_the_order_of_the_file_and_things_are_kept_whole(tmp_path, categories):
    shapes = [
        shape("road", rectangle(0, 5, 13, 9)),
        shape("car", rectangle(1, 3, 6, 8)),
        shape("road", rectangle(8, 0, 10, 2)),
        shape("car", rectangle(4, 2, 9, 6)),
    ]
    write_labelme(tmp_path / "photos", "one", shapes)
    source = Labelme(tmp_path / "photos", categories)
    assert [(c.id, c.name, c.is_thing, c.dataset_category_id) for c in source.categories] == [
        (0, "road", False, 7),
        (1, "car", True, 40),
    ]
    (image,) = [source[index] for index in range(len(source))]
    assert drawn(image) == [
        "........11...",
        "........11...",
        "....44444....",
        ".22244444....",
        ".22244444....",
        "1222444441111",
        "1222221111111",
        "1222221111111",
        "1111111111111",
    ]
    # road: 4 * 13 below, less 3 * 5 of the first car and 1 * 3 of the second beyond it, and 2 * 2 above
    segments = {s.id: (s.category_id, s.area) for s in image.panoptic_map.segments}
    assert segments == {1: (0, 52 - 15 - 3 + 4), 2: (1, 25 - 6), 4: (1, 20)}
    assert [int(decode(item.runs).sum()) for item in image.objects] == [52, 25, 4, 20]
    assert (image.image_id, image.image_name, image.notes) == ("one", "one.png", ())


def test_labels_become_things_where_no_categories_are_given(tmp_path):
    write_labelme(tmp_path, "one", [shape("tree", rectangle(0, 0, 2, 2)), shape("car", rectangle(3, 3, 5, 5))])
    write_labelme(tmp_path, "two", [shape("Auto", rectangle(0, 0, 2, 2))])
    assert Labelme(tmp_path).categories == [
        Category(0, "Auto", True, dataset_category_id=1),
        Category(1, "car", True, dataset_category_id=2),
        Category(2, "tree", True, dataset_category_id=3),
    ]


def test_shapes_of_a_group_are_one_object(tmp_path):
    shapes = [
        shape("car", rectangle(0, 0, 3, 2), group_id=5),
        shape("car", rectangle(1, 1, 6, 4)),
        shape("car", rectangle(8, 0, 10, 2), group_id=5),
    ]
    image = open_one(tmp_path, *shapes)[0]
    # the group lies where its first shape does, below the second object
    assert drawn(image)[:4] == ["111.....11...", "122222..11...", ".22222.......", ".22222......."]
    assert len(image.objects) == len(image.panoptic_map.segments) == 2


def test_a_rectangle_is_given_by_two_corners_in_any_order_or_by_four(tmp_path):
    expected = np.zeros(SIZE, dtype=bool)
    expected[2:6, 3:8] = True
    for points in ([[3, 2], [8, 6]], [[8, 2], [3, 6]], [[8, 6], [3, 2]], rectangle(3, 2, 8, 6)):
        image = open_one(tmp_path, shape("car", points, "rectangle"))[0]
        assert np.array_equal(image.panoptic_map.segment_ids.numpy() == 1, expected)


def test_a_circle_has_the_pixels_whose_centres_lie_in_it(tmp_path):
    image = open_one(tmp_path, shape("car", [[6, 4.5], [9, 4.5]], "circle"))[0]
    for y in range(SIZE[0]):
        for x in range(SIZE[1]):
            inside = (x + 0.5 - 6) ** 2 + (y + 0.5 - 4.5) ** 2 <= 9
            assert (image.panoptic_map.segment_ids[y, x] == 1) == inside, (y, x)


def test_a_mask_lies_at_its_points(tmp_path):
    buffer = io.BytesIO()
    mask = np.array([[1, 0, 1], [1, 1, 0]], dtype=np.uint8)
    Image.fromarray(mask * 255).save(buffer, format="PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    image = open_one(tmp_path, shape("car", [[5, 3], [7, 4]], "mask", mask=encoded))[0]
    assert drawn(image)[3:5] == [".....1.1.....", ".....11......"]
    beyond = open_one(tmp_path, shape("car", [[-1, 8], [1, 9]], "mask", mask=encoded))[0]
    assert drawn(beyond)[7:] == [".............", ".1..........."]
    assert beyond.notes == (CLIPPED,)


def test_a_polygon_beyond_the_image_is_cut_off_at_the_border(tmp_path):
    points = np.array([[-4.3, 2.2], [3.7, -3.1], [17.4, 6.6], [5.2, 12.8]])
    image = open_one(tmp_path, shape("car", points.tolist()))[0]
    assert image.notes == (CLIPPED,)
    # the same polygon within a larger image, of which a window is cut out
    larger = {"imageHeight": 30, "imageWidth": 40, "imagePath": "large.png"}
    write_photograph(tmp_path / "large" / "large.png", (30, 40))
    write_labelme(tmp_path / "large", "two", [shape("car", (points + np.array([10, 8])).tolist())], **larger)
    whole = Labelme(tmp_path / "large")[0]
    window = whole.panoptic_map.segment_ids[8 : 8 + SIZE[0], 10 : 10 + SIZE[1]]
    differ = (window != image.panoptic_map.segment_ids).sum()
    # COCO rounds the outline; a clipped edge may round otherwise on its way
    assert differ <= 1
    assert int((window == 1).sum()) > 40


@pytest.mark.parametrize(
    ("odd", "notes"),
    [
        (shape("lane", [[0, 0], [5, 5]], "line"), (LEFT_OUT,)),
        (shape("lane", [[0, 0], [5, 5], [6, 2]], "linestrip"), (LEFT_OUT,)),
        (shape("car", [[2, 2]], "point"), (LEFT_OUT,)),
        (shape("car", [[2, 2], [5, 5]]), (DEGENERATE,)),
        (shape("car", []), (DEGENERATE,)),
        (shape("car", rectangle(20, 2, 25, 4)), (CLIPPED, EMPTY)),
        (shape("car", [[2, 2], [2, 2], [2, 2]]), (EMPTY,)),
    ],
)
def test_what_has_no_pixels_is_left_out_and_noted(tmp_path, odd, notes):
    image = open_one(tmp_path, shape("car", rectangle(0, 0, 2, 2)), odd)[0]
    assert image.notes == notes
    assert len(image.objects) == len(image.panoptic_map.segments) == 1


def test_photographs_are_found_beside_the_json_or_where_it_says(tmp_path):
    write_labelme(
        tmp_path / "json" / "täglich", "a b", [shape("car", rectangle(0, 0, 2, 2))], imagePath="..\\..\\p\\ö 1.png"
    )
    write_photograph(tmp_path / "p" / "ö 1.png")
    with pytest.raises(ValueError, match=r"a b\.json is of .*ö 1\.png, which is not in .*json; give from\.images=<a"):
        Labelme(tmp_path / "json")[0]
    image = Labelme(tmp_path / "json", images=tmp_path)[0]
    assert (image.image_id, image.image_name) == ("täglich/a b", "p/ö 1.png")


def test_files_and_folders_may_be_links(tmp_path):
    write_labelme(tmp_path / "real", "one", [shape("car", rectangle(0, 0, 2, 2))])
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "below").symlink_to(tmp_path / "real")
    (tmp_path / "linked" / "below" / "round").symlink_to(tmp_path / "linked")
    source = Labelme(tmp_path / "linked")
    assert [source[index].image_name for index in range(len(source))] == ["below/one.png"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imageHeight": 13, "imageWidth": 9}, r"one\.png has size \(9, 13\), but its annotation \(13, 9\)"),
        ({"imageHeight": "9"}, r"expected whole numbers imageHeight and imageWidth in .*one\.json, got \('9', 13\)"),
        ({"imagePath": "gone.png"}, r"no photograph .*gone\.png, or a link that leads nowhere"),
    ],
)
def test_a_file_that_does_not_fit_its_photograph_is_named(tmp_path, changes, message):
    with pytest.raises((ValueError, OSError), match=message):
        open_one(tmp_path, shape("car", rectangle(0, 0, 2, 2)), **changes)[0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            shape("car", [[0, 0], [5, "x"], [3, 3]]),
            r"expected points as pairs of numbers, got .* in shape 0 \('car'\) of .*one",
        ),
        (shape("car", [[0, 0], [5, None], [3, 3]]), "expected points as pairs of numbers"),
        (shape("car", [[0, 0, 5], [5, 0, 3]]), "expected points as pairs of numbers"),
        (
            shape("car", [[0, 0], [5, 5]], "ellipse"),
            r"unknown shape_type 'ellipse', expected one of polygon, rectangle",
        ),
        (shape("car", [[0, 0]], "rectangle"), r"expected 2 or 4 points, got 1 in shape 0"),
        (shape("car", [[0, 0], [1, 1]], "mask", mask="no PNG"), r"expected a PNG in base64 as `mask` of shape 0"),
        (shape("car", rectangle(0, 0, 2, 2), group_id="a"), r"expected a whole number or null as group_id, got 'a'"),
    ],
)
def test_a_wrong_shape_is_named(tmp_path, wrong, message):
    source = open_one(tmp_path, wrong)
    with pytest.raises(ValueError, match=message):
        source[0]


def test_a_mask_of_another_size_than_its_points_is_an_error(tmp_path):
    buffer = io.BytesIO()
    Image.new("L", (4, 2)).save(buffer, format="PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    source = open_one(tmp_path, shape("car", [[0, 0], [4, 1]], "mask", mask=encoded))
    with pytest.raises(ValueError, match=r"expected a mask of size \(2, 5\) .*, got \(2, 4\) in shape 0"):
        source[0]


def test_a_group_of_two_labels_is_an_error(tmp_path):
    shapes = [shape(label, rectangle(0, 0, 2, 2), group_id=3) for label in ("car", "bus")]
    with pytest.raises(ValueError, match=r"expected one label in group_id 3 of .*one\.json, got 'car' and 'bus'"):
        open_one(tmp_path, *shapes)[0]


def test_a_label_without_category_is_an_error(tmp_path, categories):
    write_labelme(tmp_path / "photos", "one", [shape("tree", rectangle(0, 0, 2, 2))])
    with pytest.raises(
        ValueError, match=r"unknown label 'tree' in .*one\.json; the file of categories has \['car', 'road'\]"
    ):
        Labelme(tmp_path / "photos", categories)[0]


def test_all_files_that_are_not_labelmes_are_reported_together(tmp_path):
    write_labelme(tmp_path, "good", [shape("car", rectangle(0, 0, 2, 2))])
    (tmp_path / "empty.json").write_bytes(b"")
    (tmp_path / "other.json").write_text(json.dumps({"images": []}))
    (tmp_path / "points.json").write_text(json.dumps({"imagePath": "good.png", "shapes": [{"label": "a"}]}))
    with pytest.raises(ValueError, match="3 of 4 files cannot be read") as caught:
        Labelme(tmp_path)
    message = str(caught.value)
    assert "expected JSON in" in message
    assert f"expected labelme's `shapes` and `imagePath` in {tmp_path / 'other.json'}" in message
    assert f"expected `label` and `points` in shape 0 of {tmp_path / 'points.json'}" in message


@pytest.mark.parametrize(
    ("content", "message"), [({}, r"no \*\.json in"), ({"shapes": []}, r"no shape in any of 1 files")]
)
def test_a_folder_without_annotations_is_an_error(tmp_path, content, message):
    if content:
        write_labelme(tmp_path, "one", content["shapes"])
    with pytest.raises(ValueError, match=message):
        Labelme(tmp_path)


def test_a_missing_folder_is_an_error_that_names_the_option(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"from\.folder=.*nowhere: no such folder"):
        Labelme(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("stored", "orientation", "is_fault"),
    [
        (SIZE, None, False),
        (SIZE, QUARTER_TURN, False),  # annotated as it is stored
        ((13, 9), QUARTER_TURN, True),  # annotated as it is turned
        (SIZE, HALF_TURN, True),  # cannot be told
    ],
)
def test_a_photograph_annotated_as_exif_turns_it_is_a_fault(tmp_path, stored, orientation, is_fault):
    source = open_one(tmp_path, shape("car", rectangle(0, 0, 2, 2)), imagePath="p.jpg")
    write_photograph(tmp_path / "photos" / "p.jpg", stored, orientation)
    if not is_fault:
        assert source[0].panoptic_map.size == SIZE
        return
    with pytest.raises(ValueError, match=rf"p\.jpg has EXIF orientation {orientation}, .* store it upright"):
        source[0]


def test_a_square_photograph_with_a_quarter_turn_cannot_be_told(tmp_path):
    square = {"imageHeight": 8, "imageWidth": 8, "imagePath": "p.jpg"}
    source = open_one(tmp_path, shape("car", rectangle(0, 0, 2, 2)), **square)
    write_photograph(tmp_path / "photos" / "p.jpg", (8, 8), QUARTER_TURN)
    with pytest.raises(ValueError, match="EXIF orientation 6"):
        source[0]


@pytest.mark.parametrize(("data", "message"), [(b"", r"p\.jpg is no image that can be read \(0 bytes\)")])
def test_an_empty_photograph_is_named(tmp_path, data, message):
    source = open_one(tmp_path, shape("car", rectangle(0, 0, 2, 2)), imagePath="p.jpg")
    (tmp_path / "photos" / "p.jpg").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        source[0]
