import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panoptic.assembly import build_data
from panoptic.configuration import load_config, resolved
from panoptic.data.coco_for_voc import NAMES_IN_COCO, CocoForVOC
from panoptic.data.voc import SEMANTIC_CATEGORIES
from panoptic.structures import SizeRule

needs_samples = pytest.mark.skipif("PANOPTIC_SAMPLES" not in os.environ, reason="PANOPTIC_SAMPLES is not set")

# COCO's own ids
IDS = {
    **{"person": 1, "bicycle": 2, "car": 3, "motorcycle": 4, "airplane": 5, "bus": 6, "train": 7, "truck": 8},
    **{"boat": 9, "bird": 16, "cat": 17, "dog": 18, "horse": 19, "sheep": 20, "cow": 21, "bottle": 44, "chair": 62},
    **{"couch": 63, "potted plant": 64, "dining table": 67, "tv": 72},
}
# values of SegmentationClass
CHAIR, PERSON, SOFA = 9, 15, 18


def entry(image_id, name, x1, y1, x2, y2, area, iscrowd=0):
    polygon = [[x1, y1, x2, y1, x2, y2, x1, y2]]
    return {"image_id": image_id, "category_id": IDS[name], "segmentation": polygon, "area": area, "iscrowd": iscrowd}


def write(folder, annotations):
    """Images 1 to 6 of 9 x 14 pixels and these annotations; (JSON's path, folder of images)."""
    (folder / "images").mkdir(parents=True)
    images = [{"id": i, "file_name": f"{i}.png", "height": 9, "width": 14} for i in range(1, 7)]
    for image in images:
        Image.new("RGB", (14, 9), (20 * image["id"], 0, 0)).save(folder / "images" / image["file_name"])
    content = {
        "images": images,
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations)],
        "categories": [{"id": i, "name": name} for name, i in IDS.items()],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path, folder / "images"


@pytest.fixture
def tiny(tmp_path):
    return write(
        tmp_path,
        [
            entry(1, "couch", 0, 1, 11, 8, 1001),
            entry(1, "person", 2, 2, 6, 6, 16),
            entry(1, "truck", 0, 0, 14, 9, 5000),
            entry(2, "person", 2, 2, 6, 6, 1000),  # at the limit
            entry(3, "truck", 0, 0, 14, 9, 5000),  # no class of VOC
            entry(4, "chair", 1, 1, 3, 4, 600),
            entry(4, "chair", 5, 1, 7, 4, 600),
            entry(6, "person", 3, 3, 9, 7, 1500, iscrowd=1),
        ],
    )


def category_map(panoptic_map):
    categories = {segment.id: segment.category_id for segment in panoptic_map.segments}
    return np.vectorize(lambda i: categories.get(i, 255))(panoptic_map.segment_ids.numpy())


def test_images_with_a_large_region_of_a_class_are_taken(tiny):
    # 2 is at the limit, 3 has another class alone, of 4 no region is large, 5 is empty
    assert CocoForVOC(*tiny).image_ids == [1, 6]
    assert CocoForVOC(*tiny, min_region_area=999).image_ids == [1, 2, 6]
    assert CocoForVOC(*tiny, min_region_area=500).image_ids == [1, 2, 4, 6]


def test_classes_are_painted_on_the_background_small_on_large(tiny):
    dataset = CocoForVOC(*tiny)
    expected = np.zeros((9, 14), dtype=int)
    expected[1:8, :11] = SOFA
    expected[2:6, 2:6] = PERSON
    sample = dataset[0]
    assert np.array_equal(category_map(sample.panoptic_map), expected)  # the truck is background
    areas = {segment.category_id: segment.area for segment in sample.panoptic_map.segments}
    assert areas == {value: int((expected == value).sum()) for value in (0, SOFA, PERSON)}
    assert sample.instances is None
    assert (sample.image_id, sample.file_name, sample.image[0, 0, 0].item()) == (1, "1.png", 20)


def test_several_regions_of_a_class_are_one_segment_and_a_crowd_is_of_its_class(tiny):
    dataset = CocoForVOC(*tiny, min_region_area=500)
    for index, value, area in ((2, CHAIR, 12), (3, PERSON, 24)):
        panoptic_map = dataset[index].panoptic_map
        assert {(s.category_id, s.area, s.is_crowd) for s in panoptic_map.segments} == {
            (0, 9 * 14 - area, False),
            (value, area, False),
        }


def test_categories_are_vocs_in_the_semantic_form(tiny):
    assert CocoForVOC(*tiny).categories == list(SEMANTIC_CATEGORIES)


def test_every_class_has_its_name_in_coco():
    names = {NAMES_IN_COCO.get(category.name, category.name) for category in SEMANTIC_CATEGORIES[1:]}
    assert names == set(IDS) - {"truck"}


def test_a_file_that_lacks_a_class_is_an_error(tiny):
    path, images = tiny
    content = json.loads(path.read_text())
    content["categories"] = [c for c in content["categories"] if c["name"] not in ("bottle", "tv")]
    path.write_text(json.dumps(content))
    message = r"expected COCO's names of VOC's twenty classes in .*instances\.json, it lacks \['bottle', 'tv'\]"
    with pytest.raises(ValueError, match=message):
        CocoForVOC(path, images)


def test_a_file_without_areas_is_an_error(tiny):
    path, images = tiny
    content = json.loads(path.read_text())
    del content["annotations"][3]["area"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"annotation 3 in .*instances\.json has no area"):
        CocoForVOC(path, images)


def test_no_image_with_a_large_region_is_an_error(tiny):
    with pytest.raises(ValueError, match=r"no image of .*instances\.json has a region of more than 5000 pixels"):
        CocoForVOC(*tiny, min_region_area=5000)


def test_the_configuration_loads_crops(tmp_path):
    for split in ("train2017", "val2017"):
        path, images = write(tmp_path / split, [entry(1, "cow", 0, 0, 9, 9, 2000), entry(2, "dog", 0, 0, 9, 9, 2000)])
        (tmp_path / "annotations").mkdir(exist_ok=True)
        path.rename(tmp_path / "annotations" / f"instances_{split}.json")
        for image in images.iterdir():
            image.rename(tmp_path / split / image.name)
    small = ["data.train_transform.size=[9,13]", "data.batch_size=2", "data.num_workers=0"]
    data = build_data(resolved(load_config("train", ["data=coco_for_voc", f"data.root={tmp_path}", *small])))
    data.connect({}, SizeRule(16, 1))
    assert [batch.image_sizes for batch in data.train_dataloader()] == [[(9, 13), (9, 13)]]


@needs_samples
def test_images_of_the_samples_are_those_that_a_loop_over_the_annotations_finds():
    folder = Path(os.environ["PANOPTIC_SAMPLES"]) / "coco_instances"
    path = next(folder.glob("**/instances_train2017.json"))
    content = json.loads(path.read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    taken = []
    for image in content["images"]:
        of_image = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        if any(
            names[a["category_id"]] in IDS and a["category_id"] != IDS["truck"] and a["area"] > 1000 for a in of_image
        ):
            taken.append(image["id"])
    dataset = CocoForVOC(path, next(folder.glob("**/train2017")))
    assert dataset.image_ids == taken
    assert 20 < len(taken) < len(content["images"])
    assert category_map(dataset[0].panoptic_map).max() > 0
