"""`panoptic evaluate perfect=[...]`: heads that the ground truth stands in for."""

import json
import re

import pytest
from untrained_runs import write_run

from panoptic.__main__ import main

pytestmark = pytest.mark.slow

OANET = [
    "experiment=oanet_scenes",
    "decoder.filters=16",
    "heads.semantic.branch.filters=32",
    "data.val.difficulty=easy",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "oanet"
    write_run(folder, *OANET)
    return folder


def scores(run, out, *words):
    assert main(["evaluate", f"run={run}", f"out={out}", "pictures=0", *words]) == 0
    report = json.loads((out / "evaluation.json").read_text())
    return report["all"]


def test_a_network_whose_heads_make_no_mistake_finds_everything(run, tmp_path):
    own = scores(run, tmp_path / "own")
    perfect = scores(run, tmp_path / "perfect", "perfect=[semantic,instances,ranking]", "fusion.min_area=0")
    assert own["pq"] < 0.1
    assert perfect["pq"] > 0.9
    assert perfect["semantic_map_miou"] == pytest.approx(1, abs=0.02)
    assert perfect["mask_ap"] == pytest.approx(1)


def test_one_perfect_head_changes_what_is_its_own(run, tmp_path):
    own = scores(run, tmp_path / "own")
    semantic = scores(run, tmp_path / "semantic", "perfect=[semantic]")
    instances = scores(run, tmp_path / "instances", "perfect=[instances]")
    assert semantic["semantic_map_miou"] > 0.95
    assert semantic["mask_ap"] == own["mask_ap"]
    assert instances["mask_ap"] == pytest.approx(1)
    assert instances["semantic_map_miou"] == own["semantic_map_miou"]


def test_a_head_that_reads_a_perfect_one_runs_again(run, tmp_path):
    # one mask of a class that meets another: only a ranking of the perfect masks can be read for them
    assert scores(run, tmp_path / "out", "perfect=[instances,semantic]")["pq_things"] > 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["perfect=[depth]"],
            r"no heads \['depth'\] to be perfect, the network has \['instances', 'ranking', 'semantic'\]",
        ),
        (["perfect=[semantic]", "with_run=elsewhere"], "leave with_run= out"),
    ],
)
def test_what_cannot_be_perfect_is_named(run, tmp_path, capsys, words, message):
    assert main(["evaluate", f"run={run}", f"out={tmp_path / 'out'}", *words]) == 1

    assert re.search(message, capsys.readouterr().err)
