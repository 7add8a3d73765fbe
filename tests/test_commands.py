"""The commands from end to end, on tiny scenes: train, evaluate, score, predict."""

import json
import math

import cv2
import numpy as np
import pytest

from panoptic.__main__ import main
from panoptic.inference.predictor import Predictor
from panoptic.run_folder import RUN_FOLDER_VARIABLE

pytestmark = pytest.mark.slow

TINY = [
    "experiment=deeperlab_scenes",
    "backbone.name=test_resnet",
    "data.train.length=16",
    "data.val.length=3",
    "data.train.size=[48,64]",
    "data.num_workers=0",
    "trainer.max_epochs=1",
    "scheduler.warmup_steps=0",
    "pictures=2",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, trained once for this file."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(RUN_FOLDER_VARIABLE, raising=False)
        assert main(["train", *TINY, f"run={folder}"]) == 0
        patch.delenv(RUN_FOLDER_VARIABLE, raising=False)
    return folder


def test_a_run_folder_holds_what_is_needed_to_repeat_it(run):
    assert (run / "config.yaml").is_file()
    assert json.loads((run / "environment.json").read_text())["packages"]["torch"]
    assert "val_pq" in (run / "metrics.csv").read_text()
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert len(list((run / "pictures").rglob("*.png"))) >= 2


def test_an_existing_run_folder_is_never_overwritten(run, capsys, monkeypatch):
    monkeypatch.delenv(RUN_FOLDER_VARIABLE, raising=False)
    before = sorted(run.rglob("*"))
    assert main(["train", *TINY, f"run={run}"]) == 1
    assert "exists; a run never overwrites one" in capsys.readouterr().err
    assert sorted(run.rglob("*")) == before


def test_evaluation_equals_the_score_of_the_files_it_writes(run, tmp_path):
    out = tmp_path / "evaluation"
    assert main(["evaluate", f"run={run}", "write_predictions=true", f"out={out}"]) == 0
    report = json.loads((out / "evaluation.json").read_text())
    truth = tmp_path / "truth.json"
    write_truth(truth)
    assert main(["score", str(truth), str(out / "predictions.json"), "--json", str(tmp_path / "score.json")]) == 0
    scored = json.loads((tmp_path / "score.json").read_text())
    for name, value in report["all"].items():
        if value is None or math.isnan(value):
            continue
        assert scored[name] == pytest.approx(value, abs=1e-9), name
    assert len(report["categories"]) == 11


def write_truth(path):
    from panoptic.data.panoptic_writer import PanopticWriter
    from panoptic.data.scenes import Scenes

    scenes = Scenes(split="val", length=3, size=(48, 64), difficulty="easy")
    with PanopticWriter(path, scenes.categories) as writer:
        for index in range(3):
            sample = scenes[index]
            writer.add(sample.panoptic_map, image_id=sample.image_id, image_name=sample.file_name)


def test_predict_writes_maps_and_overlays_at_the_size_of_the_photograph(run, tmp_path):
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (75, 101, 3), dtype=np.uint8)
    cv2.imwrite(str(photographs / "one.jpg"), pixels)
    out = tmp_path / "predictions"
    assert main(["predict", f"run={run}", f"images={photographs}", f"out={out}"]) == 0
    assert cv2.imread(str(out / "panoptic" / "one.png")).shape == (75, 101, 3)
    assert (out / "overlays" / "one.png").is_file()
    entry = json.loads((out / "panoptic.json").read_text())["images"][0]
    assert (entry["height"], entry["width"]) == (75, 101)


def test_three_lines_of_python_predict(run):
    predictor = Predictor.from_checkpoint(run / "checkpoints" / "best.ckpt", device="cpu")
    panoptic_map = predictor(np.zeros((75, 101, 3), dtype=np.uint8))
    assert panoptic_map.size == (75, 101)
    assert all(0 <= segment.category_id < 11 for segment in panoptic_map.segments)


