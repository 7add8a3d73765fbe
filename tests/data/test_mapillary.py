import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_mapillary import (
    BIRD,
    CAR,
    SIZES,
    SKY,
    UNLABELED,
    panoptic_content,
    values_of,
    write_tiny_mapillary,
    write_tiny_mapillary_v2,
)

from panoptic.assembly import build_data
from panoptic.configuration import load_config, resolved
from panoptic.data.mapillary import MapillaryVistas
from panoptic.data.transforms import EvalTransform, TrainTransform
from panoptic.structures import Category, ImageStatistics, SizeRule

needs_samples = pytest.mark.skipif("PANOPTIC_SAMPLES" not in os.environ, reason="PANOPTIC_SAMPLES is not set")

PANOPTIC_OR_NOT = pytest.mark.parametrize("panoptic", [True, False], ids=["panoptic", "instances"])


@pytest.fixture
def root(tmp_path):
    return write_tiny_mapillary(tmp_path / "vistas", "training", panoptic=True)


@PANOPTIC_OR_NOT
def test_categories_are_the_labels_that_are_evaluated(tmp_path, panoptic):
    dataset = MapillaryVistas(write_tiny_mapillary(tmp_path, "training", panoptic=panoptic), "training")
    assert dataset.categories == [
        Category(0, "Bird", True, "animal", (165, 42, 42), dataset_category_id=1),
        Category(1, "Sky", False, "nature", (70, 130, 180), dataset_category_id=2),
        Category(2, "Car", True, "object--vehicle", (0, 0, 142), dataset_category_id=4),
    ]


