"""`panoptic convert` from end to end: all or nothing, and what it tells."""

import json
import shlex
from inspect import signature

import numpy as np
import pytest
import tiny_mapillary
import torch
from hydra.utils import get_class
from PIL import Image
from tiny_cityscapes import write_tiny_cityscapes
from tiny_coco import write_tiny_coco
from tiny_conversions import SIZE, annotation, rectangle, shape, write_instances, write_labelme, write_photograph
from tiny_mapillary import write_tiny_mapillary
from tiny_voc import write_tiny_voc

from panoptic.__main__ import main
from panoptic.assembly import build_data
from panoptic.configuration import config_folder, load_config, resolved
from panoptic.conversion.contract import AnnotatedImage
from panoptic.conversion.panoptic_files import PanopticFiles, PanopticTarget
from panoptic.conversion.stream import convert
from panoptic.data.coco import CocoPanoptic
from panoptic.data.json_lists import JsonList, write_json_lists
from panoptic.data.panoptic_format import read_panoptic_json, read_panoptic_map
from panoptic.structures import Category, PanopticMap, Segment, SizeRule

CHOICES = sorted(path for group in ("from", "to") for path in (config_folder() / group).glob("*.yaml"))


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_converted_files_are_read_by_training_and_overlapping_objects_are_whole(tmp_path, capsys):
    photos = tmp_path / "my photos"
    shapes = [shape("car", rectangle(1, 1, 6, 5)), shape("car", rectangle(4, 2, 9, 7))]
    shapes.append(shape("person", rectangle(5, 3, 6, 4)))
    write_labelme(photos, "b", shapes)
    write_labelme(photos, "a", [shape("person", [[0, 0], [20, 0], [20, 1], [0, 1]]), shape("car", [[1, 1], [2, 2]])])
    out = tmp_path / "converted"
    assert main(["convert", "from=labelme", f"from.folder={photos}", f"out={out}", "num_workers=3"]) == 0
    assert names_in(tmp_path) == sorted([
        *("converted", "converted/categories.json", "converted/instances.json", "converted/panoptic.json"),
        *("converted/panoptic", "converted/panoptic/a.png", "converted/panoptic/b.png"),
        *("my photos", "my photos/a.json", "my photos/a.png", "my photos/b.json", "my photos/b.png"),
    ])  # fmt: skip
    told = " ".join(capsys.readouterr().out.split())
    assert "2 images with 4 segments" in told
    assert "2 objects lie under others: instances.json has them whole" in told
    assert "1 times: shapes that reach outside the image were cut off at its border, first in a.png" in told
    assert "1 times: polygons of fewer than three points were left out, first in a.png" in told
    words = [
        f"data.root={out}",
        f"data.train.panoptic_json={out / 'panoptic.json'}",
        f"data.train.image_folder={photos}",
    ]
    assert f"to train on it: data=coco_panoptic {shlex.join(words)} (data.val likewise)" in told
    data = CocoPanoptic(out / "panoptic.json", photos, instances_json=out / "instances.json")
    assert data.image_ids == ["a", "b"]
    assert [category.name for category in data.categories] == ["car", "person"]
    sample = data[1]
    assert sample.instances.category_ids.tolist() == [0, 0, 1]
    for mask, (x1, y1, x2, y2) in zip(sample.instances.masks, [(1, 1, 6, 5), (4, 2, 9, 7), (5, 3, 6, 4)], strict=True):
        expected = torch.zeros(SIZE, dtype=torch.bool)
        expected[y1:y2, x1:x2] = True
        assert torch.equal(mask, expected)
    assert data[0].instances.masks.sum().item() == SIZE[1]
    categories = json.loads((out / "categories.json").read_text())
    assert categories == [{"id": 1, "name": "car", "isthing": 1}, {"id": 2, "name": "person", "isthing": 1}]


def test_the_words_that_are_printed_load_batches(tmp_path, capsys):
    write_labelme(tmp_path / "my photos", "a", [shape("car", rectangle(1, 1, 6, 5))])
    assert main(["convert", "from=labelme", f"from.folder={tmp_path / 'my photos'}", f"out={tmp_path / 'out'}"]) == 0
    told = capsys.readouterr().out.replace("\n", "")
    words = shlex.split(told.partition("to train on it: ")[2].removesuffix(" (data.val likewise)"))
    words += [word.replace("data.train.", "data.val.") for word in words if word.startswith("data.train.")]
    data = build_data(
        resolved(load_config("train", [*words, "data.num_workers=0", "data.train_transform.size=[9,13]"]))
    )
    data.connect({}, SizeRule())
    (batch,) = list(data.val_dataloader())
    assert batch.image_sizes == [SIZE]
    assert [segment.area for segment in batch.truths[0].segments] == [20]


