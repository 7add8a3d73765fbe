import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_voc import write_tiny_voc

SCRIPT = Path(__file__).parents[1] / "scripts" / "all_samples.py"


def process(root, out, *folders):
    words = [word for folder in folders for word in ("--folder", folder)]
    return runpy.run_path(str(SCRIPT))["main"]([str(root), "--out", str(out), *words])


def cells_of(out, folder):
    header, _, *rows = [line.strip("| ").split(" | ") for line in (out / "table.md").read_text().splitlines()]
    (row,) = [row for row in rows if row[0] == folder]
    return dict(zip(header, row, strict=True))


def write_train_ids(root):
    """As deeplab2's test data: annotations without categories."""
    folder = root / "cityscapes_panoptic_deeplab2"
    (folder / "gtFine").mkdir(parents=True)
    (folder / "leftImg8bit").mkdir()
    path = folder / "gtFine" / "cityscapes_panoptic_dummy_trainId.json"
    path.write_text(json.dumps({"annotations": []}))
    return path


@pytest.mark.very_slow
def test_a_folder_is_checked_converted_trained_on_and_evaluated(tmp_path, capsys):
    write_tiny_voc(tmp_path / "samples" / "voc2012_style" / "VOCdevkit" / "VOC2012")
    out = tmp_path / "new" / "out"
    assert process(tmp_path / "samples", out, "voc2012_style") == 0
    cells = cells_of(out, "voc2012_style")
    # one image of train: two cars and a person; one of val: a chair too; two segments of background
    assert (cells["images"], cells["instances"], cells["errors"]) == ("1, 1", "3, 4", "0")
    assert cells["converted"] == "2 images, 9 segments"
    first, last = (float(loss) for loss in cells["loss, step 1 to 10"].split(" to "))
    assert first > 0
    assert last > 0
    assert cells["evaluation"].startswith("PQ ")
    assert (out / "table.md").read_text() == capsys.readouterr().out
    assert (out / "voc2012_style" / "evaluation" / "evaluation.json").is_file()


def test_a_folder_that_lacks_its_categories_must_be_refused(tmp_path, capsys):
    path = write_train_ids(tmp_path / "samples")
    assert process(tmp_path / "samples", tmp_path / "first", "cityscapes_panoptic_deeplab2") == 0
    cells = cells_of(tmp_path / "first", "cityscapes_panoptic_deeplab2")
    assert (cells["errors"], cells["evaluation"]) == ("2", "-")
    assert "has no list `categories`" in (tmp_path / "first" / path.parents[1].name / "check.log").read_text()
    # a folder that could be read would be an error
    png = path.with_suffix("") / "a.png"
    png.parent.mkdir()
    Image.fromarray(np.full((5, 7, 3), (1, 0, 0), np.uint8)).save(png)
    Image.new("RGB", (7, 5)).save(path.parents[1] / "leftImg8bit" / "a.png")
    annotation = {"image_id": 1, "file_name": "a.png", "segments_info": [{"id": 1, "category_id": 1}]}
    categories = [{"id": 1, "name": "road", "isthing": 0}]
    images = [{"id": 1, "file_name": "a.png"}]
    path.write_text(json.dumps({"annotations": [annotation], "categories": categories, "images": images}))
    assert process(tmp_path / "samples", tmp_path / "second", "cityscapes_panoptic_deeplab2") == 1
    assert "cityscapes_panoptic_deeplab2: 0 errors in check-data: no error was found" in capsys.readouterr().err


def test_a_folder_with_a_fault_fails_and_its_message_is_shown(tmp_path, capsys):
    root = write_tiny_voc(tmp_path / "samples" / "voc2012_style" / "VOCdevkit" / "VOC2012")
    (root / "SegmentationObject" / "2007_000032.png").write_bytes(b"")
    assert process(tmp_path / "samples", tmp_path / "out", "voc2012_style") == 1
    assert cells_of(tmp_path / "out", "voc2012_style")["images"] == "1, 1"
    assert "error: voc2012_style: 1 errors in check-data: " in capsys.readouterr().err


def test_a_folder_that_is_not_there_and_an_output_that_is_are_refused(tmp_path, capsys):
    assert process(tmp_path, tmp_path / "out", "camvid") == 1
    assert f"error: {tmp_path} lacks ['camvid']" in capsys.readouterr().err
    (tmp_path / "camvid").mkdir()
    (tmp_path / "out").mkdir()
    assert process(tmp_path, tmp_path / "out", "camvid") == 1
    assert "out exists; choose another --out" in capsys.readouterr().err
