"""The score that the best checkpoint is the best of is checked before a run begins."""

import pytest
import torch
from drawn import draw
from tiny_training import TINY, compose

from panoptic.__main__ import main
from panoptic.assembly import check_monitor
from panoptic.structures import FusionResult, Instances

MAP = draw("aab")
NONE = Instances(
    torch.zeros(0).long(), torch.zeros(0, 1, 3).bool(), torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).bool()
)
WITHOUT_INSTANCES = FusionResult(MAP, torch.zeros(1, 3).long())
WITH_INSTANCES = FusionResult(MAP, torch.zeros(1, 3).long(), NONE)


@pytest.mark.parametrize("score", ["val_pq", "val_pc", "val_miou"])
@pytest.mark.parametrize("result", [WITHOUT_INSTANCES, WITH_INSTANCES])
def test_every_fusion_has_these_scores(score, result):
    check_monitor(score, result)


def test_mask_ap_needs_a_fusion_that_returns_instances():
    check_monitor("val_mask_ap", WITH_INSTANCES)
    with pytest.raises(
        ValueError, match="expected monitor to be one of val_pq, val_pc, val_miou with this fusion, got 'val_mask_ap'"
    ):
        check_monitor("val_mask_ap", WITHOUT_INSTANCES)


def test_an_unknown_score_is_refused_before_there_is_a_folder(tmp_path, capsys):
    assert main(["train", *TINY, f"run={tmp_path / 'run'}", "monitor=pq"]) == 1
    assert "expected monitor to be one of val_pq, val_pc, val_miou" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "run").exists()


def test_semantic_experiments_keep_the_best_miou():
    assert compose("experiment=deeplabv3_scenes")["monitor"] == "val_miou"
    assert compose()["monitor"] == "val_pq"
