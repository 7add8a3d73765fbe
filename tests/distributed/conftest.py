"""The processes that the tests of this folder share."""

import pytest
from gloo_processes import GlooProcesses


@pytest.fixture(scope="session")
def gloo():
    processes = GlooProcesses(limit=3)
    yield processes
    processes.close()
