"""The layout of a sweep's table: its rows and columns, and the paper's numbers beside ours."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from panoptic.sweeps.ledger import Trial

SEED = "seed"


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: as printed.
        parameters: a trial belongs to the row if it has all of these.
        paper: the paper's numbers by metric, in the unit of the metric.
    """

    name: str
    parameters: Mapping[str, Any]
    paper: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """What a table shows.

    Attributes:
        title: above it.
        columns: headings by name of metric.
        seeds: parameters that a row is averaged over; trials that agree in them are pairs.
        rows: in order.
        baseline: the row that the others are compared with.
        note: below the table.
    """

    title: str
    columns: Mapping[str, str]
    seeds: Sequence[str]
    rows: Sequence[Row]
    baseline: str | None = None
    note: str | None = None


def read_layout(path: Path, config: Mapping[str, Any], trials: Sequence[Trial]) -> Layout:
    """Read the layout of a sweep; what the file leaves out is as in `plain_layout`.

    Args:
        path: of the yaml.
        config: of the sweep.
        trials: of the sweep.

    Raises:
        ValueError: an unknown key, parameter, value or row; the message names the file and the nearest.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid yaml: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping with title, columns and rows, got {type(content).__name__}")
    _check_names(path, "key", content, ("title", "columns", "seeds", "rows", "baseline", "note"))
    plain = plain_layout(path.stem, config, trials, seeds=content.get("seeds", [SEED]))
    rows = [_read_row(path, row, config) for row in content["rows"]] if "rows" in content else plain.rows
    layout = Layout(
        content.get("title", plain.title),
        content.get("columns", plain.columns),
        plain.seeds,
        rows,
        content.get("baseline"),
        content.get("note"),
    )
    measured = sorted({name for trial in trials for name in trial.metrics})
    _check_names(path, "column", layout.columns if measured else (), measured)
    _check_names(path, "parameter", layout.seeds if "seeds" in content else (), config["parameters"])
    _check_names(path, "baseline", [layout.baseline] if layout.baseline else (), [row.name for row in rows])
    for row in rows:
        _check_names(path, f"paper's number of row {row.name!r}", row.paper, layout.columns)
    return layout


def plain_layout(
    title: str, config: Mapping[str, Any], trials: Sequence[Trial], seeds: Sequence[str] = (SEED,)
) -> Layout:
    """A row per combination of the parameters that vary, a column for the sweep's metric."""
    varying = [name for name in config["parameters"] if name not in seeds and len({_key(t, name) for t in trials}) > 1]
    combinations = {
        json.dumps([trial.parameters[name] for name in varying]): {name: trial.parameters[name] for name in varying}
        for trial in trials
    }
    ordered = sorted(combinations.values(), key=lambda row: [_sort_key(value) for value in row.values()])
    rows = [Row(" ".join(f"{name}={value}" for name, value in row.items()) or "all", row) for row in ordered]
    metric = config.get("metric", {}).get("name")
    names = (
        [metric] if metric else sorted({name for trial in trials for name in trial.metrics if name.startswith("val_")})
    )
    return Layout(title, {name: name for name in names}, seeds, rows)


def _read_row(path: Path, row: Any, config: Mapping[str, Any]) -> Row:
    if not isinstance(row, dict) or not {"name", "parameters"} <= set(row):
        raise ValueError(f"{path}: expected a row with name and parameters, got {row!r}")
    _check_names(path, "key of a row", row, ("name", "parameters", "paper"))
    _check_names(path, f"parameter of row {row['name']!r}", row["parameters"], config["parameters"])
    for name, value in row["parameters"].items():
        values = config["parameters"][name].get("values", [value])
        if value not in values:
            raise ValueError(f"{path}: row {row['name']!r} has {name}={value}, but the sweep has {values}")
    return Row(str(row["name"]), row["parameters"], row.get("paper", {}))


def _check_names(path: Path, what: str, names: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{path}: unknown {what} {name!r}{hint}; there are {known}")


def _key(trial: Trial, name: str) -> str:
    return json.dumps(trial.parameters.get(name))


def _sort_key(value: Any) -> tuple[bool, float, str]:
    return (True, 0.0, str(value)) if isinstance(value, (str, list)) else (False, float(value), "")
