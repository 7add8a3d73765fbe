"""Running a sweep on this machine: claim, start, watch, record, until there is no trial left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from panoptic.sweeps.command import command_line
from panoptic.sweeps.engine import next_parameters, trials_to_stop
from panoptic.sweeps.gpus import DEVICES_VARIABLE, dealt, visible_gpus
from panoptic.sweeps.ledger import Ledger, Trial
from panoptic.sweeps.metrics_file import last_values, read_metrics
from panoptic.sweeps.sweep_file import SweepFile
from panoptic.sweeps.trial_process import TrialProcess, kind_of_error

POLL_SECONDS = 0.2
END_SECONDS = 15.0
"""A trial that is ended early has so long between SIGTERM and SIGKILL."""

Report = Callable[[str], None]


@dataclass
class Runner:
    """Runs the trials of a sweep.

    Args:
        sweep: the file.
        ledger: of the folder.
        folder: of the sweep; trials get `trials/<id>/`.
        jobs: trials at a time.
        max_trials: in the ledger, all states together.
        max_failures: equal failures in a row that end the sweep.
        leave_out: environment variables that trials must not inherit.
        report: receives a line for each trial that starts or ends.
    """

    sweep: SweepFile
    ledger: Ledger
    folder: Path
    jobs: int = 1
    max_trials: int | None = None
    max_failures: int = 3
    leave_out: Sequence[str] = ()
    report: Report = print
    running: list[TrialProcess] = field(default_factory=list)
    interrupts: int = 0
    _devices: list[str | None] = field(default_factory=list)
    _failures: list[str] = field(default_factory=list)
    _read: dict[int, tuple[int, int]] = field(default_factory=dict)

    def run(self, watch: Callable[[], None] = lambda: None) -> None:
        """Run until no trial is left, the target is reached, or `interrupt` was called.

        Args:
            watch: called a few times per second.

        Raises:
            ValueError: `max_failures` trials in a row failed with the same error, which the message holds.
        """
        self._devices = dealt(visible_gpus() if self.jobs > 1 else [], self.jobs)
        try:
            while not self.interrupts:
                while len(self.running) < self.jobs and self._start_next():
                    pass
                if not self.running:
                    return
                time.sleep(POLL_SECONDS)
                for process in list(self.running):
                    if (
                        not self.interrupts
                    ):  # a signal to all may have ended it as well; then it has not ended by itself
                        self._look_at(process)
                self._stop_early()
                watch()
        finally:
            self._give_back()

    def interrupt(self) -> None:
        """Give the running trials back and return from `run`; a second call gives them no time to end themselves."""
        self.interrupts += 1

    def _start_next(self) -> bool:
        """Whether there was a trial to start; one that cannot be started is a failed trial."""
        if self._is_target_reached():
            return False
        trial = self.ledger.claim(lambda trials: next_parameters(self.sweep.config, trials), self.max_trials)
        if trial is None:
            return False
        line = command_line(self.sweep.command, self.sweep.program, trial.parameters)
        folder = (self.folder / "trials" / f"{trial.id:04d}").resolve()
        slot = min(set(range(self.jobs)) - {process.slot for process in self.running})
        extra = self._threads() | self._gpus(slot)
        try:
            process = TrialProcess(trial, line, folder, slot=slot, leave_out=self.leave_out, extra=extra)
        except OSError as error:
            self._fail(trial, folder, f"could not be started: {error}")
            return True
        self.running.append(process)
        self.ledger.record(trial, pid=process.pid)
        again = f" (attempt {trial.attempt})" if trial.attempt > 1 else ""
        self.report(f"trial {trial.id}{again}: {_described(trial.parameters)}")
        return True

    def _threads(self) -> dict[str, str]:
        """Trials side by side share the cores."""
        if self.jobs == 1 or "OMP_NUM_THREADS" in os.environ:
            return {}
        return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self.jobs))}

    def _gpus(self, slot: int) -> dict[str, str]:
        devices = self._devices[slot]
        return {} if devices is None else {DEVICES_VARIABLE: devices}

    def _look_at(self, process: TrialProcess) -> None:
        status = process.exit_status()  # before the metrics, so that none is missed
        metrics, history = self._metrics(process)
        if status is None:
            return
        self.running.remove(process)
        trial, metric = process.trial, self.sweep.metric
        if process.is_stopped:  # whatever its status: Lightning exits with 0 after SIGTERM
            self._end(trial, "stopped", metrics=metrics, history=history)
        elif status != 0:
            self._fail(trial, process.folder, process.error(status), metrics=metrics, history=history)
        elif metric is not None and not history:
            error = f"exit status 0, but {process.metrics_file} has no {metric}; it has {sorted(metrics)}"
            self._fail(trial, process.folder, error, metrics=metrics)
        else:
            self._failures.clear()
            self._end(trial, "done", metrics=metrics, history=history)

    def _metrics(self, process: TrialProcess) -> tuple[dict[str, float], list[float]]:
        """Last values and the metric's history; written to the ledger when the history has grown."""
        rows = read_metrics(process.metrics_file)
        history = [row[self.sweep.metric] for row in rows if self.sweep.metric in row] if self.sweep.metric else []
        if self._read.get(process.trial.id) != (process.trial.attempt, len(history)):
            self._read[process.trial.id] = (process.trial.attempt, len(history))
            self.ledger.record(process.trial, metrics=last_values(rows), history=history)
        return last_values(rows), history

    def _stop_early(self) -> None:
        """Ask those to end that the engine stops."""
        if "early_terminate" not in self.sweep.config or not self.running:
            return
        stop = trials_to_stop(self.sweep.config, self.ledger.trials())
        for process in self.running:
            if process.trial.id in stop:
                process.is_stopped = True
                process.ask_to_end()
            process.insist(END_SECONDS)

    def _fail(self, trial: Trial, folder: Path, error: str, **columns: Any) -> None:
        self._end(trial, "failed", error=error, **columns)
        self._failures.append(kind_of_error(error, folder))
        last = self._failures[-self.max_failures :]
        if len(last) == self.max_failures and len(set(last)) == 1:
            raise ValueError(
                f"{self.max_failures} trials in a row failed alike, the last one, {trial.id}, with {error}"
            )

    def _end(self, trial: Trial, state: str, **columns: Any) -> None:
        if not self.ledger.record(trial, state=state, ended=time.time(), **columns):
            self.report(f"trial {trial.id} was taken by another process; this attempt does not count")
            return
        value = columns.get("metrics", {}).get(self.sweep.metric)
        shown = columns.get("error", "").splitlines()[-1:] or (
            [] if value is None else [f"{self.sweep.metric} {value:.4g}"]
        )
        self.report(": ".join([f"trial {trial.id} {state}", *shown]))

    def _is_target_reached(self) -> bool:
        node = self.sweep.config.get("metric", {})
        if "target" not in node:
            return False
        values = [value for trial in self.ledger.trials() for value in trial.history]
        if node.get("goal", "minimize") == "maximize":
            return any(value >= node["target"] for value in values)
        return any(value <= node["target"] for value in values)

    def _give_back(self) -> None:
        """End what still runs and let it be taken again."""
        for process in self.running:
            process.ask_to_end()
        while any(process.exit_status() is None for process in self.running):
            for process in self.running:
                process.insist(0.0 if self.interrupts > 1 else END_SECONDS)
            time.sleep(POLL_SECONDS)
        for process in self.running:
            self.ledger.record(process.trial, state="pending")
        self.running.clear()


def _described(parameters: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in parameters.items())
