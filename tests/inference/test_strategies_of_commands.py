"""`output_stride`, `scales` and `flip` of `panoptic evaluate`, `predict` and `train`."""

import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from training.tiny_training import data_and_module, plain_trainer
from untrained_runs import write_run

from panoptic.__main__ import main
from panoptic.data.panoptic_format import read_panoptic_json, read_panoptic_map
from panoptic.inference.predictor import Predictor
from panoptic.inference.test_time import TestTime as Strategy
from panoptic.models.output_stride import output_stride_of

pytestmark = pytest.mark.slow

SEMANTIC = ["heads=semantic", "fusion=semantic"]
SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "inference_table.py"))
ROWS = {
    "plain": [],
    "os8": ["output_stride=8"],
    "os8_ms": ["output_stride=8", "scales=[0.5,1.0,1.5]"],
    "os8_ms_flip": ["output_stride=8", "scales=[0.5,1.0,1.5]", "flip=true"],
}
"""The rows of DeepLabv3's Table 6."""


def sharpen(module):
    """Probabilities that differ from pixel to pixel, of an untrained network."""
    torch.nn.init.normal_(module.network.heads["semantic"].layers[-1].weight, std=0.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of a semantic network, untrained."""
    folder = tmp_path_factory.mktemp("runs") / "semantic"
    module = write_run(folder, *SEMANTIC)
    sharpen(module)
    path = folder / "checkpoints" / "best.ckpt"
    torch.save({**torch.load(path, weights_only=False), "state_dict": module.state_dict()}, path)
    return folder


@pytest.fixture(scope="module")
def evaluations(run, tmp_path_factory):
    """{row of the table: output folder}."""
    folder = tmp_path_factory.mktemp("evaluations")
    for name, words in ROWS.items():
        command = ["evaluate", f"run={run}", f"out={folder / name}", "pictures=0", "write_predictions=true", *words]
        assert main(command) == 0
    return {name: folder / name for name in ROWS}


def report_of(folder):
    return json.loads((folder / "evaluation.json").read_text())


@pytest.mark.slow
def test_an_evaluation_says_with_which_options_it_was_made(evaluations, run):
    options = {name: report_of(folder)["options"] for name, folder in evaluations.items()}
    assert [each["output_stride"] for each in options.values()] == [None, 8, 8, 8]
    assert [each["scales"] for each in options.values()] == [[1.0], [1.0], [0.5, 1.0, 1.5], [0.5, 1.0, 1.5]]
    assert [each["flip"] for each in options.values()] == [False, False, False, True]
    assert options["plain"]["run"] == str(run)
    assert options["plain"]["split"] == "val"
    assert options["plain"]["fusion"] == {}


@pytest.mark.slow
def test_evaluation_scores_what_a_predictor_with_the_strategy_sees(evaluations, run):
    strategies = {
        "plain": Strategy(),
        "os8": Strategy(output_stride=8),
        "os8_ms": Strategy(8, (0.5, 1.0, 1.5)),
        "os8_ms_flip": Strategy(8, (0.5, 1.0, 1.5), True),
    }
    data, _ = data_and_module(*SEMANTIC, "data.val.length=1")
    found = {}
    for name, strategy in strategies.items():
        file = read_panoptic_json(evaluations[name] / "predictions.json")
        predicted = read_panoptic_map(file, next(iter(file.annotations.values())))
        expected = Predictor.from_run(run, infer=strategy, device="cpu")(data.val[0].image)
        found[name] = categories_of(predicted)
        assert np.array_equal(found[name], categories_of(expected))
    assert all(not np.array_equal(found["plain"], found[name]) for name in ("os8", "os8_ms", "os8_ms_flip"))


def categories_of(panoptic_map):
    """(H, W) category of every pixel."""
    category_of = {segment.id: segment.category_id for segment in panoptic_map.segments}
    return np.vectorize(category_of.get)(panoptic_map.segment_ids.numpy())


@pytest.mark.slow
def test_four_evaluations_make_one_table(evaluations, capsys):
    assert SCRIPT["main"]([str(folder) for folder in evaluations.values()]) == 0
    header, rule, *rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert header == ["run", "output stride", "scales", "flip", "mIoU", "PQ"]
    assert rule == ["---"] * 6
    scores = [report_of(folder)["all"] for folder in evaluations.values()]
    assert [row[:4] for row in rows] == [
        ["semantic", "as trained", "1", "no"],
        ["semantic", "8", "1", "no"],
        ["semantic", "8", "0.5 1 1.5", "no"],
        ["semantic", "8", "0.5 1 1.5", "yes"],
    ]
    assert [row[4:] for row in rows] == [[f"{100 * each['miou']:.2f}", f"{100 * each['pq']:.2f}"] for each in scores]


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (None, "evaluation.json does not exist; give the output folder of a panoptic evaluate"),
        ({"all": {}}, "does not say with which options it was made; evaluate the run again"),
    ],
)
def test_a_table_of_what_is_no_evaluation_is_an_error(tmp_path, capsys, report, message):
    if report is not None:
        (tmp_path / "evaluation.json").write_text(json.dumps(report))
    assert SCRIPT["main"]([str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_printed_title_says_what_differs_from_plain_inference(run, tmp_path, capsys):
    command = ["evaluate", f"run={run}", "pictures=0", "data.val.length=1"]
    assert main([*command, f"out={tmp_path / 'plain'}"]) == 0
    assert "best.ckpt:val┏" in without_blanks(capsys.readouterr().out)
    assert main([*command, f"out={tmp_path / 'other'}", "output_stride=32", "scales=[0.5,2]", "flip=true"]) == 0
    assert "best.ckpt:val,outputstride32,scales0.52,flip┏" in without_blanks(capsys.readouterr().out)


def without_blanks(text):
    """A long title is wrapped anywhere."""
    return "".join(text.split())


@pytest.mark.slow
def test_predict_writes_what_a_predictor_with_the_strategy_sees(run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), pixels[..., ::-1])
    command = ["predict", f"run={run}", f"images={tmp_path / 'photo.png'}", f"out={tmp_path / 'out'}"]
    assert main([*command, "output_stride=8", "scales=[0.75,1.0]", "flip=true"]) == 0
    file = read_panoptic_json(tmp_path / "out" / "panoptic.json")
    found = read_panoptic_map(file, file.annotations[0])
    expected = Predictor.from_run(run, infer=Strategy(8, (0.75, 1.0), True), device="cpu")(pixels)
    assert np.array_equal(categories_of(found), categories_of(expected))
    assert not np.array_equal(categories_of(found), categories_of(Predictor.from_run(run, device="cpu")(pixels)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scales=[]"], "expected scales as positive numbers, such as [0.75,1.0,1.25], got []"),
        (["scales=[1.0,0]"], "expected scales as positive numbers, such as [0.75,1.0,1.25], got [1.0, 0]"),
        (["scales=[nan]"], "expected scales as positive numbers, such as [0.75,1.0,1.25], got [nan]"),
        (["scales=[half]"], "expected scales as positive numbers, such as [0.75,1.0,1.25], got ['half']"),
        (["scales=0.5"], "expected a list for scales, got 0.5"),
        (["flip=left"], "expected true or false for flip, got 'left'"),
        (["output_stride=eight"], "expected output_stride as a power of 2 in pixels, or null, got 'eight'"),
        (["output_stride=7"], "expected output_stride as a power of 2 in pixels, or null, got 7"),
        (["output_stride=512"], "output_stride=512 is not for this network: "),
        (["scale=[0.5]"], "'scale' is not a key, did you mean 'scales'?"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_options_that_make_no_sense_are_one_clear_line(run, tmp_path, capsys, command, words, message):
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((37, 51, 3), dtype=np.uint8))
    images = [f"images={tmp_path / 'photo.png'}"] if command == "predict" else []
    assert main([command, f"run={run}", f"out={tmp_path / 'out'}", *images, *words]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_perfect_head_and_an_average_of_it_contradict_each_other(run, tmp_path, capsys):
    command = ["evaluate", f"run={run}", f"out={tmp_path / 'out'}", "perfect=[semantic]"]
    assert main([*command, "flip=true"]) == 1
    message = "perfect=[semantic] puts the ground truth in place of what scales and flip average; leave one of them out"
    assert message in capsys.readouterr().err


def test_a_run_without_a_semantic_head_has_nothing_to_average(tmp_path, capsys):
    folder = tmp_path / "instances"
    write_run(folder, "heads=mask_rcnn_small", "fusion=instances", "decoder=fpn_small", "backbone.output_stride=32")
    command = ["evaluate", f"run={folder}", f"out={tmp_path / 'out'}", "flip=true"]
    assert main(command) == 1
    assert "are of the head 'semantic', but the network has ['instances']" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["evaluate.output_stride=8"], ["evaluate.scales=[0.5,1.0]", "evaluate.flip=true"]])
def test_validation_by_a_strategy_leaves_the_training_as_it_is(words):
    found = []
    for overrides in ([], words):
        data, module = data_and_module(*SEMANTIC, "data.val.length=1", *overrides)
        sharpen(module)
        plain_trainer(limit_val_batches=1, val_check_interval=1, num_sanity_val_steps=1).fit(module, datamodule=data)
        assert output_stride_of(module.network) == 16
        found.append((module.network.state_dict(), module.val_losses.compute()["semantic_cross_entropy"]))
    (plain, plain_loss), (other, other_loss) = found
    assert all(torch.equal(value, other[name]) for name, value in plain.items())
    assert plain_loss != other_loss


def test_an_output_stride_that_a_network_cannot_have_is_refused_before_training():
    with pytest.raises(ValueError, match="need a backbone of output_stride 32, got 16"):
        data_and_module("experiment=oanet_scenes", "evaluate.output_stride=16")
