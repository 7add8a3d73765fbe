"""The trainings that interrupted ones are compared with, each trained once."""

import pytest
from killed_training import end_of, train


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """A function that gives the end of the uninterrupted training with some overrides."""
    ends = {}

    def end(*overrides):
        if overrides not in ends:
            folder = tmp_path_factory.mktemp("whole") / "run"
            assert train(folder, *overrides) == 0
            ends[overrides] = end_of(folder)
        return ends[overrides]

    return end


@pytest.fixture(scope="session")
def whole(uninterrupted):
    """The end of the one without overrides."""
    return uninterrupted()
