"""Lightning's profilers by name, with their reports in the run's folder."""

from __future__ import annotations

from pathlib import Path

from pytorch_lightning.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

PROFILERS: dict[str, type[SimpleProfiler | AdvancedProfiler | PyTorchProfiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}


def profiler_of(choice: str | None, folder: Path) -> Profiler | None:
    """The profiler of a name; by its name alone Lightning would print the report.

    Args:
        choice: simple (seconds per action), advanced (and per function), pytorch (per operator, with a trace for
            chrome://tracing), or None.
        folder: gets `<stage>-report.txt`.

    Raises:
        ValueError: another name.
    """
    if choice is None:
        return None
    if choice not in PROFILERS:
        raise ValueError(f"expected trainer.profiler null or one of {sorted(PROFILERS)}, got {choice!r}")
    return PROFILERS[choice](dirpath=folder, filename="report")
