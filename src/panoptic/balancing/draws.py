"""Randomness that is the same in every process, and after a resume."""

from __future__ import annotations

import numpy as np
import torch


def seed_of(seed: int, step: int) -> int:
    """A seed for one step of a run: distinct steps, and runs, have unrelated ones."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, dtype=np.uint64)[0] >> 1)


def generator_of(seed: int, step: int) -> torch.Generator:
    """A generator on the CPU for one step of a run."""
    return torch.Generator().manual_seed(seed_of(seed, step))
