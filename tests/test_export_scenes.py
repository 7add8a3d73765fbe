import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from equal_samples import assert_equal_samples

from panoptic.data.coco import CocoPanoptic
from panoptic.data.scenes import Scenes

SCRIPT = Path(__file__).parents[1] / "scripts" / "export_scenes.py"


def export(out: Path, *more: str) -> int:
    arguments = ["--out", str(out), "--length", "6", "--size", "75", "101", "--difficulty", "hard", *more]
    return runpy.run_path(str(SCRIPT))["main"](arguments)


def test_reading_an_export_back_gives_the_scenes(tmp_path):
    out = tmp_path / "new" / "scenes"
    assert export(out, "--split", "train", "--seed", "4") == 0
    read = CocoPanoptic(
        panoptic_json=out / "panoptic_train.json",
        image_folder=out / "images",
        instances_json=out / "instances_train.json",
    )
    drawn = Scenes("train", length=6, size=(75, 101), difficulty="hard", seed=4)
    assert len(read) == len(drawn)
    assert list(read.image_ids) == list(drawn.image_ids)
    for kept, made in zip(read.categories, drawn.categories, strict=True):
        assert (kept.id, kept.name, kept.is_thing) == (made.id, made.name, made.is_thing)
        assert (kept.group, kept.colour, kept.dataset_category_id) == (made.group, made.colour, made.id)
    for index in range(len(drawn)):
        assert_equal_samples(read[index], drawn[index])


def test_instance_entries_have_areas_boxes_and_unique_ids(tmp_path):
    assert export(tmp_path / "scenes") == 0
    content = json.loads((tmp_path / "scenes" / "instances_val.json").read_text())
    ids = [entry["id"] for entry in content["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    scenes = Scenes("val", length=6, size=(75, 101), difficulty="hard")
    masks = [mask for index in range(6) for mask in scenes[index].instances.masks]
    for entry, mask in zip(content["annotations"], masks, strict=True):
        rows, columns = mask.nonzero().unbind(1)
        left, top = int(columns.min()), int(rows.min())
        assert entry["area"] == int(mask.sum())
        assert entry["bbox"] == [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1]


@pytest.mark.slow
def test_the_command_line_writes_the_folder(tmp_path):
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "scenes"), "--length", "1", "--size", "48", "64"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1 scenes in" in result.stdout
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert written == [
        "scenes",
        "scenes/images",
        "scenes/images/000000.png",
        "scenes/instances_val.json",
        "scenes/panoptic_val",
        "scenes/panoptic_val.json",
        "scenes/panoptic_val/000000.png",
    ]


def test_an_existing_folder_is_refused_and_kept(tmp_path, capsys):
    kept = tmp_path / "notes.txt"
    kept.write_text("mine")
    assert export(tmp_path) == 1
    assert f"{tmp_path} exists already; remove it or choose another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert kept.read_text() == "mine"


@pytest.mark.parametrize("length", ["0", "-3"])
def test_a_bad_length_is_refused_and_leaves_nothing(tmp_path, capsys, length):
    assert export(tmp_path / "scenes", "--length", length) == 1
    assert f"expected a length of at least 1 scene, got {length}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
