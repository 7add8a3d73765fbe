"""Dealing out the GPUs of this machine to trials that run side by side."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from itertools import takewhile

DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus() -> list[str]:
    """Those that CUDA would show to this process: what CUDA_VISIBLE_DEVICES lists, else all of the machine.

    Raises:
        OSError: the driver's nvidia-smi is there, but cannot list them.
    """
    if DEVICES_VARIABLE in os.environ:
        words = (word.strip() for word in os.environ[DEVICES_VARIABLE].split(","))
        return list(takewhile(lambda word: word not in ("", "-1"), words))  # CUDA stops at the first invalid one
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    if listed.returncode:
        reason = (listed.stderr + listed.stdout).strip()
        raise OSError(f"nvidia-smi cannot list the GPUs: {reason}; set {DEVICES_VARIABLE}, empty for none")
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]  # those of MIG are indented
    return [str(index) for index in range(len(lines))]


def dealt(gpus: Sequence[str], jobs: int) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES of each of `jobs` trials; None leaves it as it is.

    Dealt like cards, so that each trial has its own and none is left over; more trials than GPUs share them in turn.
    """
    if jobs == 1 or not gpus:
        return [None] * jobs
    return [",".join(gpus[job % len(gpus) :: jobs]) for job in range(jobs)]
