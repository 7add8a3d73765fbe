"""Rows of sweeps' tables: the configuration of each, and how two of them differ."""

from functools import cache

import torch
import yaml

from panoptic.configuration import load_config, resolved
from panoptic.data.scenes import CATEGORIES
from panoptic.models.build import build_network
from panoptic.structures import ImageStatistics
from panoptic.sweeps.command import command_line, composition
from panoptic.sweeps.engine import num_trials, planned
from panoptic.sweeps.layout import read_layout
from panoptic.sweeps.sweep_file import read_sweep_file


def flat(node, prefix=""):
    if not isinstance(node, dict):
        return {prefix[:-1]: node}
    return {key: value for name, child in node.items() for key, value in flat(child, f"{prefix}{name}.").items()}


def composed(sweep, parameters):
    line = composition(command_line(sweep.command, sweep.program, parameters))
    return resolved(load_config(line.command, line.overrides))


@cache
def rows_of(path):
    """(sweep, {row's name: its configuration at seed 0}, layout)."""
    sweep = read_sweep_file(path, None)
    layout = read_layout(path.parent / "tables" / path.name, sweep.config, [])
    return sweep, {row.name: composed(sweep, {"seed": 0, **row.parameters}) for row in layout.rows}, layout


def check_trials(path):
    """Each trial of a sweep belongs to one row of its table, and each row has three."""
    sweep = read_sweep_file(path, None)
    layout = read_layout(path.parent / "tables" / path.name, sweep.config, [])
    trials = planned(sweep.config, num_trials(sweep.config, None))
    owners = [
        [row.name for row in layout.rows if row.parameters == {k: v for k, v in trial.items() if k != "seed"}]
        for trial in trials
    ]
    assert all(len(names) == 1 for names in owners)
    assert sorted(name for (name,) in owners) == sorted(3 * [row.name for row in layout.rows])


def differences(one, other):
    """Keys in which two configurations differ, names aside."""
    one, other = flat(one), flat(other)
    different = {key for key in set(one) | set(other) if one.get(key, "absent") != other.get(key, "absent")}
    return different - {"name", "logger.wandb.name"}


def check_differences(path, expected):
    """Of each (row, other row, keys), the two rows differ in these keys and in nothing else."""
    _, configs, _ = rows_of(path)
    for one, other, keys in expected:
        assert differences(configs[one], configs[other]) == keys, (one, other)


def check_same(path, *keys):
    """All rows of a sweep's table have the same values of these keys."""
    _, configs, _ = rows_of(path)
    first = next(iter(configs.values()))
    for key in keys:
        assert all(config[key] == first[key] for config in configs.values()), key


def networks_of(path):
    """(row's name, its configuration, its network on the `meta` device) of each row."""
    for name, config in rows_of(path)[1].items():
        with torch.device("meta"):
            network = build_network(config, CATEGORIES, ImageStatistics())
        yield name, config, network


def paper_numbers(path):
    """{row's name: its numbers in the paper}."""
    layout = yaml.safe_load((path.parent / "tables" / path.name).read_text())
    return {row["name"]: row["paper"] for row in layout["rows"]}
