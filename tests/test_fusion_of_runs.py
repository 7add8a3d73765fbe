"""`panoptic evaluate` and `panoptic predict` with another fusion than the run's, and with the networks of two runs."""

import json

import cv2
import numpy as np
import pytest
import torch
from untrained_runs import write_run

from panoptic.__main__ import main
from panoptic.configuration import load_config, options_and_fusion, resolved, with_fusion
from panoptic.data.panoptic_format import read_panoptic_json, read_panoptic_map
from panoptic.data.scenes import CATEGORIES, Scenes
from panoptic.fusion.bottom_up import fuse_bottom_up
from panoptic.models.network import ImageOutputs
from panoptic.structures import STAR

INSTANCE_HEADS = "[heatmap,short_range,middle_range,long_range]"


def changed(config, *overrides):
    _, fusion = options_and_fusion(load_config("evaluate", ["run=any", *overrides]))
    return with_fusion(config, fusion)["fusion"]


@pytest.fixture(scope="module")
def config():
    return resolved(load_config("train", ["fusion=bottom_up_small", "keypoints.radius=7.5"]))


def test_without_a_change_the_fusion_is_the_runs(config):
    assert changed(config) == config["fusion"]


def test_a_key_changes_one_option_of_the_runs_fusion(config):
    assert changed(config, "fusion.score_threshold=0.7") == {**config["fusion"], "score_threshold": 0.7}
    assert config["fusion"]["score_threshold"] == 0.2


def test_another_fusion_comes_with_its_defaults_and_reads_the_runs_other_nodes(config):
    assert changed(config, "fusion=semantic") == {
        "_target_": "panoptic.fusion.semantic.fuse_semantic",
        "_partial_": True,
    }
    without_threshold = {key: value for key, value in config["fusion"].items() if key != "score_threshold"}
    assert without_threshold["radius"] == 7.5
    assert changed(config, "fusion=bottom_up") == without_threshold
    assert changed(config, "fusion=bottom_up", "fusion.min_area=5") == {**without_threshold, "min_area": 5}


def test_a_fusion_of_the_users_own_replaces_the_runs(config):
    found = changed(config, "fusion._target_=mine.fuse_mine", "fusion.depth=3")
    assert found == {"_target_": "mine.fuse_mine", "_partial_": True, "depth": 3}


def test_the_configuration_of_the_run_is_kept(config):
    changed_config = with_fusion(config, {"score_threshold": 0.7})
    assert {**changed_config, "fusion": None} == {**config, "fusion": None}


