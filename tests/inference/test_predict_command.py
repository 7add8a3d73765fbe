"""`panoptic predict` against one image after another, and what it leaves when it does not end."""

import json
import signal
import threading

import cv2
import pytest

from panoptic.__main__ import main
from panoptic.data.panoptic_format import check_files, read_panoptic_json
from panoptic.data.panoptic_writer import PanopticWriter
from panoptic.drawing import overlay
from panoptic.inference.predictor import Predictor, as_image

pytestmark = pytest.mark.slow


@pytest.fixture
def predict(random_predictor, photographs, tmp_path, monkeypatch):
    """Run the command on the photographs; returns the exit status and the folder."""
    monkeypatch.setattr(Predictor, "from_run", lambda run, checkpoint, **options: random_predictor)
    out = tmp_path / "out"

    def run(*words, images=photographs[0].parent):
        return main(["predict", "run=any", f"images={images}", f"out={out}", *words]), out

    return run


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_are_those_of_one_image_after_another(predict, random_predictor, photographs, tmp_path, capsys):
    status, out = predict("fusion_threads=3")
    assert status == 0
    expected = tmp_path / "expected"
    (expected / "overlays").mkdir(parents=True)
    with PanopticWriter(expected / "panoptic.json", random_predictor.categories) as writer:
        for number, path in enumerate(photographs):
            panoptic_map = random_predictor(path)
            writer.add(panoptic_map, image_id=number, image_name=path.name)
            picture = overlay(as_image(path), panoptic_map, random_predictor.categories)
            cv2.imwrite(str(expected / "overlays" / f"{path.stem}.png"), picture[..., ::-1])
    assert contents(out) == contents(expected)
    printed = capsys.readouterr().out
    assert "8/8" in printed  # the progress bar
    assert "images per second; at work: reading" in printed
    assert "of 3 threads" in printed


def test_images_may_be_named_by_their_files_as_benchmarks_ask(predict, photographs):
    status, out = predict("image_ids=name")
    assert status == 0
    file = read_panoptic_json(out / "panoptic.json")
    check_files(file)
    assert list(file.annotations) == [path.stem for path in photographs]
    assert [annotation.png_name for annotation in file.annotations.values()] == [path.name for path in photographs]


def test_the_input_may_have_another_size_than_in_training(predict, random_predictor, photographs, monkeypatch):
    sizes = []
    forward = random_predictor.forward
    monkeypatch.setattr(random_predictor, "resize", random_predictor.resize)  # put back at the end
    monkeypatch.setattr(random_predictor, "forward", lambda prepared: sizes.append(prepared.size) or forward(prepared))
    assert predict("longest_side=33")[0] == 0
    assert [max(size) for size in sizes] == [33] * len(photographs)


@pytest.mark.parametrize("value", ["33.5", "half", "true"])
def test_a_size_that_is_no_whole_number_is_refused(predict, capsys, value):
    assert predict(f"longest_side={value}")[0] == 1
    assert "expected a whole number for longest_side, got" in capsys.readouterr().err


def test_another_way_to_name_images_is_refused(predict, capsys):
    status, out = predict("image_ids=hash")
    assert status == 1
    assert "expected image_ids=number or name, got 'hash'" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("place", [0, 3, 7])
def test_a_file_that_cannot_be_read_is_named_and_leaves_no_folder(predict, photographs, capsys, place):
    photographs[place].write_text("no photograph")
    status, out = predict()
    assert status == 1
    assert f"{photographs[place].name} is not an image that can be read" in capsys.readouterr().err
    assert not out.exists()


def test_a_picture_that_cannot_be_written_is_an_error(predict, capsys, monkeypatch):
    monkeypatch.setattr(cv2, "imwrite", lambda *_: False)
    status, out = predict()
    assert status == 1
    assert "could not write" in capsys.readouterr().err
    assert not out.exists()


def test_ctrl_c_ends_the_threads_and_leaves_no_folder(predict, random_predictor, capsys, monkeypatch):
    forward, calls = random_predictor.forward, []

    def interrupted(prepared):
        calls.append(prepared)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)
        return forward(prepared)

    monkeypatch.setattr(random_predictor, "forward", interrupted)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        status, out = predict()
    finally:
        signal.signal(signal.SIGINT, handler)
    assert status == 130
    assert "panoptic predict: interrupted" in capsys.readouterr().err
    assert len(calls) == 4
    assert not out.exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("reading", "fusion", "writing"))]


def test_categories_are_written_with_the_numbers_of_their_data_set(random_predictor, predict):
    _, out = predict()
    written = json.loads((out / "panoptic.json").read_text())
    numbers = {category.name: category.dataset_category_id or category.id for category in random_predictor.categories}
    assert {entry["name"]: entry["id"] for entry in written["categories"]} == numbers
    used = {info["category_id"] for entry in written["annotations"] for info in entry["segments_info"]}
    assert used <= set(numbers.values())
    assert all(entry["segments_info"] for entry in written["annotations"])
