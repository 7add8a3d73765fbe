"""W&B's own engine: which trial comes next, and which running ones are to be ended early."""

from __future__ import annotations

import json
import math
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from panoptic.sweeps.first_use import loaded_at_first_use
from panoptic.sweeps.ledger import Trial

if TYPE_CHECKING:
    from sweeps.run import SweepRun

_STATES = {"pending": "pending", "running": "running", "done": "finished", "failed": "failed", "stopped": "killed"}


def next_parameters(config: Mapping[str, Any], trials: Sequence[Trial]) -> dict[str, Any] | None:
    """The parameters of the next trial.

    Args:
        config: content of the sweep file.
        trials: all that there are, whatever their state.

    Returns:
        Values by name in the order of the sweep file; None where a grid is exhausted. The n-th draw of a random search
        is the same in every folder: its seed is n.
    """
    search = _search(config["method"])
    random.seed(len(trials))
    np.random.seed(len(trials))  # noqa: NPY002  the engine draws from the global state
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn, about kernels fitted to few points
        run = search(dict(config), [_as_run(config, trial) for trial in trials])
    if run is None:
        return None
    return {name: _plain(run.config[name]["value"]) for name in config["parameters"]}


def _search(method: str) -> Callable[[dict[str, Any], list[SweepRun]], SweepRun | None]:
    """The engine's search of a method; its `next_run` chooses alike, but loads what only bayes needs."""
    if method == "grid":
        with loaded_at_first_use("scipy.stats"):
            from sweeps.grid_search import grid_search_next_runs

        return lambda config, runs: grid_search_next_runs(runs, config)[0]
    import sweeps.bayes_search  # noqa: F401  now, as loading it draws from the generators that are seeded next
    from sweeps.run import next_run

    return lambda config, runs: next_run(config, runs)


def num_trials(config: Mapping[str, Any], max_trials: int | None) -> int | None:
    """How many trials there will be; None where nothing but the metric's target or the user ends the sweep."""
    if config["method"] != "grid":
        return max_trials
    sizes = []
    for node in config["parameters"].values():
        if "values" in node:
            sizes.append(len({json.dumps(value) for value in node["values"]}))
        elif node.get("distribution") == "q_uniform":
            sizes.append(len(np.arange(node["min"], node["max"], node.get("q", 1.0))))
        elif "min" in node:
            sizes.append(node["max"] - node["min"] + 1)
    whole = math.prod(sizes)
    return whole if max_trials is None else min(whole, max_trials)


def planned(config: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """The parameters of the first trials of a new sweep; bayes plans one, as the next depend on results."""
    trials: list[Trial] = []
    while len(trials) < (1 if config["method"] == "bayes" else count):
        parameters = next_parameters(config, trials)
        if parameters is None:
            break
        trials.append(Trial(len(trials) + 1, "pending", parameters, 0))
    return [trial.parameters for trial in trials]


def trials_to_stop(config: Mapping[str, Any], trials: Sequence[Trial]) -> list[int]:
    """The ids of the running trials that hyperband ends; none where the sweep file does not ask for it."""
    if "early_terminate" not in config:
        return []
    from sweeps.run import stop_runs

    return [int(run.name) for run in stop_runs(dict(config), [_as_run(config, trial) for trial in trials])]


def _as_run(config: Mapping[str, Any], trial: Trial) -> SweepRun:
    from sweeps.run import RunState, SweepRun

    metric = config.get("metric", {}).get("name")
    return SweepRun(
        name=str(trial.id),
        state=RunState(_STATES[trial.state]),
        config={name: {"value": value} for name, value in trial.parameters.items()},
        sampledHistory=[{metric: value} for value in trial.history],
        summaryMetrics=trial.metrics,
    )


def _plain(value: Any) -> Any:
    """Numpy's scalars as Python's, which JSON and the command line write alike."""
    return value.item() if isinstance(value, np.generic) else value
