"""`panoptic score` on files that are written here, and on real ones where there are some."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles.panoptic_oracle import PanopticOracle, random_pair

from panoptic.data.panoptic_format import read_panoptic_json, read_panoptic_map, write_panoptic_png
from panoptic.metrics import PanopticQuality, ParsingCovering, SemanticIoU
from panoptic.score import main
from panoptic.structures import Category, PanopticMap

DATASET_IDS = [3, 17, 44, 90]
CATEGORIES = [
    Category(id=number, name=f"category {number}", is_thing=number % 2 == 1, dataset_category_id=DATASET_IDS[number])
    for number in range(4)
]


def write_files(json_path, maps, with_categories, dataset_ids=DATASET_IDS):
    """Maps {image_id: PanopticMap} as a JSON and a folder of PNGs beside it."""
    folder = json_path.with_suffix("")
    folder.mkdir(parents=True)
    annotations = []
    for image_id, panoptic_map in maps.items():
        write_panoptic_png(folder / f"{image_id}.png", panoptic_map.segment_ids)
        infos = [
            {"id": s.id, "category_id": dataset_ids[s.category_id], "iscrowd": int(s.is_crowd)}
            for s in panoptic_map.segments
        ]
        annotations.append({"image_id": image_id, "file_name": f"{image_id}.png", "segments_info": infos})
    content = {"annotations": annotations}
    if with_categories:
        content["categories"] = [
            {"id": c.dataset_category_id, "name": c.name, "isthing": int(c.is_thing)} for c in CATEGORIES
        ]
    json_path.write_text(json.dumps(content))


def without_empty_entries(panoptic_map):
    """Files must not list a segment that the PNG lacks."""
    present = set(panoptic_map.segment_ids.unique().tolist())
    return PanopticMap(panoptic_map.segment_ids, [s for s in panoptic_map.segments if s.id in present])


@pytest.fixture
def maps():
    """{image_id: (prediction, target)}."""
    generator = np.random.default_rng(11)
    pairs = {image_id: random_pair(generator, len(CATEGORIES)) for image_id in (12, 7, 300)}
    return {image_id: tuple(without_empty_entries(one) for one in pair) for image_id, pair in pairs.items()}


@pytest.fixture
def files(maps, tmp_path):
    """(truth, prediction), both as paths of JSONs."""
    truth, prediction = tmp_path / "truth.json", tmp_path / "predicted" / "prediction.json"
    write_files(truth, {image_id: target for image_id, (_, target) in maps.items()}, with_categories=True)
    write_files(prediction, {image_id: one for image_id, (one, _) in maps.items()}, with_categories=False)
    return truth, prediction


def edit(path, change):
    """Load a JSON, let `change` work on it, and write it again."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def report_of(capsys, *arguments):
    """What `--json -` prints."""
    assert main([*map(str, arguments), "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


def fails(capsys, *arguments):
    """The one line on standard error of a run that must fail."""
    assert main([*map(str, arguments)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("panoptic score: ")]
    assert len(lines) == 1
    return lines[0]


def values_of(report):
    return {name: math.nan if report[name] is None else report[name] for name in report if name != "per_category"}


def test_the_numbers_equal_the_oracle(files, maps, capsys):
    oracle = PanopticOracle(len(CATEGORIES))
    for prediction, target in maps.values():
        oracle.add(prediction, target)
    report = report_of(capsys, *files)
    assert report["num_images"] == 3
    for name, value in oracle.means(CATEGORIES).items():
        assert report[name] == pytest.approx(value), name
    for row in report["per_category"]:
        c = row["category_id"]
        assert (row["tp"], row["fp"], row["fn"]) == (oracle.tp[c], oracle.fp[c], oracle.fn[c])


def test_the_numbers_equal_the_metrics(files, maps, capsys):
    values = {}
    for metric in (PanopticQuality(CATEGORIES), ParsingCovering(CATEGORIES, True), SemanticIoU(CATEGORIES)):
        metric.update(*map(list, zip(*maps.values(), strict=True)))
        values |= {name: value.item() for name, value in metric.compute().items()}
    report = report_of(capsys, *files, "--normalize-by-image-size")
    assert values_of(report) == pytest.approx(values | {"num_images": 3}, nan_ok=True)


def test_the_number_of_workers_does_not_matter(files, capsys):
    reports = [report_of(capsys, *files, "--workers", number) for number in (1, 2, 5)]
    assert reports[0] == reports[1] == reports[2]


def test_a_truth_scored_against_itself_is_perfect(files, capsys):
    report = report_of(capsys, files[0], files[0])
    assert {report[name] for name in ("pq", "sq", "rq", "pc", "miou", "pq_things", "pc_stuff")} == {1.0}


def test_the_table_is_printed_in_percent(files, capsys):
    assert main([str(files[0]), str(files[0])]) == 0
    out = capsys.readouterr().out
    lines = [line.replace("│", " ").split() for line in out.splitlines()]
    assert ["all", *["100.00"] * 5] in lines
    assert any(line[:3] == ["category", "0", "stuff"] for line in lines)


def test_the_report_goes_to_a_file(files, tmp_path, capsys):
    assert main([*map(str, files), "--json", str(tmp_path / "report.json")]) == 0
    assert "PQ" in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text()) == report_of(capsys, *files)


def test_folders_can_be_named(files, tmp_path, capsys):
    reference = report_of(capsys, *files)
    truth, prediction = files
    truth.with_suffix("").rename(tmp_path / "elsewhere")
    prediction.with_suffix("").rename(tmp_path / "there")
    options = ["--truth-folder", tmp_path / "elsewhere", "--prediction-folder", tmp_path / "there"]
    assert report_of(capsys, *files, *options) == reference


def test_predictions_of_other_images_are_left_out_and_mentioned(files, capsys):
    reference = report_of(capsys, *files)
    edit(files[1], lambda content: content["annotations"].append({**content["annotations"][0], "image_id": 999}))
    assert main([*map(str, files), "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == reference
    assert "1 images of" in captured.err
    assert "left out" in captured.err


def test_an_image_without_prediction_is_an_error(files, capsys):
    edit(files[1], lambda content: content["annotations"].pop(1))
    message = fails(capsys, *files)
    assert f"{files[1]} has no prediction of image 7, which {files[0]} lists (1 of 3 images" in message


def test_an_id_that_the_json_lacks_is_an_error(files, capsys):
    removed = []
    edit(files[1], lambda content: removed.append(content["annotations"][1]["segments_info"].pop()))
    message = fails(capsys, *files)
    png = files[1].with_suffix("") / "7.png"
    assert f"id {removed[0]['id']} in {png} has no entry in {files[1]}, image 7" in message


def test_an_id_that_the_png_lacks_is_an_error(files, capsys):
    extra = {"id": 123, "category_id": 17, "iscrowd": 0}
    edit(files[1], lambda content: content["annotations"][1]["segments_info"].append(extra))
    message = fails(capsys, *files)
    assert f"{files[1]} lists segment 123 of image 7, which {files[1].with_suffix('') / '7.png'} lacks" in message


def test_an_unknown_category_is_an_error(files, capsys):
    edit(files[1], lambda content: content["annotations"][1]["segments_info"][0].update(category_id=5))
    message = fails(capsys, *files)
    assert f"unknown category id 5 in {files[1]}, image 7" in message


def test_a_size_that_differs_is_an_error(files, maps, capsys):
    png = files[1].with_suffix("") / "7.png"
    smaller = maps[7][0].segment_ids.repeat_interleave(2, dim=0)
    write_panoptic_png(png, smaller)
    message = fails(capsys, *files)
    assert f"image 7: {png} has size (22, 17), but the truth has (11, 17) (height, width)" in message


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_png_is_an_error(files, which, capsys):
    png = files[which].with_suffix("") / "7.png"
    png.unlink()
    assert f"image 7 has no PNG {png}, which {files[which]} lists" in fails(capsys, *files)


@pytest.mark.parametrize("kept", [0, 20, -5])
def test_a_truncated_png_is_an_error(files, kept, capsys):
    png = files[1].with_suffix("") / "7.png"
    png.write_bytes(png.read_bytes()[:kept])
    message = fails(capsys, *files)
    assert "image 7: " in message
    assert str(png) in message


def test_a_missing_json_is_an_error(files, capsys):
    missing = files[1].with_name("nowhere.json")
    assert str(missing) in fails(capsys, files[0], missing)


def test_a_truth_without_annotations_is_an_error(files, capsys):
    edit(files[0], lambda content: content["annotations"].clear())
    assert f"{files[0]} has no annotations, so there is nothing to score" in fails(capsys, *files)


def test_no_worker_is_an_error(files, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*map(str, files), "--workers", "0"])
    assert "expected at least 1, got 0" in capsys.readouterr().err


HELP_AND_IMPORTS = """
import sys
from panoptic.score import main
try:
    main(["--help"])
finally:
    print(sorted({"torch", "numba", "cv2"} & set(sys.modules)))
"""


def test_help_needs_no_heavy_import():
    done = subprocess.run([sys.executable, "-c", HELP_AND_IMPORTS], capture_output=True, text=True, check=True)
    assert "panoptic score" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


SAMPLES = os.environ.get("PANOPTIC_SAMPLES")
needs_samples = pytest.mark.skipif(SAMPLES is None, reason="set PANOPTIC_SAMPLES to the folder of sample data")


@needs_samples
def test_real_truth_against_itself_is_perfect(capsys):
    truth = Path(SAMPLES) / "coco_panoptic" / "annotations" / "panoptic_val2017.json"
    report = report_of(capsys, truth, truth)
    names = [prefix + suffix for prefix in ("pq", "sq", "rq", "pc") for suffix in ("", "_things", "_stuff")]
    assert {report[name] for name in [*names, "miou"]} == {1.0}


@needs_samples
@pytest.mark.slow
def test_real_truth_against_a_damaged_copy_equals_the_oracle(tmp_path, capsys):
    """The copy is moved by a few pixels, has a hole, and a quarter of its segments are of another category."""
    truth = read_panoptic_json(Path(SAMPLES) / "coco_panoptic" / "annotations" / "panoptic_val2017.json")
    dataset_ids = [category.dataset_category_id for category in truth.categories]
    oracle, damaged = PanopticOracle(len(truth.categories)), {}
    for image_id, annotation in truth.annotations.items():
        target = read_panoptic_map(truth, annotation)
        moved = torch.roll(target.segment_ids, shifts=(5, -9), dims=(0, 1))
        moved[40:120, 60:160] = 0
        changed = [
            replace(s, category_id=s.category_id if number % 4 else 1, is_crowd=False)
            for number, s in enumerate(target.segments)
        ]
        damaged[image_id] = without_empty_entries(PanopticMap(moved, changed))
        oracle.add(damaged[image_id], target)
    write_files(tmp_path / "damaged.json", damaged, with_categories=False, dataset_ids=dataset_ids)
    report = report_of(capsys, truth.path, tmp_path / "damaged.json")
    for name, value in oracle.means(truth.categories).items():
        assert report[name] == pytest.approx(value), name
    assert 0 < report["pq"] < 1
