"""The engine's trials: counted, planned, and the same as W&B's `next_run` draws."""

import random

import numpy as np
import pytest

import sweeps
from panoptic.sweeps.engine import next_parameters, num_trials, planned, trials_to_stop
from panoptic.sweeps.ledger import Trial

GRID = {
    "method": "grid",
    "parameters": {
        "b.c": {"values": [1, 2.5, "star"]},
        "a": {"min": 3, "max": 4},
        "q": {"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.5},
        "one": {"value": [48, 64]},
        "twice": {"values": [7, 7]},
    },
}


def test_a_grid_is_drawn_as_next_run_draws_it():
    runs = []
    while (run := sweeps.next_run(GRID, runs)) is not None:
        runs.append(run)
    expected = [{name: run.config[name]["value"] for name in GRID["parameters"]} for run in runs]
    assert planned(GRID, 99) == expected
    assert num_trials(GRID, None) == len(expected) == 3 * 2 * 2
    assert num_trials(GRID, 5) == 5
    assert num_trials(GRID, 50) == 12


def test_parameters_are_in_the_order_of_the_file():
    assert list(next_parameters(GRID, [])) == list(GRID["parameters"])


def test_every_state_counts_as_drawn():
    parameters = planned(GRID, 99)
    states = ("pending", "running", "done", "failed", "stopped")
    trials = [Trial(n, states[n % 5], value, 1) for n, value in enumerate(parameters[:-1])]
    assert next_parameters(GRID, trials) == parameters[-1]
    assert next_parameters(GRID, [*trials, Trial(99, "failed", parameters[-1], 1)]) is None


@pytest.mark.slow
@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_draw_depends_on_nothing_but_the_trials_before(method):
    config = {
        "method": method,
        "metric": {"name": "v"},
        "parameters": {"x": {"min": 0.0, "max": 1.0}, "k": {"values": [1, 2]}},
    }
    trials = [Trial(1, "done", {"x": 0.1, "k": 1}, 1, history=[2.0]), Trial(2, "running", {"x": 0.7, "k": 2}, 1)]
    drawn = []
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  the engine's own state
        drawn.append(next_parameters(config, trials))
    assert drawn[0] == drawn[1]
    assert drawn[0] != next_parameters(config, trials[:1])
    assert type(drawn[0]["x"]) is float
    assert num_trials(config, None) is None
    assert len(planned(config, 3)) == (1 if method == "bayes" else 3)


def test_bayes_searches_where_the_metric_is_good():
    config = {
        "method": "bayes",
        "metric": {"name": "v", "goal": "maximize"},
        "parameters": {"x": {"min": 0.0, "max": 1.0}},
    }
    trials = [Trial(n, "done", {"x": n / 20}, 1, history=[-((n / 20 - 0.8) ** 2)]) for n in range(0, 20, 2)]
    draws = [next_parameters(config, [*trials, *[trials[-1]] * more])["x"] for more in range(4)]
    assert 0.6 < sorted(draws)[1] <= sorted(draws)[2] < 1.0


def test_hyperband_stops_running_trials_below_the_best_third():
    config = {"metric": {"name": "v", "goal": "maximize"}, "early_terminate": {"type": "hyperband", "min_iter": 2}}
    good, bad = [1.0, 2.0, 3.0], [1.0, 1.5, 1.9]
    trials = [
        Trial(1, "done", {}, 1, history=good),
        Trial(2, "running", {}, 1, history=bad),
        Trial(3, "running", {}, 1, history=good),
        Trial(4, "running", {}, 1, history=bad[:2]),
        Trial(5, "failed", {}, 1, history=bad),
    ]
    assert trials_to_stop(config, trials) == [2]
    assert trials_to_stop({"metric": config["metric"]}, trials) == []
