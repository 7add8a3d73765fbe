"""Gradients of tasks over a training, as `gradients.csv` has them, drawn: OANet's Figure 5, cosines and weights."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

Curve = NDArray[np.float64]
"""(S,) one value per measured step; NaN where there is none."""

_PALETTE = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
_DASHES = ("-", "--", ":", "-.")
"""Beyond ten curves the colours come again, dashed."""


@dataclass(eq=False)
class GradientLog:
    """What was measured of T tasks in S steps.

    Args:
        steps: (S,) optimizer steps, ascending.
        mean_absolute: {task: mean absolute gradient of its unweighted loss}.
        weights: {task: factor of its loss}.
        cosines: {(task, other): between their gradients}, each pair once, in the order of the tasks.
    """

    steps: Curve
    mean_absolute: dict[str, Curve]
    weights: dict[str, Curve]
    cosines: dict[tuple[str, str], Curve]

    @property
    def tasks(self) -> list[str]:
        """All of them."""
        return list(self.weights)


def read_gradients(path: Path, tasks: Sequence[str] | None = None) -> GradientLog:
    """Read a file that may still be written: a line without its end is left out.

    Args:
        path: of `gradients.csv`.
        tasks: those to keep, in this order; None keeps all.

    Raises:
        ValueError: no row, a task that the file does not have, or a file of something else.
    """
    text = path.read_text()
    rows: dict[str, list[dict[str, str]]] = {}
    reader = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    lacking = {"step", "task", "weight", "gradient_mean_abs"} - set(reader.fieldnames or [])
    if reader.fieldnames and lacking:
        raise ValueError(f"{path}: expected columns of gradient telemetry, {sorted(lacking)} are missing")
    for row in reader:
        rows.setdefault(row["task"], []).append(row)
    if not rows:
        raise ValueError(f"{path} has no row yet; wait for the first measured step, or train longer")
    there = list(rows)
    chosen = there if tasks is None else list(dict.fromkeys(tasks))
    unknown = [task for task in chosen if task not in there]
    if unknown or not chosen:
        raise ValueError(f"expected tasks among {there}, got {list(tasks or [])}; {path} has no others")
    steps = sorted({int(row["step"]) for task in there for row in rows[task]})
    places = {step: place for place, step in enumerate(steps)}

    def curve(task: str, column: str) -> Curve:
        values = np.full(len(steps), np.nan)
        for row in rows[task]:
            if row[column]:
                values[places[int(row["step"])]] = float(row[column])
        return values

    return GradientLog(
        np.array(steps, np.float64),
        {task: curve(task, "gradient_mean_abs") for task in chosen},
        {task: curve(task, "weight") for task in chosen},
        {(one, other): curve(one, f"cosine_{other}") for one, other in itertools.combinations(chosen, 2)},
    )


def running_mean(values: Curve, window: int) -> Curve:
    """The mean of the values within a centred window; fewer at the ends, and those that are finite.

    Args:
        values: (S,).
        window: number of values, at least 1; an even one has one more before than after.

    Returns:
        (S,); NaN where the window has no finite value.
    """
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    places = np.arange(len(values))
    begin = np.maximum(places - window // 2, 0)
    end = np.minimum(places + (window + 1) // 2, len(values))
    number = counts[end] - counts[begin]
    return np.where(number > 0, (sums[end] - sums[begin]) / np.maximum(number, 1), np.nan)


def gradient_figure(log: GradientLog, *, features: str, window: int | None = None) -> Figure:
    """OANet's Figure 5: mean absolute gradient of each task per optimizer step, thin, and its running mean.

    Args:
        log: of the tasks to draw.
        features: what the gradients are taken on, in words, such as "c5".
        window: of the running mean in measurements; None is a twentieth of them.
    """
    figure, axes = _figure(f"Gradients of unweighted losses at {features}")
    _draw(axes, log.steps, log.mean_absolute, window)
    _scale(axes, list(log.mean_absolute.values()))
    axes.set_ylabel("mean absolute gradient (loss per unit of feature)")
    return _with_legend(figure, axes)


def cosine_figure(log: GradientLog, *, features: str, window: int | None = None) -> Figure:
    """Cosines between the gradients of every two tasks; arguments as `gradient_figure`."""
    figure, axes = _figure(f"Cosines between gradients at {features}")
    _draw(axes, log.steps, {f"{one}, {other}": values for (one, other), values in log.cosines.items()}, window)
    axes.axhline(0.0, color="0.4", linewidth=0.8)
    values = np.abs(np.concatenate([[0.1], *log.cosines.values()]))
    limit = min(1.05, 1.1 * float(np.nanmax(values)))  # most gradients are nearly orthogonal
    axes.set_ylim(-limit, limit)
    axes.set_ylabel("cosine (1: one direction, -1: opposite ones)")
    return _with_legend(figure, axes)


def weight_figure(log: GradientLog) -> Figure:
    """The factor of every task's loss in what was backpropagated; equal ones lie in each other, thin in thick."""
    figure, axes = _figure("Weights of tasks")
    for number, (task, values) in enumerate(log.weights.items()):
        width = 1.2 + 6.0 * (1 - (number + 1) / len(log.weights))
        axes.plot(log.steps, values, label=task, linewidth=width, **_look(number))
    _scale(axes, list(log.weights.values()))
    axes.set_ylabel("weight of the task's loss (no unit)")
    return _with_legend(figure, axes)


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.5, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel("optimizer step")
    axes.grid(visible=True, which="major", color="0.9")
    return figure, axes


def _draw(axes: Axes, steps: Curve, curves: dict[str, Curve], window: int | None) -> None:
    """Every curve as it is, faint and without a name, and its running mean; the legend says where there is none."""
    window = max(1, len(steps) // 20) if window is None else window
    axes.set_xlabel(f"optimizer step (thin: measured; thick: running mean of {window})")
    for number, (name, values) in enumerate(curves.items()):
        if not np.isfinite(values).any():
            axes.plot([], [], label=f"{name}: none", **_look(number))
            continue
        axes.plot(steps, values, linewidth=0.6, alpha=0.35, color=_look(number)["color"])
        axes.plot(steps, running_mean(values, window), label=name, linewidth=1.8, **_look(number))


def _look(number: int) -> dict[str, Any]:
    """How curve `number` is drawn."""
    return {
        "color": _PALETTE[number % len(_PALETTE)],
        "linestyle": _DASHES[number // len(_PALETTE) % len(_DASHES)],
    }


def _scale(axes: Axes, curves: Sequence[Curve]) -> None:
    """A logarithmic axis where all values are positive and span more than a decade; one from 0 otherwise."""
    values = np.concatenate(curves)
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > 10 * values.min():
        axes.set_yscale("log")
    elif len(values) and values.min() >= 0:
        axes.set_ylim(bottom=0)


def _with_legend(figure: Figure, axes: Axes) -> Figure:
    """Names beside the axes, where they hide nothing; a line of text instead where there is no curve."""
    names = axes.get_legend_handles_labels()[1]
    if names:
        figure.legend(loc="outside right upper", fontsize="small")
    else:
        axes.text(0.5, 0.6, "one task alone", transform=axes.transAxes, ha="center")
    return figure
