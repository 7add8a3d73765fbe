"""`panoptic train`: compose, train, and end with the status that says how."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from panoptic.configuration import parse_overrides, resolved

if TYPE_CHECKING:
    from panoptic.training.stopping import StoppedError

# The imports within functions take seconds; without them `--help` and a mistyped key are answered at once.


def main(argv: Sequence[str]) -> int:
    """Train as configured; returns the exit status."""
    composed = parse_overrides("train", "Train a panoptic network; the run folder holds all that came of it.", argv)
    if composed is None:
        return 0
    config = resolved(composed)

    from panoptic.training.stopping import StoppedError, StopRequest
    from panoptic.training_run import train

    try:
        with StopRequest() as request:
            train(config, request)
    except StoppedError as stopped:
        return _after_stop(stopped)
    return 0


def _after_stop(stopped: StoppedError) -> int:
    """Say where to go on; a job that SLURM preempts asks to be started again."""
    from panoptic.training.stopping import PREEMPTION_SIGNAL, requeue

    print(stopped)
    if stopped.number == PREEMPTION_SIGNAL and "SLURM_JOB_ID" in os.environ:
        if stopped.is_first:
            requeue()
        return 0
    return 128 + stopped.number