@PANOPTIC_OR_NOT
def test_samples_hold_what_was_written(tmp_path, panoptic):
    root = write_tiny_mapillary(tmp_path, "training", panoptic=panoptic)
    dataset = MapillaryVistas(str(root), "training")
    assert len(dataset) == 2
    assert dataset.image_ids == ["a_first", "b_second"]
    for index, key in enumerate(dataset.image_ids):
        sample, values = dataset[index], values_of(key)
        assert (sample.image_id, sample.file_name) == (key, f"{key}.jpg")
        assert sample.size == sample.original_size == SIZES[key]
        with Image.open(root / "training" / "images" / f"{key}.jpg") as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        assert np.abs(pixels - sample.image.permute(1, 2, 0).numpy()).mean() < 2  # two decoders differ by rounding
        ids = sample.panoptic_map.segment_ids.numpy()
        assert ((ids == 0) == (values // 256 == UNLABELED)).all()
        # each segment is all pixels of one value, but for sky, whose numbers do not matter
        expected = {}
        for value in np.unique(values[values // 256 != UNLABELED]):
            expected.setdefault(value if value // 256 != SKY else SKY * 256, []).append(value)
        assert len(sample.panoptic_map.segments) == len(expected) == 4
        for segment in sample.panoptic_map.segments:
            value = values[ids == segment.id][0]
            members = np.isin(values, expected[value if value // 256 != SKY else SKY * 256])
            assert (members == (ids == segment.id)).all()
            assert segment.area == members.sum()
            assert segment.category_id == {BIRD: 0, SKY: 1, CAR: 2}[value // 256]
            assert not segment.is_crowd


def canonical(panoptic_map):
    """{(category, pixels)}: what a map says, whatever its ids are."""
    ids = panoptic_map.segment_ids
    return {(s.category_id, tuple((ids == s.id).flatten().nonzero().flatten().tolist())) for s in panoptic_map.segments}


def test_instances_and_panoptic_files_say_the_same(root):
    by_panoptic = MapillaryVistas(root, "training")
    maps = [by_panoptic[index].panoptic_map for index in range(2)]
    shutil.rmtree(root / "training" / "panoptic")
    by_instances = MapillaryVistas(root, "training")
    assert by_instances.categories == by_panoptic.categories
    for index, expected in enumerate(maps):
        found = by_instances[index].panoptic_map
        assert not torch.equal(found.segment_ids, expected.segment_ids)
        assert canonical(found) == canonical(expected)


def test_instance_ids_tell_label_and_number(root):
    shutil.rmtree(root / "training" / "panoptic")
    segments = MapillaryVistas(root, "training")[0].panoptic_map.segments
    # dataset_category_id * 256 + number
    assert [segment.id for segment in segments] == [1 * 256, 2 * 256, 4 * 256, 4 * 256 + 255]


def test_statistics_are_those_of_imagenet_unless_given(root):
    assert MapillaryVistas(root, "training").image_statistics == ImageStatistics()
    grey = ImageStatistics((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    assert MapillaryVistas(root, "training", grey).image_statistics == grey


def test_the_home_folder_may_be_written_short(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    assert len(MapillaryVistas("~/vistas", "training")) == 2


V2 = {"config": "config_v2.0.json", "annotations": "v2.0", "panoptic_json": "panoptic_2020.json"}


@PANOPTIC_OR_NOT
def test_the_layout_of_v2_holds_the_same_as_that_of_v1(tmp_path, panoptic):
    expected = MapillaryVistas(write_tiny_mapillary(tmp_path / "v1", "training", panoptic=panoptic), "training")
    root = write_tiny_mapillary_v2(tmp_path / "v2", "training", panoptic=panoptic)
    found = MapillaryVistas(root, "training", **V2)
    assert found.categories == expected.categories
    assert found.image_ids == expected.image_ids == ["a_first", "b_second"]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours.image, theirs.image)
        assert torch.equal(ours.panoptic_map.segment_ids, theirs.panoptic_map.segment_ids)
        assert ours.panoptic_map.segments == theirs.panoptic_map.segments


def test_both_versions_of_the_annotations_may_lie_in_one_folder(tmp_path):
    root = write_tiny_mapillary_v2(tmp_path / "vistas", "training", panoptic=True)
    other = write_tiny_mapillary_v2(tmp_path / "other", "training", panoptic=False)
    (other / "config_v2.0.json").rename(root / "config_v1.2.json")
    edit_config(root, lambda content: content["labels"][0].update(readable="Fowl"), "config_v1.2.json")
    (other / "training" / "v2.0").rename(root / "training" / "v1.2")
    old = MapillaryVistas(root, "training", config="config_v1.2.json", annotations="v1.2")
    assert [category.name for category in old.categories] == ["Fowl", "Sky", "Car"]
    assert old[0].panoptic_map.segments[0].id == 256  # of instances
    new = MapillaryVistas(root, "training", **V2)
    assert [category.name for category in new.categories] == ["Bird", "Sky", "Car"]
    assert new[0].panoptic_map.segments[0].id == 70001  # of the panoptic files


def test_errors_of_v2_name_its_files(tmp_path):
    root = write_tiny_mapillary_v2(tmp_path, "training", panoptic=False)
    values = values_of("a_first")
    values[3, 3] = 4 * 256
    Image.fromarray(values).save(root / "training" / "v2.0" / "instances" / "a_first.png")
    with pytest.raises(
        ValueError, match=r"labels 0\.\.3 of config_v2\.0\.json in .*v2\.0/instances/a_first\.png, got 4"
    ):
        MapillaryVistas(root, "training", **V2)[0]
    shutil.rmtree(root / "training" / "v2.0")
    with pytest.raises(
        FileNotFoundError, match=r"v2\.0/panoptic/panoptic_2020\.json or .*v2\.0/instances, found neither"
    ):
        MapillaryVistas(root, "training", **V2)
    (root / "config_v2.0.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no file .*config_v2\.0\.json; expected the folder of Mapillary Vistas"
    ):
        MapillaryVistas(root, "training", **V2)


def test_panoptic_files_of_other_categories_than_v2s_are_an_error(tmp_path):
    root = write_tiny_mapillary_v2(tmp_path, "training", panoptic=True)
    edit_config(root, lambda content: content["labels"][0].update(readable="Fowl"), "config_v2.0.json")
    with pytest.raises(ValueError, match=r"panoptic_2020\.json as in config_v2\.0\.json, got .*'bird'"):
        MapillaryVistas(root, "training", **V2)


def edit_config(root, change, name="config.json"):
    content = json.loads((root / name).read_text())
    change(content)
    (root / name).write_text(json.dumps(content))


def edit_panoptic(root, change):
    content = panoptic_content(root / "training" / "panoptic")
    change(content)
    (root / "training" / "panoptic" / "panoptic_2018.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("labels"), r"expected JSON with a list `labels` in .*config\.json, got: KeyError"),
        (lambda c: c.update(labels="none"), r"expected JSON with a list `labels` in .*config\.json, got str"),
        (lambda c: c["labels"][0].pop("readable"), r"a label of .*config\.json lacks the key 'readable'"),
        (lambda c: c["labels"][0].update(color=[1, 2]), r"the labels of .*config\.json are not as in Mapillary Vistas"),
        (lambda c: c["labels"][0].update(readable="Car"), r"config\.json .*category names must be unique"),
        (lambda c: c["labels"][0].update(readable=7), r"config\.json .*expected a text as readable, got 7"),
    ],
)
def test_a_wrong_configuration_is_named(root, change, message):
    edit_config(root, change)
    with pytest.raises(ValueError, match=message):
        MapillaryVistas(root, "training")


def test_a_configuration_that_is_no_json_is_named(root):
    (root / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"expected JSON with a list `labels` in .*config\.json"):
        MapillaryVistas(root, "training")


def test_a_missing_configuration_is_named(root):
    (root / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*config\.json; expected the folder of Mapillary Vistas"):
        MapillaryVistas(root, "training")


def test_a_split_that_is_not_there_is_named(root):
    with pytest.raises(FileNotFoundError, match=r"no folder .*validation/images; expected the photographs"):
        MapillaryVistas(root, "validation")


def test_a_split_without_images_is_named(root):
    for path in (root / "training" / "images").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"no \.jpg in .*training/images"):
        MapillaryVistas(root, "training")


def test_a_split_without_ground_truth_says_what_it_is_for(root):
    shutil.rmtree(root / "training" / "panoptic")
    shutil.rmtree(root / "training" / "instances")
    with pytest.raises(
        FileNotFoundError, match=r"panoptic_2018\.json or .*instances, found neither; .* panoptic predict"
    ):
        MapillaryVistas(root, "training")


@pytest.mark.parametrize(
    ("removed", "error", "message"),
    [
        ("images/a_first.jpg", FileNotFoundError, r"1 entries of .*panoptic_2018\.json have no image.* is a_first"),
        ("panoptic/a_first.png", ValueError, r"1 PNGs of .*panoptic_2018\.json are missing.*a_first\.png"),
    ],
)
def test_a_missing_file_is_an_error_when_the_data_set_is_opened(root, removed, error, message):
    (root / "training" / removed).unlink()
    with pytest.raises(error, match=message):
        MapillaryVistas(root, "training")


def test_an_image_without_an_entry_is_an_error(root):
    Image.new("RGB", (7, 5)).save(root / "training" / "images" / "new.jpg")
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images have no entries of .*json, the first is new"):
        MapillaryVistas(root, "training")


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("images/a_first.jpg", r"1 PNGs in .*instances have no image, the first is a_first; add it or remove them"),
        ("instances/a_first.png", r"1 of 2 images have no PNGs in .*instances, the first is a_first"),
    ],
)
def test_instances_that_do_not_fit_the_images_are_an_error(root, removed, message):
    shutil.rmtree(root / "training" / "panoptic")
    (root / "training" / removed).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        MapillaryVistas(root, "training")


def test_panoptic_files_of_another_version_are_an_error(root):
    edit_panoptic(root, lambda content: content["categories"][2].update(name="Van"))
    with pytest.raises(
        ValueError, match=r"categories .* of .*panoptic_2018\.json as in config\.json, got .*'van'.* instead of .*'car'"
    ):
        MapillaryVistas(root, "training")


def test_names_of_panoptic_files_may_be_spelt_otherwise(root):
    edit_panoptic(root, lambda content: content["categories"][2].update(name="_CAR"))
    assert [category.name for category in MapillaryVistas(root, "training").categories] == ["Bird", "Sky", "Car"]


def test_a_label_beyond_the_configuration_is_an_error_that_names_the_file(root):
    shutil.rmtree(root / "training" / "panoptic")
    values = values_of("a_first")
    dataset = MapillaryVistas(root, "training")
    values[3, 3] = 4 * 256
    Image.fromarray(values).save(root / "training" / "instances" / "a_first.png")
    with pytest.raises(ValueError, match=r"expected labels 0\.\.3 of config\.json in .*a_first\.png, got 4"):
        dataset[0]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_instances_of_another_kind_are_an_error_that_names_the_file(root, mode):
    shutil.rmtree(root / "training" / "panoptic")
    Image.new(mode, (20, 9)).save(root / "training" / "instances" / "a_first.png")
    with pytest.raises(ValueError, match=r"expected a PNG with one 16-bit channel.*a_first\.png"):
        MapillaryVistas(root, "training")[0]


@pytest.mark.parametrize("kept", [60, -13, -1])
def test_truncated_instances_are_an_error_that_names_the_file(root, kept):
    shutil.rmtree(root / "training" / "panoptic")
    path = root / "training" / "instances" / "a_first.png"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"truncated or damaged image: .*a_first\.png"):
        MapillaryVistas(root, "training")[0]


@PANOPTIC_OR_NOT
def test_an_image_of_another_size_than_its_ground_truth_is_named(tmp_path, panoptic):
    root = write_tiny_mapillary(tmp_path, "training", panoptic=panoptic)
    Image.new("RGB", (9, 9)).save(root / "training" / "images" / "a_first.jpg")
    with pytest.raises(ValueError, match=r"a_first\.jpg has size \(9, 9\), but its ground truth \(9, 20\)"):
        MapillaryVistas(root, "training")[0]


@pytest.mark.parametrize(
    ("choice", "write_files", "panoptic"),
    [
        ("mapillary", write_tiny_mapillary, True),
        ("mapillary", write_tiny_mapillary, False),
        ("mapillary_v2", write_tiny_mapillary_v2, True),
        ("mapillary_v2", write_tiny_mapillary_v2, False),
    ],
)
def test_the_configuration_loads_batches_of_crops_and_whole_images(tmp_path, choice, write_files, panoptic):
    root = write_files(tmp_path, "training", "validation", panoptic=panoptic)
    small = ["data.train_transform.longest_side=40", "data.eval_transform.longest_side=40"]
    words = [f"data={choice}", f"data.root={root}", "data.train_transform.size=[21,23]", *small]
    data = build_data(resolved(load_config("train", [*words, "data.num_workers=0", "data.batch_size=2"])))
    data.connect({}, SizeRule(16, 1))
    (batch,) = list(data.train_dataloader())
    assert batch.image_sizes == [(21, 23), (21, 23)]
    first, second = list(data.val_dataloader())
    assert (first.image_sizes, second.image_sizes) == ([(18, 40)], [(28, 40)])
    assert first.truths[0].size == (9, 20)


def test_the_longest_side_is_resized_before_the_crop(root):
    sample = MapillaryVistas(root, "training")[1]
    whole = EvalTransform(longest_side=34)(sample)
    crop = TrainTransform((20, 30), scale=(1, 1), flip=0, colour=0, longest_side=34)(sample, 7)
    assert whole.size == (24, 34)
    matches = [
        (y, x)
        for y in range(5)
        for x in range(5)
        if torch.equal(whole.image[:, y : y + 20, x : x + 30], crop.image)
        and torch.equal(whole.panoptic_map.segment_ids[y : y + 20, x : x + 30], crop.panoptic_map.segment_ids)
    ]
    assert len(matches) == 1


def test_a_longest_side_of_no_pixel_is_refused():
    with pytest.raises(ValueError, match="expected a longest side of at least 1 pixel, got 0"):
        TrainTransform((5, 7), longest_side=0)


@pytest.mark.slow
@needs_samples
def test_the_sample_of_the_real_data_set_reads_the_same_both_ways(tmp_path):
    sample = Path(os.environ["PANOPTIC_SAMPLES"]) / "mapillary_vistas"
    dataset = MapillaryVistas(sample, "training")
    assert len(dataset.categories) == 65
    assert sum(category.is_thing for category in dataset.categories) == 37
    assert dataset.categories[55] == Category(55, "Car", True, "object--vehicle", (0, 0, 142), 56)
    expected = dataset[0]
    assert expected.size == (2448, 3264)
    assert len(expected.panoptic_map.segments) == 42
    for name in ("images", "instances"):
        (tmp_path / "training").mkdir(exist_ok=True)
        (tmp_path / "training" / name).symlink_to(sample / "training" / name)
    (tmp_path / "config.json").symlink_to(sample / "config.json")
    found = MapillaryVistas(tmp_path, "training")[0]
    assert torch.equal(found.image, expected.image)
    # equal partitions: as many pairs of ids as segments, and void
    ours, theirs = found.panoptic_map.segment_ids, expected.panoptic_map.segment_ids
    pairs = [divmod(pair, 2**24) for pair in (ours * 2**24 + theirs).unique().tolist()]
    assert len(pairs) == 42 + bool((theirs == 0).any())
    tables = [{s.id: (s.category_id, s.area) for s in sample.panoptic_map.segments} for sample in (found, expected)]
    for our_id, their_id in pairs:
        assert tables[0].get(our_id) == tables[1].get(their_id)
    labels = np.asarray(Image.open(sample / "training" / "labels" / f"{expected.image_id}.png"))
    assert (np.where(labels == 65, 0, labels + 1) == ours.numpy() // 256).all()  # ids are (label + 1) * 256 + number
