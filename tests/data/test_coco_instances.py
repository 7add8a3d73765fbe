import json
import os
from collections import Counter
from pathlib import Path

import faster_coco_eval.core.mask as coco_mask
import numpy as np
import pytest
import torch
from PIL import Image

from panoptic.assembly import build_data
from panoptic.configuration import load_config, resolved
from panoptic.data.coco_instances import CocoInstances, paint_instances
from panoptic.structures import Category, ImageStatistics, Instances, SizeRule

needs_samples = pytest.mark.skipif("PANOPTIC_SAMPLES" not in os.environ, reason="PANOPTIC_SAMPLES is not set")

CATEGORIES = [
    {"id": 90, "name": "toothbrush", "supercategory": "indoor"},
    {"id": 3, "name": "car", "supercategory": "vehicle"},
]


def rectangle(x1, y1, x2, y2):
    """A polygon whose mask has exactly these pixels, x2 and y2 exclusive."""
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def entry(number, image_id, category_id, segmentation, iscrowd=0):
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": segmentation,
        "iscrowd": iscrowd,
    }


@pytest.fixture
def tiny(tmp_path):
    """Two images of 9 x 14, the second without annotation; (JSON's path, folder of images)."""
    folder = tmp_path / "images" / "deep"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)).save(
            folder / f"{name}.png"
        )
    crowd = np.zeros((9, 14), dtype=np.uint8)
    crowd[:, 10:] = 1
    runs = coco_mask.encode(np.asfortranarray(crowd))
    annotations = [
        entry(1, 7, 90, rectangle(2, 2, 4, 6)),
        entry(2, 7, 3, rectangle(0, 1, 11, 8)),  # 77 px, below all others
        entry(3, 7, 90, {"size": [9, 14], "counts": runs["counts"].decode()}, iscrowd=1),  # 36 px
        entry(4, 7, 3, rectangle(2, 2, 4, 5)),  # within the first
    ]
    images = [
        {"id": 7, "file_name": "deep/b.png", "height": 9, "width": 14},
        {"id": 5, "file_name": "deep/a.png", "height": 9, "width": 14},
    ]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))
    return path, tmp_path / "images"


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_categories_are_things_whose_group_is_the_supercategory(tiny):
    assert CocoInstances(*tiny).categories == [
        Category(0, "car", True, "vehicle", dataset_category_id=3),
        Category(1, "toothbrush", True, "indoor", dataset_category_id=90),
    ]


def test_masks_overlap_and_the_map_is_painted_from_the_largest_to_the_smallest(tiny):
    dataset = CocoInstances(str(tiny[0]), str(tiny[1]))
    assert dataset.image_ids == [7, 5]
    sample = dataset[0]
    assert (sample.image_id, sample.file_name, sample.size) == (7, "deep/b.png", (9, 14))
    assert sample.instances.category_ids.tolist() == [1, 0, 1, 0]
    assert sample.instances.is_crowd.tolist() == [False, False, True, False]
    assert sample.instances.masks.sum(dim=(1, 2)).tolist() == [8, 77, 36, 6]
    drawn = [
        "..........3333",
        "22222222223333",
        "22442222223333",
        "22442222223333",
        "22442222223333",
        "22112222223333",
        "22222222223333",
        "22222222223333",
        "..........3333",
    ]
    ids = [[0 if letter == "." else int(letter) for letter in row] for row in drawn]
    assert sample.panoptic_map.segment_ids.tolist() == ids
    counts = Counter(number for row in ids for number in row)
    assert [(s.id, s.category_id, s.is_crowd, s.area) for s in sample.panoptic_map.segments] == [
        (1, 1, False, counts[1]),
        (2, 0, False, counts[2]),
        (3, 1, True, counts[3]),
        (4, 0, False, counts[4]),
    ]


def test_an_image_without_annotation_is_void(tiny):
    sample = CocoInstances(*tiny)[1]
    assert len(sample.instances.masks) == 0
    assert sample.instances.masks.shape[1:] == (9, 14)
    assert sample.panoptic_map.segments == ()
    assert not sample.panoptic_map.segment_ids.any()


