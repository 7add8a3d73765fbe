"""Profilers write their reports of a real run into a folder."""

import pytest
from tiny_training import data_and_module, plain_trainer

from panoptic.training.profilers import PROFILERS, profiler_of

EXPECTED = {"simple": "run_training_batch", "advanced": "function calls", "pytorch": "aten::convolution"}


@pytest.mark.slow
@pytest.mark.parametrize("choice", sorted(PROFILERS))
def test_a_profiler_reports_a_training_into_its_folder(choice, tmp_path):
    data, module = data_and_module("heads=semantic", "fusion=semantic")
    plain_trainer(profiler=profiler_of(choice, tmp_path / "profile")).fit(module, datamodule=data)
    assert EXPECTED[choice] in (tmp_path / "profile" / "fit-report.txt").read_text()


def test_no_profiler_unless_it_is_asked_for(tmp_path):
    assert profiler_of(None, tmp_path) is None


def test_an_unknown_profiler_lists_those_there_are(tmp_path):
    message = r"expected trainer.profiler null or one of \['advanced', 'pytorch', 'simple'\], got 'fast'"
    with pytest.raises(ValueError, match=message):
        profiler_of("fast", tmp_path)