def test_objects_that_do_not_overlap_need_no_instances_file(tmp_path):
    write_labelme(tmp_path / "p", "a", [shape("car", rectangle(1, 1, 6, 5))])
    assert main(["convert", "from=labelme", f"from.folder={tmp_path / 'p'}", f"out={tmp_path / 'out'}"]) == 0
    assert names_in(tmp_path / "out") == ["categories.json", "panoptic", "panoptic.json", "panoptic/a.png"]


def test_the_written_categories_can_be_edited_and_given_again(tmp_path):
    write_labelme(tmp_path / "p", "a", [shape("car", rectangle(1, 1, 6, 5)), shape("road", rectangle(0, 6, 2, 7))])
    words = ["convert", "from=labelme", f"from.folder={tmp_path / 'p'}"]
    assert main([*words, f"out={tmp_path / 'out'}"]) == 0
    path = tmp_path / "out" / "categories.json"
    categories = json.loads(path.read_text())
    categories[1]["isthing"] = 0
    path.write_text(json.dumps(categories))
    assert main([*words, f"from.categories={path}", f"out={tmp_path / 'second'}"]) == 0
    file = read_panoptic_json(tmp_path / "second" / "panoptic.json")
    assert [(c.name, c.is_thing) for c in file.categories] == [("car", True), ("road", False)]


def test_an_object_that_others_hide_is_kept_in_the_instances(tmp_path, capsys):
    segmentation = [[2, 2, 4, 2, 4, 4, 2, 4]]
    write_instances(tmp_path / "i.json", [annotation(1, segmentation), annotation(2, segmentation, category=2)])
    words = ["convert", "from=cvat", f"from.instances_json={tmp_path / 'i.json'}", f"from.images={tmp_path / 'images'}"]
    assert main([*words, f"out={tmp_path / 'out'}"]) == 0
    assert "1 objects lie under others, 1 of them with every pixel" in " ".join(capsys.readouterr().out.split())
    content = json.loads((tmp_path / "out" / "instances.json").read_text())
    assert [(a["image_id"], a["category_id"], a["area"], a["bbox"]) for a in content["annotations"]] == [
        (7, 1, 4, [2, 2, 2, 2]),
        (7, 2, 4, [2, 2, 2, 2]),
    ]
    assert [image["id"] for image in content["images"]] == [7, 8]
    data = CocoPanoptic(
        tmp_path / "out" / "panoptic.json", tmp_path / "images", instances_json=tmp_path / "out" / "instances.json"
    )
    assert [len(data[index].instances.category_ids) for index in range(2)] == [2, 0]


def test_all_faults_are_reported_and_nothing_is_written(tmp_path, capsys):
    for name in "abcd":
        write_labelme(tmp_path / "p", name, [shape("car", rectangle(1, 1, 6, 5))])
    (tmp_path / "p" / "b.png").unlink()
    write_photograph(tmp_path / "p" / "c.png", (13, 9))
    assert main(["convert", "from=labelme", f"from.folder={tmp_path / 'p'}", f"out={tmp_path / 'deep' / 'out'}"]) == 1
    error = capsys.readouterr().err
    assert "2 of 4 images could not be converted, and nothing was written" in error
    assert f"no photograph {tmp_path / 'p' / 'b.png'}" in error
    assert f"{tmp_path / 'p' / 'c.png'} has size (13, 9)" in error
    assert list((tmp_path / "deep").iterdir()) == []


