"""Submissions against the rules of each benchmark, checked here by independent readers of their formats."""

import json

import numpy as np
import pytest
import tiny_mapillary
import torch
from PIL import Image

from panoptic.conversion.contract import AnnotatedImage
from panoptic.conversion.submissions import (
    CityscapesInstancesTarget,
    CityscapesPanopticTarget,
    MapillaryPanopticTarget,
    VocTarget,
)
from panoptic.data.cityscapes import CATEGORIES as CITYSCAPES
from panoptic.data.mapillary import evaluated_categories, read_labels
from panoptic.data.voc import CATEGORIES as VOC
from panoptic.data.voc import SEMANTIC_CATEGORIES
from panoptic.structures import Category, PanopticMap, Segment

ROAD, PERSON, CAR = 0, 11, 13
"""Contiguous ids of Cityscapes."""


def predicted(size=(1024, 2048), name="bonn/bonn_000004_000019_leftImg8bit.png"):
    """Road above, two cars and a person on it, the last row void."""
    ids = torch.ones(size, dtype=torch.int64)
    ids[2:4, 1:5] = 70000
    ids[3:5, 6:9] = 12
    ids[4:6, 2:4] = 300
    ids[-1] = 0
    segments = [Segment(1, ROAD), Segment(70000, CAR, score=0.875), Segment(12, CAR, score=0.5)]
    return AnnotatedImage(0, name, PanopticMap(ids, [*segments, Segment(300, PERSON, score=0.125)]))


def test_cityscapes_panoptic_has_label_ids_frames_and_maps_of_the_official_size(tmp_path):
    target = CityscapesPanopticTarget(tmp_path, CITYSCAPES)
    image = predicted()
    target.add(image)
    assert target.close() == []
    content = json.loads((tmp_path / "cityscapes_panoptic.json").read_text())
    (annotation,) = content["annotations"]
    assert annotation["image_id"] == "bonn_000004_000019"
    with Image.open(tmp_path / "cityscapes_panoptic" / annotation["file_name"]) as png:
        assert (png.mode, png.size) == ("RGB", (2048, 1024))
        channels = np.array(png).astype(np.int64)
    ids = channels[..., 0] + 256 * channels[..., 1] + 256 * 256 * channels[..., 2]
    assert np.array_equal(ids, image.panoptic_map.segment_ids.numpy())
    # as in cityscapesScripts' table: road 7, person 24, car 26
    labels = {info["id"]: info["category_id"] for info in annotation["segments_info"]}
    assert labels == {1: 7, 70000: 26, 12: 26, 300: 24}
    assert set(np.unique(ids).tolist()) - {0} == set(labels)
    assert [category["id"] for category in content["categories"]] == [
        *(7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33),
    ]


def test_cityscapes_instances_are_lines_of_mask_label_and_score(tmp_path):
    target = CityscapesInstancesTarget(tmp_path, CITYSCAPES, size=(7, 11))
    image = predicted((7, 11))
    crowd = Segment(12, CAR, is_crowd=True, score=0.5)
    without = [crowd if segment.id == 12 else segment for segment in image.panoptic_map.segments]
    target.add(image)
    target.add(
        AnnotatedImage(1, "ulm_000000_000019_leftImg8bit.png", PanopticMap(image.panoptic_map.segment_ids, without))
    )
    target.add(AnnotatedImage(2, "empty_leftImg8bit.png", PanopticMap(torch.zeros(7, 11, dtype=torch.int64), [])))
    target.close()
    assert sorted(path.name for path in tmp_path.glob("*.txt")) == [
        "bonn_000004_000019.txt",
        "empty.txt",
        "ulm_000000_000019.txt",
    ]
    assert (tmp_path / "empty.txt").read_text() == ""
    found = {}
    for line in (tmp_path / "bonn_000004_000019.txt").read_text().splitlines():
        name, label, score = line.split(" ")  # as the official script does
        assert not name.startswith(("/", ".."))
        with Image.open(tmp_path / name) as mask:
            assert (mask.mode, mask.size) == ("L", (11, 7))
            pixels = np.array(mask)
        assert set(np.unique(pixels).tolist()) == {0, 255}
        found[float(score)] = int(label), pixels > 0
    ids = image.panoptic_map.segment_ids.numpy()
    assert {score: label for score, (label, _) in found.items()} == {0.875: 26, 0.5: 26, 0.125: 24}
    for score, number in {0.875: 70000, 0.5: 12, 0.125: 300}.items():
        assert np.array_equal(found[score][1], ids == number)
    assert len((tmp_path / "ulm_000000_000019.txt").read_text().splitlines()) == 2  # no crowd


