"""The process of one trial: its environment, its log, its end, and what a dead sweep left running."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from panoptic.sweeps.command import resumes, trial_line
from panoptic.sweeps.ledger import Trial

FOLDER_VARIABLE = "PANOPTIC_TRIAL_FOLDER"
"""In a trial's environment: its folder. Every process of the trial is known by it."""

RUN_VARIABLE = "PANOPTIC_TRIAL_RUN"
"""In a trial's environment: the folder for what this attempt makes; its metrics.csv is read. The program makes it.

A program that goes on where the last attempt ended has one folder for all attempts."""

_ERROR_LINES = 20
_AFTER_ERRORS = re.compile(r"\(PANOPTIC_TRACEBACK=1|(\x1b\[[\d;]*m)*wandb(\x1b\[[\d;]*m)*:")
"""The hint that follows an error of this package, and what W&B says at the end of each run, with the run's own id."""


class TrialProcess:
    """A started trial.

    Args:
        trial: as claimed.
        line: its command line.
        folder: of the trial.
        slot: which of those that run side by side it is, from 0.
        leave_out: environment variables that the trial must not inherit.
        extra: environment variables beside those that it inherits.
    """

    def __init__(
        self,
        trial: Trial,
        line: Sequence[str],
        folder: Path,
        *,
        slot: int = 0,
        leave_out: Sequence[str] = (),
        extra: Mapping[str, str] | None = None,
    ) -> None:
        suffix = "" if trial.attempt == 1 else f"_{trial.attempt}"
        self.trial = trial
        self.folder = folder
        self.slot = slot
        self.log = folder / f"log{suffix}.txt"
        run = folder / ("run" if resumes(line) else f"run{suffix}")
        self.metrics_file = run / "metrics.csv"
        self.is_stopped = False  # by the engine
        self._asked: float | None = None
        folder.mkdir(parents=True, exist_ok=True)
        kill_processes_of(folder)
        environment = {key: value for key, value in os.environ.items() if key not in leave_out}
        environment |= {**(extra or {}), FOLDER_VARIABLE: str(folder), RUN_VARIABLE: str(run)}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                trial_line(line, run),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env=environment, start_new_session=True,
            )  # fmt: skip
        self.pid = self._process.pid

    def exit_status(self) -> int | None:
        """None while it runs; what it left running is ended with it."""
        status = self._process.poll()
        if status is not None:
            kill_processes_of(self.folder)
        return status

    def ask_to_end(self) -> None:
        """SIGTERM, once, to the process that was started: those that it has started are its own to end."""
        if self._asked is None:
            self._asked = time.monotonic()
            self._process.terminate()

    def insist(self, seconds: float) -> None:
        """SIGKILL to all its processes, if they were asked to end so many seconds ago."""
        if self._asked is not None and time.monotonic() - self._asked >= seconds:
            kill_processes_of(self.folder)

    def error(self, status: int) -> str:
        """The exit status and the last lines of the log, which are the error's."""
        how = f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
        written = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        lines = [line for line in written if not _AFTER_ERRORS.match(line)] or written
        return "\n".join([f"{how}; the end of {self.log}:", *lines[-_ERROR_LINES:]])


def kind_of_error(error: str, folder: Path) -> str:
    """What errors of different trials have in common: the last line without the trial's folder and without numbers."""
    return re.sub(r"\d+", "#", error.splitlines()[-1].replace(str(folder), ""))


def processes_of(folder: Path) -> list[int]:
    """Ids of the processes whose environment says that they belong to the trial of a folder (Linux: from /proc)."""
    mark = f"{FOLDER_VARIABLE}={folder}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0") and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue  # it has ended, or is another user's
    return found


def kill_processes_of(folder: Path, *, seconds: float = 30.0) -> None:
    """End every process of a trial's folder, and wait until they have ended.

    Raises:
        OSError: they do not end, as a process that waits for a broken disk.
    """
    end = time.monotonic() + seconds
    while pids := processes_of(folder):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            raise OSError(f"processes {pids} of the trial in {folder} do not end; end them and start again")
        time.sleep(0.02)
