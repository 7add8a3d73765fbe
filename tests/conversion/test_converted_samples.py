"""Real annotations, converted by the command and compared with what others derived from the same files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panoptic.__main__ import main
from panoptic.data.coco import CocoPanoptic
from panoptic.data.panoptic_format import read_panoptic_json, read_panoptic_map

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("PANOPTIC_SAMPLES" not in os.environ, reason="PANOPTIC_SAMPLES is not set"),
]

SAMPLES = Path(os.environ.get("PANOPTIC_SAMPLES", ""))


def run(out, *words):
    assert main(["convert", *words, f"out={out}"]) == 0
    return out / "panoptic.json"


def there_and_back(tmp_path, source, target):
    path = run(tmp_path / "there", *source)
    run(tmp_path / "back", "from=panoptic", f"from.panoptic_json={path}", *target)
    return read_panoptic_json(path), tmp_path / "back"


def pixels_of(path):
    with Image.open(path) as image:
        return np.array(image)


def maps_by_key(file, key=lambda name: name):
    """{key of the photograph: (segment ids (H, W), {segment id: (dataset id of its category, crowd)})}."""
    ids = {category.id: category.dataset_category_id for category in file.categories}
    maps = {}
    for annotation in file.annotations.values():
        panoptic_map = read_panoptic_map(file, annotation)
        table = {s.id: (ids[s.category_id], s.is_crowd) for s in panoptic_map.segments}
        maps[key(Path(annotation.image_name).stem)] = panoptic_map.segment_ids.numpy(), table
    return maps


def assert_same_segments(ours, theirs):
    """Equal up to the numbers of segments."""
    (our_ids, our_table), (their_ids, their_table) = ours, theirs
    pairs = {divmod(code, 2**24) for code in np.unique(our_ids * 2**24 + their_ids).tolist()}
    assert len(pairs) == len({ours for ours, _ in pairs}) == len({theirs for _, theirs in pairs})
    assert all((ours == 0) == (theirs == 0) for ours, theirs in pairs)
    assert all(our_table[ours] == their_table[theirs] for ours, theirs in pairs if ours)


def test_cityscapes_equals_the_official_tools_map_and_comes_back(tmp_path):
    root = SAMPLES / "cityscapes"
    words = [f"from.maps={root / 'gtFine' / 'val'}", f"from.images={root / 'leftImg8bit' / 'val'}"]
    converted = maps_by_key(read_panoptic_json(run(tmp_path / "out", "from=cityscapes_ids", *words)))
    derived = read_panoptic_json(root / "gtFine" / "cityscapes_panoptic_val.json")
    (ours,), (theirs,) = converted.values(), maps_by_key(derived).values()
    assert np.array_equal(ours[0], theirs[0])
    assert ours[1] == theirs[1]
    source = ["from=cityscapes_ids", *words, "from.evaluated_only=false"]
    _, back = there_and_back(tmp_path, source, ["to=cityscapes_ids"])
    for kind in ("instanceIds", "labelIds"):
        name = f"frankfurt_000000_000294_gtFine_{kind}.png"
        assert np.array_equal(pixels_of(back / name), pixels_of(root / "gtFine" / "val" / "frankfurt" / name))


def test_mapillary_equals_the_official_map_and_comes_back(tmp_path):
    root = SAMPLES / "mapillary_vistas"
    folder, config = root / "training", root / "config.json"
    words = [f"from.maps={folder / 'instances'}", f"from.images={folder / 'images'}", f"from.config={config}"]
    there, back = there_and_back(tmp_path, ["from=mapillary_ids", *words], ["to=mapillary_ids", f"to.config={config}"])
    official = read_panoptic_json(folder / "panoptic" / "panoptic_2018.json", folder / "panoptic")
    (ours,), (theirs,) = maps_by_key(there).values(), maps_by_key(official).values()
    assert len(ours[1]) == 42
    assert_same_segments(ours, theirs)
    (path,) = (folder / "labels").glob("*.png")
    for kind in ("instances", "labels"):
        assert np.array_equal(pixels_of(back / kind / path.name), pixels_of(folder / kind / path.name))


def test_voc_loads_and_comes_back(tmp_path):
    root = SAMPLES / "voc2012_style" / "VOCdevkit" / "VOC2012"
    there, back = there_and_back(tmp_path, ["from=voc_pngs", f"from.root={root}"], ["to=voc_pngs"])
    data = CocoPanoptic(there.path, root / "JPEGImages")
    assert [data[index].image_id for index in range(len(data))] == ["2011_000003", "2011_000006", "2011_000025"]
    for path in (root / "SegmentationClass").iterdir():
        classes = pixels_of(path)
        assert np.array_equal(pixels_of(back / "SegmentationClass" / path.name), classes)
        # the official form has void in both maps, this sample 0 in that of objects
        objects = np.where(classes == 255, 255, pixels_of(root / "SegmentationObject" / path.name))
        assert np.array_equal(pixels_of(back / "SegmentationObject" / path.name), objects)


def test_coco_stuff_equals_the_derived_map_but_for_objects_of_a_few_pixels(tmp_path):
    root = SAMPLES / "coco_stuff"
    derived = root / "annotations" / "panoptic_stuffthing_val.json"
    words = [f"from.class_maps={root / 'val_label'}", f"from.instance_maps={root / 'val_inst'}"]
    words += [f"from.images={root / 'val_img'}", f"from.categories={derived}"]
    ours = maps_by_key(read_panoptic_json(run(tmp_path / "out", "from=spade", *words)))
    theirs = maps_by_key(read_panoptic_json(derived))
    assert len(ours) == 2
    for name, (ids, table) in ours.items():
        # the derived maps leave out what is smaller than 16 pixels
        small = [i for i in table if (ids == i).sum() < 16]
        kept = {i: entry for i, entry in table.items() if i not in small}
        assert_same_segments((np.where(np.isin(ids, small), 0, ids), kept), theirs[name])


def test_masks_of_nuclei_equal_the_derived_maps(tmp_path):
    root = SAMPLES / "dsb2018"
    words = [f"from.folder={root / 'stage1_train_sample'}", "from.category=nucleus", "from.background=background"]
    ours = maps_by_key(read_panoptic_json(run(tmp_path / "out", "from=object_masks", *words)))
    theirs = {}
    for split in ("train", "val"):
        path = tmp_path / f"panoptic_{split}.json"
        content = json.loads((root / "annotations" / path.name).read_text())
        wanted = [image for image in content["images"] if Path(image["file_name"]).stem in ours]
        ids = {image["id"] for image in wanted}
        entries = [entry for entry in content["annotations"] if entry["image_id"] in ids]
        path.write_text(json.dumps({**content, "images": wanted, "annotations": entries}))
        theirs |= maps_by_key(read_panoptic_json(path, root / "annotations" / f"panoptic_{split}"))
    assert len(ours) == len(theirs) == 4
    swapped = {1: 2, 2: 1}  # the derived files number the background first
    for name, (ids, table) in ours.items():
        renamed = {i: (swapped[category], is_crowd) for i, (category, is_crowd) in table.items()}
        assert_same_segments((ids, renamed), theirs[name])


def test_coco_instances_convert_with_their_overlaps(tmp_path):
    root = SAMPLES / "coco_instances"
    original = root / "annotations" / "instances_val2017.json"
    path = run(tmp_path / "out", "from=cvat", f"from.instances_json={original}", f"from.images={root / 'val2017'}")
    written = json.loads(path.with_name("instances.json").read_text())
    entries = json.loads(original.read_text())["annotations"]
    assert len(written["annotations"]) == len(entries)
    data = CocoPanoptic(path, root / "val2017", instances_json=path.with_name("instances.json"))
    straight = CocoPanoptic(path, root / "val2017", instances_json=original)
    for index in range(0, len(data), 4):
        ours, theirs = (one[index].instances for one in (data, straight))
        assert sorted(mask.tobytes() for mask in ours.masks.numpy()) == sorted(
            mask.tobytes() for mask in theirs.masks.numpy()
        )
