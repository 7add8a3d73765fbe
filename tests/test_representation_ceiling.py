import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import draw
from PIL import Image
from tiny_coco import CATEGORIES, write_tiny_coco

from panoptic.structures import RECTANGLE, STAR, Category

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "representation_ceiling.py"))
LETTERS = (Category(0, "grass", False), Category(1, "cat", True), Category(2, "dog", True))


def rows_printed(text):
    """{(number of the data set, categories): cells}, the last five cells of the rows of the table."""
    lines = [line for line in text.splitlines() if "│" in line]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    rows = [row[2:] for row in cells if row[2] in ("all", "things", "stuff")]
    return {(number // 3, row[0]): row[1:] for number, row in enumerate(rows)}


def write_map(folder, *rows):
    """A panoptic JSON of one drawn map: capital letters are cars, small ones trees, one segment per letter."""
    letters = np.array([list(row) for row in rows])
    ids = np.vectorize(ord)(letters)
    segments = [{"id": int(i), "category_id": 3 if chr(i).isupper() else 184, "iscrowd": 0} for i in np.unique(ids)]
    (folder / "map").mkdir()
    channels = np.stack([ids, 0 * ids, 0 * ids], axis=-1).astype(np.uint8)
    Image.fromarray(channels).save(folder / "map" / "1.png")
    image = {"id": 1, "file_name": "1.jpg", "height": ids.shape[0], "width": ids.shape[1]}
    annotation = {"image_id": 1, "file_name": "1.png", "segments_info": segments}
    path = folder / "map.json"
    path.write_text(json.dumps({"images": [image], "annotations": [annotation], "categories": CATEGORIES}))
    return path


@pytest.mark.parametrize("graph", [STAR, RECTANGLE], ids=lambda graph: graph.name)
def test_separate_things_are_represented_exactly(graph):
    truth = draw("AAA....", "AAA.BBB", "....BBB", ".......", categories={"A": 1, "B": 2, ".": 0})
    fused = SCRIPT["encode_and_fuse"](truth, LETTERS, graph=graph, radius=2.0, longest_side=None)
    assert fused.size == truth.size
    for segment in truth.segments:
        pixels = truth.segment_ids == segment.id
        if pixels.any():
            (fused_id,) = fused.segment_ids[pixels].unique().tolist()
            assert torch.equal(fused.segment_ids == fused_id, pixels)
            assert {s.id: s.category_id for s in fused.segments}[fused_id] == segment.category_id


def test_a_smaller_map_loses_what_nearest_neighbour_loses():
    # 4 x 8 to 2 x 4 and back: rows and columns 1 and 3, .. are kept, so the column of cat at 2 vanishes.
    truth = draw("..AA....", "..AA....", "........", "........", categories={"A": 1, ".": 0})
    fused = SCRIPT["encode_and_fuse"](truth, LETTERS, graph=STAR, radius=2.0, longest_side=4)
    assert fused.size == (4, 8)
    is_cat = fused.segment_ids == next(s.id for s in fused.segments if s.category_id == 1)
    assert torch.equal(is_cat, draw("..AA....", "..AA....", "........", "........").segment_ids == 1)


def test_a_data_set_of_separate_things_reaches_100_and_crowds_do_not_count(tmp_path, capsys):
    data = write_tiny_coco(tmp_path)
    assert SCRIPT["main"]([str(data.panoptic_json), "--radius", "2"]) == 0
    printed = rows_printed(capsys.readouterr().out)
    assert printed == {(0, group): ["100.00"] * 4 for group in ("all", "things", "stuff")}


def test_things_that_share_a_box_become_one(tmp_path, capsys):
    # A and B, 8 px each, have the same box: one is suppressed, the other gets 16 px and an IoU of 1/2, no match.
    # It covers A or B by 8/16 and the other by the same: PC 50; the 8 px of trees are right.
    path = write_map(tmp_path, "AABBAABB", "BBAABBAA", "tttttttt")
    assert SCRIPT["main"]([str(path), "--radius", "2"]) == 0
    printed = rows_printed(capsys.readouterr().out)
    assert printed[0, "things"] == ["0.00", "0.00", "0.00", "50.00"]
    assert printed[0, "stuff"] == ["100.00"] * 4
    assert printed[0, "all"] == ["50.00", "50.00", "50.00", "75.00"]


def test_several_data_sets_with_folders_of_their_own(tmp_path, capsys):
    data = write_tiny_coco(tmp_path)
    moved = shutil.move(data.png_folder, tmp_path / "pngs")
    one = ["--folder", str(moved)]
    path = str(data.panoptic_json)
    assert SCRIPT["main"]([path, path, *one, *one, "--radius", "2", "--graph", "rectangle"]) == 0
    assert len(rows_printed(capsys.readouterr().out)) == 6
    assert SCRIPT["main"]([path, path, *one]) == 1
    assert "expected one --folder per panoptic JSON, 2, got 1; name all of them" in capsys.readouterr().err


def test_files_that_cannot_be_used_are_named(tmp_path, capsys):
    assert SCRIPT["main"]([str(tmp_path / "no.json")]) == 1
    assert "no.json" in capsys.readouterr().err
    data = write_tiny_coco(tmp_path / "data")
    (data.png_folder / "101.png").unlink()
    assert SCRIPT["main"]([str(data.panoptic_json)]) == 1
    assert "101.png" in capsys.readouterr().err
    data.rewrite(data.content() | {"annotations": [], "images": []})
    assert SCRIPT["main"]([str(data.panoptic_json)]) == 1
    assert "has no annotations, so there is nothing to encode" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--radius", "0"), ("--longest-side", "0")])
def test_bad_options_are_refused(tmp_path, capsys, option, value):
    data = write_tiny_coco(tmp_path)
    assert SCRIPT["main"]([str(data.panoptic_json), option, value]) == 1
    assert "error: expected a" in capsys.readouterr().err