def test_a_misspelt_fusion_names_the_nearest():
    with pytest.raises(ValueError, match=r"no fusion 'semantics', did you mean 'semantic'\?"):
        load_config("evaluate", ["run=any", "fusion=semantics"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders and modules of a semantic run and a whole DeeperLab, with random weights."""
    folder = tmp_path_factory.mktemp("runs")
    semantic = write_run(folder / "semantic", "heads=semantic", "fusion=semantic", seed=1)
    deeperlab = write_run(folder / "deeperlab", "fusion=bottom_up_small", seed=2)
    return {"semantic": (folder / "semantic", semantic), "deeperlab": (folder / "deeperlab", deeperlab)}


@torch.no_grad()
def fused_by_hand(runs, image):
    """Bottom-up fusion of one run's semantic map and the other's instance heads; the network takes 16k + 1."""
    height, width = image.shape[-2:]
    padded = torch.zeros(1, 3, height + -(height - 1) % 16, width + -(width - 1) % 16, dtype=torch.uint8)
    padded[0, :, :height, :width] = image
    semantic, deeperlab = (runs[name][1].network(padded, [(height, width)])[0] for name in ("semantic", "deeperlab"))
    outputs = ImageOutputs({**deeperlab, "semantic": semantic["semantic"]}, 0, (height, width))
    return fuse_bottom_up(outputs, CATEGORIES, graph=STAR, radius=6.0, score_threshold=0.0).panoptic_map


def canonical(panoptic_map):
    """(H, W, 2): category and first pixel of every pixel's segment, whatever the ids are."""
    ids = panoptic_map.segment_ids
    firsts = {s.id: int((ids == s.id).flatten().nonzero()[0]) for s in panoptic_map.segments if (ids == s.id).any()}
    named = {s.id: (s.category_id, firsts.get(s.id, -1)) for s in panoptic_map.segments} | {0: (-1, -1)}
    return np.array([[named[value] for value in row] for row in ids.tolist()])


TWO_RUNS = ["fusion=bottom_up", "fusion.score_threshold=0.0", f"with_heads={INSTANCE_HEADS}"]


@pytest.mark.slow
def test_evaluation_fuses_the_outputs_of_two_runs(runs, tmp_path):
    out = tmp_path / "out"
    command = ["evaluate", f"run={runs['semantic'][0]}", f"with_run={runs['deeperlab'][0]}", f"out={out}", *TWO_RUNS]
    assert main([*command, "write_predictions=true", "pictures=0"]) == 0
    file = read_panoptic_json(out / "predictions.json")
    scenes = Scenes(split="val", length=2, size=(48, 64), difficulty="easy")
    found = [read_panoptic_map(file, annotation) for annotation in file.annotations.values()]
    assert len(found) == 2
    for index, panoptic_map in enumerate(found):
        assert np.array_equal(canonical(panoptic_map), canonical(fused_by_hand(runs, scenes[index].image)))
    assert any(CATEGORIES[segment.category_id].is_thing for segment in found[0].segments)
    assert json.loads((out / "evaluation.json").read_text())["all"]["pq"] is not None


@pytest.mark.slow
def test_prediction_fuses_the_outputs_of_two_runs(runs, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), pixels[..., ::-1])
    out = tmp_path / "out"
    command = ["predict", f"run={runs['semantic'][0]}", f"with_run={runs['deeperlab'][0]}", f"out={out}", *TWO_RUNS]
    assert main([*command, f"images={tmp_path / 'photo.png'}"]) == 0
    file = read_panoptic_json(out / "panoptic.json")
    found = read_panoptic_map(file, file.annotations[0])
    expected = fused_by_hand(runs, torch.from_numpy(pixels).permute(2, 0, 1))
    assert np.array_equal(canonical(found), canonical(expected))


@pytest.mark.slow
def test_prediction_with_another_fusion(runs, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), pixels)
    command = ["predict", f"run={runs['deeperlab'][0]}", f"images={tmp_path / 'photo.png'}", f"out={tmp_path / 'out'}"]
    assert main([*command, "fusion=semantic"]) == 0
    file = read_panoptic_json(tmp_path / "out" / "panoptic.json")
    category_ids = [segment.category_id for segment in file.annotations[0].segments]
    assert len(set(category_ids)) == len(category_ids)  # one segment per category


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fusion=bottom_up"], "heads ['semantic'] and fusion do not fit: expected an output 'heatmap'"),
        (["with_run={deeperlab}"], "both runs have heads ['semantic']"),
        (["with_run={deeperlab}", "with_heads=[mask]"], "expected with_heads to name heads of"),
        (["with_heads=[heatmap]"], "with_heads=['heatmap'] is of a second run; give with_run=<folder> too"),
        (["with_run=/nowhere"], "run folder /nowhere does not exist"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_runs_that_do_not_fit_are_one_clear_line(runs, tmp_path, capsys, command, words, message):
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((37, 51, 3), dtype=np.uint8))
    given = [word.format(deeperlab=runs["deeperlab"][0]) for word in words]
    images = [f"images={tmp_path / 'photo.png'}"] if command == "predict" else []
    assert main([command, f"run={runs['semantic'][0]}", f"out={tmp_path / 'out'}", *images, *given]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def instance_runs(tmp_path_factory):
    """Folders of a Fusion Scheme, and of its Mask R-CNN alone, with random weights."""
    folder = tmp_path_factory.mktemp("instance_runs")
    pyramid = ["decoder=fpn_small", "backbone.output_stride=32"]
    write_run(folder / "both", "heads=fusion_scheme_small", "fusion=detection_score", *pyramid, seed=1)
    write_run(folder / "instances", "heads=mask_rcnn_small", "fusion=instances", *pyramid, seed=2)
    return folder


def evaluated(out, *words):
    assert main(["evaluate", *words, f"out={out}", "pictures=0"]) == 0
    return json.loads((out / "evaluation.json").read_text())


@pytest.mark.slow
def test_mask_ap_and_miou_before_and_after_are_two_evaluations_of_one_run(instance_runs, tmp_path, capsys):
    run = f"run={instance_runs / 'both'}"
    before = evaluated(tmp_path / "before", run)
    assert "instances and semantic map" in capsys.readouterr().out
    after = evaluated(tmp_path / "after", run, "fusion=region_growing")
    for report in (before, after):
        assert {"mask_ap", "mask_ap50", "semantic_map_miou"} <= set(report["all"])
        assert {"mask_ap", "mask_ap50", "semantic_map_iou"} <= set(report["categories"][0])
    without = evaluated(tmp_path / "without", run, "fusion=semantic")
    assert "mask_ap" not in without["all"]
    # the semantic map before the fusion is the network's own, of which `fuse_semantic` makes its panoptic map
    assert before["all"]["semantic_map_miou"] == pytest.approx(without["all"]["miou"])


@pytest.mark.slow
def test_a_semantic_run_is_fused_with_a_mask_rcnn_that_was_trained_apart(runs, instance_runs, tmp_path):
    words = [f"run={runs['semantic'][0]}", f"with_run={instance_runs / 'instances'}"]
    report = evaluated(tmp_path / "out", *words, "fusion=region_growing")
    assert report["all"]["mask_ap"] is not None
    assert report["all"]["semantic_map_miou"] is not None
