"""From a network with a benchmark's categories to its submission, by commands alone."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_cityscapes import EVALUATED, FRAMES, SIZE, THINGS, write_tiny_cityscapes
from untrained_runs import write_run

from panoptic.__main__ import main

pytestmark = pytest.mark.slow

LARGE = (72, 104)
"""(H, W) of the photographs, in pixels: more than the tiny data set's, so that there is something to see."""


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """Predictions of a network of random weights with the categories of Cityscapes, for photographs without truth."""
    folder = tmp_path_factory.mktemp("cityscapes")
    root = write_tiny_cityscapes(folder / "data", "train", "val", panoptic=False)
    base = ["experiment=deeperlab_scenes", "backbone.name=test_resnet", "data.num_workers=0"]
    # this seed sees about a dozen things in each photograph
    write_run(folder / "run", "data=cityscapes", f"data.root={root}", "fusion.score_threshold=0.0", base=base, seed=5)
    rng = np.random.default_rng(1)
    (folder / "test").mkdir()
    for frame in FRAMES:
        pixels = cv2.resize(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), LARGE[::-1])
        cv2.imwrite(str(folder / "test" / f"{frame}_leftImg8bit.png"), pixels)
    out = folder / "predicted"
    assert main(["predict", f"run={folder / 'run'}", f"images={folder / 'test'}", f"out={out}"]) == 0
    return out / "panoptic.json"


def convert(predicted, out, *words):
    assert main(["convert", "from=panoptic", f"from.panoptic_json={predicted}", *words, f"out={out}"]) == 0
    return out


def test_the_panoptic_submission_has_every_frame_with_official_labels(predicted, tmp_path):
    out = convert(predicted, tmp_path / "out", "to=cityscapes_panoptic", f"to.size=[{LARGE[0]},{LARGE[1]}]")
    content = json.loads((out / "cityscapes_panoptic.json").read_text())
    assert sorted(entry["image_id"] for entry in content["annotations"]) == sorted(FRAMES)
    assert {category["id"]: category["name"] for category in content["categories"]} == EVALUATED
    for entry in content["annotations"]:
        with Image.open(out / "cityscapes_panoptic" / entry["file_name"]) as png:
            assert png.size == (LARGE[1], LARGE[0])
            channels = np.array(png).astype(int)
        ids = set(np.unique(channels @ [1, 256, 65536]).tolist())
        assert len(ids - {0}) > 1
        assert ids - {0} == {info["id"] for info in entry["segments_info"]}
        assert {info["category_id"] for info in entry["segments_info"]} <= set(EVALUATED)


def test_the_instance_submission_has_the_things_of_the_panoptic_one(predicted, tmp_path):
    out = convert(predicted, tmp_path / "out", "to=cityscapes_instances", "to.size=null", "to.score=1")
    content = json.loads(predicted.read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    count = 0
    for entry in content["annotations"]:
        things = [info for info in entry["segments_info"] if info["category_id"] in THINGS]
        expected = sorted((info["category_id"], info["area"], round(info.get("score", 1), 6)) for info in things)
        frame = names[entry["image_id"]].removesuffix("_leftImg8bit.png")
        lines = [line.split(" ") for line in (out / f"{frame}.txt").read_text().splitlines()]
        found = []
        for name, label, score in lines:
            with Image.open(out / name) as mask:
                found.append((int(label), int((np.array(mask) > 0).sum()), float(score)))
        assert sorted(found) == expected
        count += len(found)
    assert count > 10


def test_frames_of_another_size_are_no_submission(predicted, tmp_path, capsys):
    words = ["convert", "from=panoptic", f"from.panoptic_json={predicted}", "to=cityscapes_panoptic"]
    assert main([*words, f"out={tmp_path / 'out'}"]) == 1
    error = capsys.readouterr().err
    assert f"{len(FRAMES)} of {len(FRAMES)} images could not be converted, and nothing was written" in error
    assert f"has size {LARGE}, expected (1024, 2048)" in error
    assert SIZE != LARGE
    assert list(tmp_path.iterdir()) == []
