"""`panoptic sweep FILE`: run a W&B sweep file on this machine, without a server."""

from __future__ import annotations

import argparse
import shlex
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from panoptic.sweeps.ledger import Ledger
    from panoptic.sweeps.runner import Runner
    from panoptic.sweeps.sweep_file import SweepFile

# The imports within functions take up to a second; without them `--help` answers at once.

_SHOWN = 100
"""Trials that `--dry-run` lists."""


def main(argv: Sequence[str]) -> int:
    """Run the sweep; 0 if no trial failed, 1 if some did, 130 if it was interrupted."""
    options = _parser().parse_args(argv)

    from panoptic.configuration import load_config
    from panoptic.sweeps.sweep_file import read_sweep_file

    sweep = read_sweep_file(options.file, load_config)
    folder = (options.folder or Path("runs") / options.file.stem).expanduser()
    is_endless = sweep.config["method"] != "grid" and "target" not in sweep.config.get("metric", {})
    if is_endless and options.max_trials is None:
        raise ValueError(f"{sweep.path}: method {sweep.config['method']} never ends by itself; pass --max-trials")
    if options.dry_run:
        return _show_plan(sweep, folder, options.max_trials)
    return _run(sweep, folder, options)


def _show_plan(sweep: SweepFile, folder: Path, max_trials: int | None) -> int:
    """Print what would be run; nothing is written."""
    from panoptic.sweeps.command import command_line, trial_line
    from panoptic.sweeps.engine import num_trials, planned

    count = num_trials(sweep.config, max_trials)
    first = planned(sweep.config, min(_SHOWN, count or 1))
    for number, parameters in enumerate(first, start=1):
        print(f"{number:>4}  {' '.join(f'{name}={value}' for name, value in parameters.items())}")
    if sweep.config["method"] == "bayes":
        print("      further trials depend on the results")
    elif count is not None and count > len(first):
        print(f"      and {count - len(first)} more")
    line = trial_line(command_line(sweep.command, sweep.program, first[0]), folder / "trials" / "0001" / "run")
    print(
        f"{'no fixed number of' if count is None else count} trials in {folder}; the first one runs\n{shlex.join(line)}"
    )
    return 0


def _run(sweep: SweepFile, folder: Path, options: argparse.Namespace) -> int:
    """Open the ledger, run with a progress bar, and say how it ended."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from panoptic.run_folder import RUN_FOLDER_VARIABLE
    from panoptic.sweeps.engine import num_trials
    from panoptic.sweeps.ledger import Ledger
    from panoptic.sweeps.runner import Runner

    ledger = Ledger(folder)
    try:
        ledger.adopt(sweep.deciding, sweep.path)
        if options.retry_failed:
            print(f"{ledger.retry_failed()} failed trials are run again")
        columns = (TextColumn("trials"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
        with Progress(*columns) as progress:
            runner = Runner(
                sweep,
                ledger,
                folder,
                jobs=options.jobs,
                max_trials=options.max_trials,
                max_failures=options.max_failures,
                leave_out=(RUN_FOLDER_VARIABLE,),
                report=lambda line: progress.console.print(line, markup=False, highlight=False, soft_wrap=True),
            )
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, lambda *_: runner.interrupt())
            task = progress.add_task("", total=num_trials(sweep.config, options.max_trials), text="")
            runner.run(lambda: progress.update(task, **_progress(ledger, runner, options.max_trials)))
            progress.update(task, **_progress(ledger, runner, options.max_trials))
        return _report_end(ledger, runner, folder, options.file)
    finally:
        ledger.close()


def _progress(ledger: Ledger, runner: Runner, max_trials: int | None) -> dict[str, Any]:
    """Trials that have ended, and the time left if the rest take as long as the mean of those."""
    from panoptic.sweeps.engine import num_trials

    trials = ledger.trials()
    ended = [trial for trial in trials if trial.state in ("done", "failed", "stopped")]
    durations = [
        trial.ended - trial.started for trial in ended if trial.state != "failed" and trial.ended and trial.started
    ]
    count = num_trials(runner.sweep.config, max_trials)
    text = f"{len(runner.running)} running"
    if durations and count is not None:
        mean = sum(durations) / len(durations)
        under_way = sum(min(mean, time.time() - (process.trial.started or 0.0)) for process in runner.running)
        seconds = max(0.0, (count - len(ended)) * mean - under_way) / runner.jobs
        text += f", {int(seconds // 3600)}:{int(seconds // 60 % 60):02}:{int(seconds % 60):02} left"
    return {"completed": len(ended), "text": text}


def _report_end(ledger: Ledger, runner: Runner, folder: Path, file: Path) -> int:
    trials = ledger.trials()
    states = Counter(trial.state for trial in trials)
    for trial in trials:
        if trial.state == "failed":
            print(f"trial {trial.id} failed: {(trial.error or '').splitlines()[-1]}")
    print(", ".join(f"{count} {state}" for state, count in states.items()) or "no trials", f"in {folder}", sep="; ")
    if runner.interrupts:
        print("interrupted; the same command goes on")
        return 130
    if states["running"]:
        print("those running belong to another panoptic sweep")
    print(f"panoptic table {folder}")
    return 1 if states["failed"] else 0


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="panoptic sweep",
        description="Run the trials of a W&B sweep file on this machine, one folder each. Started again with the same "
        "folder it goes on where it ended, however it ended; several may run at once on one folder.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="W&B sweep file, such as sweeps/lambda_grid.yaml")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="ledger and trials; default: runs/<name of the file>"
    )
    parser.add_argument("--jobs", type=_count, default=1, metavar="N", help="trials at a time; default: 1")
    parser.add_argument("--max-trials", type=_count, metavar="N", help="trials in the folder, all starts together")
    parser.add_argument(
        "--max-failures", type=_count, default=3, metavar="N", help="end after N equal failures in a row; default: 3"
    )
    parser.add_argument("--retry-failed", action="store_true", help="run failed trials of the folder again")
    parser.add_argument("--dry-run", action="store_true", help="check the file, print the trials, and run none")
    return parser