def test_an_existing_folder_is_refused(tmp_path, capsys):
    write_labelme(tmp_path / "p", "a", [shape("car", rectangle(1, 1, 6, 5))])
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for out in ("out", "link"):
        assert main(["convert", "from=labelme", f"from.folder={tmp_path / 'p'}", f"out={tmp_path / out}"]) == 1
        assert f"{out} exists; results are never overwritten; choose another out=" in capsys.readouterr().err
    assert names_in(tmp_path) == ["link", "out", "p", "p/a.json", "p/a.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["out=x"],
            "give from=..., one of cityscapes_ids, cvat, labelme, map_pairs, mapillary_ids, object_masks, panoptic",
        ),
        (["from=labelme", "out=x"], "give from.folder=..., it has no default"),
        (["from=labelme", "from.folder=x"], "give out=..., it has no default"),
        (["from=labelmee", "out=x"], "no from 'labelmee', did you mean 'labelme'?"),
        (["from=labelme", "to=vocs", "out=x"], "no to 'vocs', did you mean 'voc'?"),
        (["from=labelme", "from.foldr=x", "out=x"], "'from.foldr' is not a key, did you mean 'from.folder'?"),
    ],
)
def test_bad_words_are_one_clear_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["convert", *words]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", CHOICES, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_choice_is_in_the_help_and_has_the_arguments_and_defaults_of_its_class(path):
    group = path.parent.name
    assert path.stem in (config_folder() / "convert.yaml").read_text()
    node = load_config("convert", [f"{group}={path.stem}"])[group]
    parameters = dict(signature(get_class(node["_target_"])).parameters)
    if group == "to":
        del parameters["folder"], parameters["categories"]
    assert set(node) - {"_target_", "_partial_"} == set(parameters)
    for name, parameter in parameters.items():
        if parameter.default is not parameter.empty:
            assert (tuple(node[name]) if isinstance(parameter.default, tuple) else node[name]) == parameter.default


def pixels_of(path):
    with Image.open(path) as image:
        return np.array(image)


def test_what_is_panoptic_already_stays_as_it_is(tmp_path):
    tiny = write_tiny_coco(tmp_path / "coco")
    out = tmp_path / "out"
    words = ["convert", "from=panoptic", f"from.panoptic_json={tiny.panoptic_json}", f"from.images={tiny.image_folder}"]
    assert main([*words, f"out={out}"]) == 0
    ours, theirs = read_panoptic_json(out / "panoptic.json"), read_panoptic_json(tiny.panoptic_json)
    assert ours.categories == theirs.categories
    assert list(ours.annotations) == list(theirs.annotations)
    for image_id, entry in theirs.annotations.items():
        before, after = read_panoptic_map(theirs, entry), read_panoptic_map(ours, ours.annotations[image_id])
        assert torch.equal(before.segment_ids, after.segment_ids)
        assert set(before.segments) == set(after.segments)


def test_files_of_cityscapes_go_to_panoptic_and_back(tmp_path):
    root = write_tiny_cityscapes(tmp_path / "cs", "val", panoptic=False)
    words = [f"from.maps={root / 'gtFine' / 'val'}", f"from.images={root / 'leftImg8bit' / 'val'}"]
    back = there_and_back(tmp_path, ["from=cityscapes_ids", *words, "from.evaluated_only=false"], ["to=cityscapes_ids"])
    originals = list((root / "gtFine" / "val").rglob("*.png"))
    assert len(originals) == 6
    for path in originals:
        assert np.array_equal(pixels_of(back / path.name), pixels_of(path)), path