def test_instances_without_score_are_an_error_unless_one_is_given(tmp_path):
    ids = torch.tensor([[300, 300, 0]])
    unscored = AnnotatedImage(0, "a.png", PanopticMap(ids, [Segment(300, PERSON)]))
    target = CityscapesInstancesTarget(tmp_path, CITYSCAPES, size=None)
    with pytest.raises(
        ValueError, match=r"segment 300 of a\.png has no score; predict with a fusion that gives scores, or"
    ):
        target.add(unscored)
    (tmp_path / "scored").mkdir()
    CityscapesInstancesTarget(tmp_path / "scored", CITYSCAPES, size=None, score=1).add(unscored)
    assert (tmp_path / "scored" / "a.txt").read_text() == "masks/a_0.png 24 1.000000\n"


def test_names_that_the_instance_files_cannot_hold_are_an_error(tmp_path):
    target = CityscapesInstancesTarget(tmp_path, CITYSCAPES, size=None)
    with pytest.raises(ValueError, match=r"expected a name without blanks, which divide the lines .*, got 'my photo'"):
        target.add(predicted((7, 11), "my photo.png"))
    target.add(predicted((7, 11), "a/photo.png"))
    with pytest.raises(ValueError, match=r"photo\.txt would be written a second time"):
        target.add(predicted((7, 11), "b/photo.png"))


@pytest.mark.parametrize("target_of", [CityscapesPanopticTarget, CityscapesInstancesTarget])
def test_images_of_another_size_than_cityscapes_are_an_error(tmp_path, target_of):
    target = target_of(tmp_path, CITYSCAPES)
    with pytest.raises(
        ValueError, match=r"bonn_.*png has size \(512, 1024\), expected \(1024, 2048\) .*; predict at the orig"
    ):
        target.add(predicted((512, 1024)))


@pytest.mark.parametrize("target_of", [CityscapesPanopticTarget, CityscapesInstancesTarget, VocTarget])
def test_categories_of_another_data_set_are_an_error(tmp_path, target_of):
    with pytest.raises(
        ValueError, match=r"expected categories \(id, name, thing\) of .*, got \[\(None, 'tree', False\)\]"
    ):
        target_of(tmp_path, [Category(0, "tree", False)])


def test_mapillary_panoptic_has_labels_plus_one_and_keys(tmp_path):
    root = tiny_mapillary.write_tiny_mapillary(tmp_path / "mapillary", "training", panoptic=False)
    config = root / "config.json"
    categories = evaluated_categories(config, read_labels(config))
    (tmp_path / "out").mkdir()
    target = MapillaryPanopticTarget(tmp_path / "out", categories, config=config)
    ids = torch.tensor([[1, 1, 70000], [0, 1, 300]])
    segments = [Segment(1, 1), Segment(70000, 2, score=0.5), Segment(300, 0)]
    target.add(AnnotatedImage(0, "-Key_1.jpg", PanopticMap(ids, segments)))
    target.close()
    content = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    (annotation,) = content["annotations"]
    assert (annotation["image_id"], annotation["file_name"]) == ("-Key_1", "-Key_1.png")
    # places in config.json: bird 0, sky 1, unlabeled 2, car 3
    assert {info["id"]: info["category_id"] for info in annotation["segments_info"]} == {1: 2, 70000: 4, 300: 1}
    with Image.open(tmp_path / "out" / "panoptic" / "-Key_1.png") as png:
        assert (png.mode, png.size) == ("RGB", (3, 2))
    with pytest.raises(
        ValueError, match=r"of .*config\.json, got \[\(24, 'person', True\)\]; convert maps of a network"
    ):
        MapillaryPanopticTarget(tmp_path / "out", [Category(0, "person", True, dataset_category_id=24)], config=config)


def test_voc_results_are_palette_pngs_of_classes(tmp_path):
    target = VocTarget(tmp_path, VOC)
    ids = torch.tensor([[255, 1, 1, 0], [9, 9, 2, 0]])
    segments = [Segment(255, 0), Segment(1, 7), Segment(2, 7), Segment(9, 20)]
    target.add(AnnotatedImage(0, "2008_000006.jpg", PanopticMap(ids, segments)))
    assert target.close() == []
    with Image.open(tmp_path / "results/VOC2012/Segmentation/comp6_test_cls/2008_000006.png") as png:
        assert (png.mode, png.size) == ("P", (4, 2))
        assert np.array(png).tolist() == [[0, 7, 7, 0], [20, 20, 7, 0]]
        # the development kit's colours: background, aeroplane, bicycle
        assert png.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]


def test_voc_takes_the_semantic_form_and_the_other_competition(tmp_path):
    target = VocTarget(tmp_path, SEMANTIC_CATEGORIES, competition="comp5", image_set="val")
    target.add(AnnotatedImage(0, "x.jpg", PanopticMap(torch.tensor([[7, 7, 0]]), [Segment(7, 7)])))
    assert (tmp_path / "results/VOC2012/Segmentation/comp5_val_cls/x.png").is_file()
    with pytest.raises(ValueError, match=r"expected to\.competition=comp5 or comp6, got 'comp7'"):
        VocTarget(tmp_path, VOC, competition="comp7")
