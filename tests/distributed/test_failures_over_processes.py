"""A process that dies ends the whole run in bounded time, with its error in the output, and the run can go on."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from command_runs import FROZEN, SCRIPTS, TINY, csv_rows, free_port, start

from panoptic.checkpoints import read_checkpoint

pytestmark = pytest.mark.very_slow

MULTINODE = Path(__file__).parents[2] / "scripts" / "multinode.sh"
BOUND = 60
"""Seconds from the failure until no process is left."""
START = 300
ENDLESS = [*TINY, FROZEN, "trainer.max_epochs=1000", "checkpoint_every=1", "pictures=0"]
FAILING = [
    "data.train._target_=failing_scenes.FailingScenes",
    "data.train.length=60",
]


@dataclass
class Run:
    """Two processes of one run.

    Args:
        mark: in the environment of every process of the run.
        starters: the processes that the test started.
        logs: what they said.
        folder: of the run.
    """

    mark: str
    starters: list
    logs: list
    folder: Path

    @property
    def output(self):
        return "".join(log.read_text() for log in self.logs)

    def processes(self):
        """{pid: environment} of all that are left of the run."""
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                variables = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
            except (FileNotFoundError, PermissionError, ProcessLookupError):
                continue
            if f"RUN_MARK={self.mark}" in variables:
                found[int(folder.name)] = dict(word.split("=", 1) for word in variables if "=" in word)
        return found

    def trainer(self, rank):
        """The process of a rank that trains, not what started it."""
        numbers = {
            pid: variables.get("RANK", variables.get("LOCAL_RANK", "0"))
            for pid, variables in self.processes().items()
            if b"torch.distributed" not in commandline(pid) and b"torchrun" not in commandline(pid)
        }
        (pid,) = [pid for pid, number in numbers.items() if number == str(rank)]
        return pid

    def wait_for_steps(self):
        """Until it trains and has something to go on from."""
        end = time.monotonic() + START
        while not list(self.folder.glob("checkpoints/step_*.ckpt")):
            assert self.processes(), self.output
            assert time.monotonic() < end, self.output
            time.sleep(0.1)

    def wait_for_end(self, seconds):
        """Until no process is left; returns what the starters ended with."""
        begin = time.monotonic()
        while self.processes():
            for starter in self.starters:
                starter.poll()
            assert time.monotonic() < begin + seconds, f"{self.processes().keys()} are left\n{self.output}"
            time.sleep(0.1)
        print(f"the last process ended after {time.monotonic() - begin:.1f} s")
        return [starter.wait(1) for starter in self.starters]

    def end(self):
        """Leave nothing behind, also after a test that failed."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        for starter in self.starters:
            starter.wait(10)


def commandline(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


@pytest.fixture
def launch(tmp_path):
    """Starts two processes, of one machine or of two nodes."""
    runs = []

    def begin(kind, *overrides, **own):
        mark, folder = str(uuid4()), tmp_path / "run"
        arguments = [*overrides, f"run={folder}"]
        commands = [[SCRIPTS / "panoptic", "train", "trainer=ddp", "trainer.devices=2", *arguments]]
        if kind == "nodes":
            options = ["--nodes", 2, "--processes", 1, "--master", f"127.0.0.1:{free_port()}"]
            commands = [[MULTINODE, *options, "--rank", rank, *arguments] for rank in range(2)]
        logs = [tmp_path / f"{kind} {len(runs)} {number}.txt" for number in range(len(commands))]
        own |= {"RUN_MARK": mark, "PATH": f"{SCRIPTS}:{os.environ['PATH']}"}
        starters = [start(command, log, **own) for command, log in zip(commands, logs, strict=True)]
        runs.append(Run(mark, starters, logs, folder))
        return runs[-1]

    yield begin
    for run in runs:
        run.end()


@pytest.mark.parametrize("kind", ["launcher", "nodes"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_all_and_the_run_goes_on(launch, kind, rank):
    run = launch(kind, *ENDLESS)
    run.wait_for_steps()
    os.kill(run.trainer(rank), signal.SIGKILL)
    statuses = run.wait_for_end(BOUND)
    assert all(statuses), run.output
    assert any(word in run.output for word in ("SIGKILL", "code -9", "Connection closed", "Connection reset"))
    logged = [int(row["step"]) for row in csv_rows(run.folder) if row["train_loss"]]
    again = launch(kind, *ENDLESS, "resume=auto", "accept_changes=true", f"trainer.max_steps={logged[-1] + 3}")
    assert not any(again.wait_for_end(START)), again.output
    assert "going on from step" in again.output
    steps = [int(row["step"]) for row in csv_rows(run.folder) if row["train_loss"]]
    assert steps == list(range(logged[-1] + 3))


@pytest.mark.parametrize("kind", ["launcher", "nodes"])
@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_one_process_ends_all_and_is_shown(launch, kind, rank):
    run = launch(kind, *TINY, *FAILING, FAILING_RANK=str(rank))
    end = time.monotonic() + START
    while f"of rank {rank} cannot be read" not in run.output:
        assert run.processes() or f"of rank {rank} cannot be read" in run.output, run.output
        assert time.monotonic() < end, run.output
        time.sleep(0.1)
    statuses = run.wait_for_end(BOUND)
    assert all(statuses), run.output


def test_a_process_that_waits_for_one_that_hangs_ends_after_the_time_that_is_set(launch):
    limit = ["trainer.strategy.timeout.minutes=0", "trainer.strategy.timeout.seconds=20"]
    run = launch("launcher", *TINY, *FAILING, *limit, SLEEPING_RANK="1")
    assert run.starters[0].wait(START), run.output
    assert "Timed out waiting 20000ms" in run.output


@pytest.mark.parametrize(("kind", "rank"), [("launcher", 0), ("launcher", 1), ("nodes", 1)])
def test_a_signal_to_one_process_ends_all_at_the_same_step_with_a_checkpoint(launch, kind, rank):
    run = launch(kind, *ENDLESS)
    run.wait_for_steps()
    os.kill(run.trainer(rank), signal.SIGTERM)
    statuses = run.wait_for_end(BOUND)
    assert all(statuses), run.output
    assert kind == "nodes" or statuses == [128 + signal.SIGTERM]
    last = run.folder / "checkpoints" / "last.ckpt"
    step = read_checkpoint(last)["global_step"]
    assert run.output.count(f"stopped by SIGTERM at step {step}; resume=auto goes on from {last}") == 2, run.output