def test_a_truncated_photograph_is_named(run, tmp_path, capsys):
    whole = cv2.imencode(".jpg", np.zeros((75, 101, 3), dtype=np.uint8))[1].tobytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    status = main(["predict", f"run={run}", f"images={tmp_path / 'cut.jpg'}", f"out={tmp_path / 'out'}"])
    assert status == 1
    assert "cut.jpg is damaged" in capsys.readouterr().err


def test_a_second_run_of_one_process_has_its_own_folder(run, tmp_path):
    before = (run / "metrics.csv").read_bytes()
    assert main(["train", *TINY, f"run={tmp_path / 'second'}"]) == 0
    assert (tmp_path / "second" / "metrics.csv").is_file()
    assert (run / "metrics.csv").read_bytes() == before


def test_an_evaluation_that_fails_leaves_no_folder_and_a_good_one_is_kept(run, tmp_path, capsys):
    out = tmp_path / "evaluation"
    command = ["evaluate", f"run={run}", f"out={out}", "pictures=0"]
    assert main([*command, "fusion.score_treshold=0.1"]) == 1
    assert "score_treshold" in capsys.readouterr().err
    assert not out.exists()
    assert main(command) == 0
    report = (out / "evaluation.json").read_bytes()
    assert main(command) == 1
    assert "results are never overwritten; choose another out=" in capsys.readouterr().err
    assert (out / "evaluation.json").read_bytes() == report


def test_changes_of_the_data_reach_the_split_that_is_evaluated(run, tmp_path):
    for length in (1, 2):
        out = tmp_path / str(length)
        command = ["evaluate", f"run={run}", f"out={out}", "split=test", f"data.test.length={length}"]
        assert main([*command, "write_predictions=true", "pictures=0"]) == 0
        assert len(json.loads((out / "predictions.json").read_text())["images"]) == length


def test_a_prediction_that_fails_leaves_no_folder(run, tmp_path):
    (tmp_path / "text.jpg").write_text("no photograph")
    assert main(["predict", f"run={run}", f"images={tmp_path / 'text.jpg'}", f"out={tmp_path / 'out'}"]) == 1
    assert not (tmp_path / "out").exists()


def test_a_training_without_validation_ends_with_its_last_checkpoint(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", *TINY, "trainer.check_val_every_n_epoch=2", f"run={folder}"]) == 0
    assert "there is no best checkpoint" in capsys.readouterr().out
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["last.ckpt"]


def test_a_run_that_cannot_start_leaves_no_folder(tmp_path, capsys):
    assert main(["train", *TINY, "trainer.accelerator=abacus", f"run={tmp_path / 'run'}"]) == 1
    assert "abacus" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_damaged_checkpoint_is_named(run, tmp_path, capsys):
    content = bytearray((run / "checkpoints" / "best.ckpt").read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(content)
    assert main(["evaluate", f"run={run}", f"checkpoint={damaged}", f"out={tmp_path / 'out'}"]) == 1
    assert "damaged.ckpt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "run=/nowhere"], "run folder /nowhere does not exist"),
        (["evaluate"], "give run=..., it has no default"),
        (["predict", "run=/nowhere", "images=/none.jpg"], "no such file"),
        (["predict", "run=/nowhere", "images=[]"], "expected at least one photograph, got an empty list"),
        (["train", "experiment=deeperlab_nuclei"], "give data.root=..., it has no default"),
        (["train", *TINY, "fusion=bottom_up", "heads=semantic"], "fusion do not fit: expected an output 'heatmap'"),
        (["train", *TINY, "backbone.name=resnet_18"], "timm has no model 'resnet_18'"),
        (["train", *TINY, "run=/dev/null/run"], "cannot make the folder /dev/null/run"),
        (["train", "experiment=deeperlab_scenes", "data.train.length=0"], "length"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message, capsys):
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_an_unknown_command_lists_the_commands(capsys):
    assert main(["trian"]) == 2
    error = capsys.readouterr().err
    assert "no command 'trian', did you mean 'train'?" in error
    assert "panoptic train" in error