def test_an_instance_of_which_nothing_is_left_has_no_segment():
    masks = torch.zeros(3, 4, 5, dtype=torch.bool)
    masks[0, 1:3, :2] = True
    masks[1, 1:3, :2] = True  # as large: the later one is above
    masks[2, :, 4] = True
    instances = Instances(torch.tensor([0, 1, 0]), masks, torch.zeros(3, 4), torch.ones(3), torch.zeros(3).bool())
    painted = paint_instances(instances)
    assert [(segment.id, segment.area) for segment in painted.segments] == [(2, 4), (3, 4)]


def test_statistics_are_those_of_imagenet_unless_given(tiny):
    assert CocoInstances(*tiny).image_statistics == ImageStatistics()
    grey = ImageStatistics((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    assert CocoInstances(*tiny, grey).image_statistics == grey


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("categories"), r"instances\.json or a category of it lacks the key 'categories'"),
        (lambda c: c["categories"][0].pop("name"), r"a category of it lacks the key 'name'"),
        (lambda c: c.update(categories=[]), r"the categories of .*\.json are not as .*: expected 1 to 255 categories"),
        (lambda c: c.update(categories=[5]), r"the categories of .*instances\.json are not as in COCO's instances"),
        (lambda c: c["categories"][0].update(id=3), r"instances\.json lists a category id twice: \[3, 3\]"),
        (lambda c: c.pop("images"), r"an entry of .*instances\.json lacks the key 'images'"),
        (lambda c: c.update(images=[], annotations=[]), r"instances\.json has no images; expected at least one"),
        (lambda c: c["images"][1].pop("file_name"), r"image 5 in .*instances\.json has no file_name; add it"),
        (lambda c: c["images"][1].update(file_name=7), r"image 5 in .*instances\.json has no file_name; add it"),
        (lambda c: c["categories"][0].update(name=5), r"the categories of .*\.json are not .*a text as name, got 5"),
        (lambda c: c["images"].append(c["images"][0]), r"instances\.json lists an image id twice in `images`"),
        (lambda c: c["annotations"][0].update(category_id=4), r"unknown category id 4 in .*json, annotation 1"),
    ],
)
def test_a_wrong_json_is_named(tiny, change, message):
    rewrite(tiny[0], change)
    with pytest.raises(ValueError, match=message):
        CocoInstances(*tiny)


def test_what_is_no_json_is_named(tiny):
    tiny[0].write_text("{")
    with pytest.raises(ValueError, match=r"expected JSON in .*instances\.json"):
        CocoInstances(*tiny)


def test_a_missing_image_is_an_error_when_the_data_set_is_opened(tiny):
    (tiny[1] / "deep" / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 images of .*json are missing, the first is .*a\.png; check"):
        CocoInstances(*tiny)


def test_an_image_of_another_size_than_the_json_says_is_named(tiny):
    rewrite(tiny[0], lambda content: content["images"][1].update(height=10))
    with pytest.raises(ValueError, match=r"image .*a\.png has size \(9, 14\), but .*json says \(10, 14\)"):
        CocoInstances(*tiny)[1]


@needs_samples
def test_the_configuration_loads_the_sample_of_the_real_data_set():
    root = Path(os.environ["PANOPTIC_SAMPLES"]) / "coco_instances"
    words = ["data=coco_instances", f"data.root={root}", "data.train_transform.size=[65,97]", "data.num_workers=0"]
    data = build_data(resolved(load_config("train", words)))
    assert (len(data.train), len(data.val), len(data.categories)) == (50, 20, 80)
    assert {category.group for category in data.categories} >= {"person", "vehicle", "outdoor", "animal", "kitchen"}
    data.connect({}, SizeRule(32))
    batch = next(iter(data.train_dataloader()))
    assert batch.padded_size == (96, 128)
    samples = [data.val[index] for index in range(20)]
    assert sum(len(sample.instances.masks) == 0 for sample in samples) == 1
    content = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    crowds = sum(annotation["iscrowd"] for annotation in content["annotations"])
    assert sum(int(sample.instances.is_crowd.sum()) for sample in samples) == crowds
    for sample in samples:
        # every pixel of the map belongs to a mask of its segment's category, and what is in no mask is void
        ids = sample.panoptic_map.segment_ids
        assert torch.equal(ids > 0, sample.instances.masks.any(dim=0))
        for segment in sample.panoptic_map.segments:
            assert sample.instances.masks[segment.id - 1][ids == segment.id].all()
            assert sample.instances.category_ids[segment.id - 1] == segment.category_id
