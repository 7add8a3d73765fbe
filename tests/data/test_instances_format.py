import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_coco import CATEGORIES, write_tiny_coco

from panoptic.data.coco import CocoPanoptic
from panoptic.data.instances_format import read_instances, read_instances_json
from panoptic.data.panoptic_format import read_panoptic_json

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
    ("counts", "message"),
    [
        ([3, 4, 100], r"add up to 107 pixels, expected 12 x 17 = 204"),
        ([], r"add up to 0 pixels, expected 12 x 17 = 204"),
        ("", r"add up to 0 pixels, expected 12 x 17 = 204"),
        ([3, 4, 198], r"add up to 205 pixels, expected 12 x 17 = 204"),
        ([210, -10, 4], r"add up to 204 pixels, expected 12 x 17 = 204, and none below 0"),
        (compressed_runs(np.ones((9, 17))), r"add up to 153 pixels, expected 12 x 17 = 204"),
        (compressed_runs(np.ones((20, 17))), r"cannot be read: RLE counts exceed the mask dimensions"),
        ("abc", r"cannot be read: RLE string is malformed: early end"),
        ("größe", r"cannot be read: RLE string is malformed: early end"),
    ],
)
def test_run_lengths_that_do_not_fit_the_image_are_an_error(tmp_path, counts, message):
    tiny = write_tiny_coco(tmp_path)
    entry = {"id": 5, "image_id": 100, "category_id": 3, "segmentation": {"size": [12, 17], "counts": counts}}
    dataset = open_tiny(tiny, instances_json=write_instances(tiny, [entry]))
    with pytest.raises(ValueError, match=rf"run lengths of annotation 5 in .*instances\.json {message}"):
        dataset[0]


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
        ({"size": 5, "counts": [204]}, r"annotation 5 in .* has size 5, its image \[12, 17\]"),
        ({"size": [12, 17], "counts": [3.5, 200.5]}, r"run lengths of annotation 5 in .* as whole numbers or .*3\.5"),
        ({"size": [12, 17], "counts": None}, r"expected run lengths of annotation 5 in .* or as a string, got None"),
        *[
            (
                segmentation,
                r"expected polygons, or run lengths with `size` and `counts`, as segmentation of annotation 5",
            )
            for segmentation in (None, "polygon", 7, {"size": [12, 17]}, {"counts": [204]})
        ],
        *[
            (
                [polygon],
                r"expected polygons of annotation 5 in .* as lists x, y, x, y, \.\.\. of numbers up to 1000000, got",
            )
            for polygon in (7, "x", [1, 2, None, 2, 5, 5], [[1, 2], [5, 2], [5, 5]], [0, 0, 1e6 + 1, 0, 3, 3])
        ],
        *[
            ([[0, 0, far, 0, 3, 3]], r"expected polygons of annotation 5 in .*, got \[0, 0, ")
            for far in (-1e15, float("inf"), float("nan"))  # which json writes and reads
        ],
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
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*instances\.json, or a link that leads nowhere"):
        open_tiny(tiny, instances_json=path)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: [],
        lambda c: {**c, "images": 3},
        lambda c: {**c, "images": ["100_photo.png"]},
        lambda c: {**c, "annotations": None},
    ],
)
def test_an_instances_file_of_another_form_is_an_error(tmp_path, change):
    tiny = write_tiny_coco(tmp_path)
    path = write_instances(tiny, [])
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=r"instances\.json is not as in COCO's instances format: "):
        open_tiny(tiny, instances_json=path)


@pytest.mark.parametrize("changes", [{"category_id": [3]}, {"image_id": {}}])
def test_an_annotation_whose_ids_are_none_is_an_error(tmp_path, changes):
    tiny = write_tiny_coco(tmp_path)
    entry = {"id": 5, "image_id": 100, "category_id": 3, "segmentation": [], **changes}
    with pytest.raises(ValueError, match=r"an entry of .*instances\.json is not as in COCO's instances format: unhash"):
        open_tiny(tiny, instances_json=write_instances(tiny, [entry]))


def test_a_polygon_at_the_farthest_that_can_be_drawn_is_cut_off_at_the_border(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    square = [-1e6, -1e6, 1e6, -1e6, 1e6, 1e6, -1e6, 1e6]
    entry = {"id": 5, "image_id": 100, "category_id": 3, "segmentation": [square]}
    (mask,) = open_tiny(tiny, instances_json=write_instances(tiny, [entry]))[0].instances.masks
    assert mask.all()


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