def test_files_of_mapillary_go_to_panoptic_and_back(tmp_path):
    root = write_tiny_mapillary(tmp_path / "mv", "validation", panoptic=False)
    folder, config = root / "validation", root / "config.json"
    words = [f"from.maps={folder / 'instances'}", f"from.images={folder / 'images'}", f"from.config={config}"]
    back = there_and_back(tmp_path, ["from=mapillary_ids", *words], ["to=mapillary_ids", f"to.config={config}"])
    for key in tiny_mapillary.SIZES:
        values = tiny_mapillary.values_of(key)
        has_numbers = values // 256 != tiny_mapillary.SKY
        assert np.array_equal(pixels_of(back / "labels" / f"{key}.png"), values // 256)
        assert np.array_equal(pixels_of(back / "instances" / f"{key}.png")[has_numbers], values[has_numbers])


def test_files_of_voc_go_to_panoptic_and_back(tmp_path):
    root = write_tiny_voc(tmp_path / "VOC2012")
    back = there_and_back(tmp_path, ["from=voc_pngs", f"from.root={root}"], ["to=voc_pngs"])
    for name in ("SegmentationClass", "SegmentationObject"):
        originals = sorted((root / name).iterdir())
        assert len(originals) == 2
        for path in originals:
            assert np.array_equal(pixels_of(back / name / path.name), pixels_of(path)), path


def there_and_back(tmp_path, source, target):
    """The folder of files that were converted to panoptic ones, and these back."""
    assert main(["convert", *source, f"out={tmp_path / 'there'}"]) == 0
    words = ["from=panoptic", f"from.panoptic_json={tmp_path / 'there' / 'panoptic.json'}", *target]
    assert main(["convert", *words, f"out={tmp_path / 'back'}"]) == 0
    return tmp_path / "back"


def test_panoptic_files_without_names_of_images_or_annotations_are_an_error(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    content = tiny.content()
    tiny.rewrite({**content, "images": []})
    with pytest.raises(
        ValueError, match=r"tiny\.json has no file name of image 100 in `images`; files are named after"
    ):
        PanopticFiles(tiny.panoptic_json)
    for path in tiny.png_folder.iterdir():
        path.unlink()
    tiny.rewrite({**content, "annotations": []})
    with pytest.raises(ValueError, match=r"tiny\.json has no annotations"):
        PanopticFiles(tiny.panoptic_json)


def test_an_image_id_that_occurs_twice_is_an_error(tmp_path):
    target = PanopticTarget(tmp_path, [Category(0, "car", True)])
    panoptic_map = PanopticMap(torch.tensor([[1, 1, 0]]), [Segment(1, 0)])
    target.add(AnnotatedImage("a", "x/a.png", panoptic_map))
    with pytest.raises(ValueError, match=r"image id 'a' of y/a\.png occurs twice; rename the file"):
        target.add(AnnotatedImage("a", "y/a.png", panoptic_map))


class Numbers:
    """A source of numbered maps; `read` has the indices that were asked for."""

    def __init__(self, count):
        self.categories, self.image_folder, self.count, self.read = [Category(0, "car", True)], None, count, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.append(index)
        return AnnotatedImage(
            index, f"{index}.png", PanopticMap(torch.tensor([[1, 0]]), [Segment(1, 0)]), notes=("odd",)
        )


class Collector:
    """A target that keeps ids, and how many images had been asked for at each."""

    def __init__(self, source):
        self.source, self.ids, self.ahead = source, [], []

    def add(self, image):
        self.ids.append(image.image_id)
        self.ahead.append(len(self.source.read) - len(self.ids))

    def close(self):
        return ["done"]


@pytest.mark.parametrize("num_workers", [1, 4])
def test_images_come_in_order_and_only_a_few_ahead(num_workers):
    source = Numbers(40)
    target = Collector(source)
    steps = []
    report = convert(source, target, num_workers=num_workers, advance=lambda: steps.append(1))
    assert target.ids == list(range(40))
    assert max(target.ahead) <= num_workers + 1
    assert len(steps) == 40
    assert report.lines() == ["40 images with 40 segments", "done", "40 times: odd, first in 0.png"]


def test_no_threads_are_an_error():
    with pytest.raises(ValueError, match="expected at least 1 thread, got num_workers=0"):
        convert(Numbers(1), Collector(Numbers(1)), num_workers=0, advance=lambda: None)


def test_lists_on_disk_are_written_as_json_would(tmp_path):
    content = {"images": [{"id": 1, "name": "größe\n"}, {"id": "b"}], "none": [], "numbers": [1.5, None]}
    lists = {name: JsonList(tmp_path / f".{name}") for name in content}
    for name, entries in content.items():
        for entry in entries:
            lists[name].append(entry)
    write_json_lists(tmp_path / "out.json", lists)
    assert (tmp_path / "out.json").read_text() == json.dumps(content)
    for entries in lists.values():
        entries.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_the_folder_appears_with_everything_in_it(tmp_path, monkeypatch):
    """While images are converted, there is no folder of that name yet."""
    write_labelme(tmp_path / "p", "a", [shape("car", rectangle(1, 1, 6, 5))])
    seen = []
    add = PanopticTarget.add

    def watched(self, image):
        seen.append((tmp_path / "out").exists())
        add(self, image)

    monkeypatch.setattr(PanopticTarget, "add", watched)
    assert main(["convert", "from=labelme", f"from.folder={tmp_path / 'p'}", f"out={tmp_path / 'out'}"]) == 0
    assert seen == [False]
