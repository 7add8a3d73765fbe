"""Mean, spread and paired differences over the trials of a sweep."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from panoptic.sweeps.ledger import Trial

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean of n values.

    Attributes:
        mean: of the values.
        spread: sample standard deviation (n - 1 in the denominator); None for one value.
        count: n.
    """

    mean: float
    spread: float | None
    count: int

    def interval(self) -> tuple[float, float] | None:
        """Student's t interval of the mean at CONFIDENCE; None for one value."""
        if self.spread is None:
            return None
        from scipy.special import stdtrit

        half = float(stdtrit(self.count - 1, 0.5 + CONFIDENCE / 2)) * self.spread / math.sqrt(self.count)
        return self.mean - half, self.mean + half


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean and spread; None where there are no values."""
    if not values:
        return None
    count = len(values)
    mean = sum(values) / count
    # by hand, as statistics.stdev fails for nan
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1)) if count > 1 else None
    return Estimate(mean, spread, count)


def select(trials: Sequence[Trial], parameters: Mapping[str, Any]) -> list[Trial]:
    """The trials that are done and have these parameters."""
    return [
        trial
        for trial in trials
        if trial.state == "done" and all(trial.parameters.get(name) == value for name, value in parameters.items())
    ]


def metric_values(trials: Sequence[Trial], metric: str) -> list[float]:
    """The metric's last value of each trial that has it; nan is left in, so that the mean is nan too."""
    return [trial.metrics[metric] for trial in trials if metric in trial.metrics]


def paired_differences(
    trials: Sequence[Trial], baseline: Sequence[Trial], metric: str, seeds: Sequence[str]
) -> list[float]:
    """Metric of a trial minus that of the baseline's trial that agrees with it in the seeds.

    Args:
        trials: of one row.
        baseline: trials of the row to compare with.
        metric: name.
        seeds: parameters that make a pair; trials that are not the only ones of their row with them make none.
    """
    ours, theirs = (_by_seeds(side, metric, seeds) for side in (trials, baseline))
    return [ours[key] - theirs[key] for key in ours if key in theirs]


def _by_seeds(trials: Sequence[Trial], metric: str, seeds: Sequence[str]) -> dict[str, float]:
    keyed = [
        (json.dumps([trial.parameters.get(name) for name in seeds]), trial)
        for trial in trials
        if metric in trial.metrics
    ]
    keys = [key for key, _ in keyed]
    return {key: trial.metrics[metric] for key, trial in keyed if keys.count(key) == 1}
