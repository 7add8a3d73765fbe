"""The tables of a sweep as text, markdown or LaTeX."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from panoptic.sweeps.layout import Layout, Row
from panoptic.sweeps.ledger import Trial
from panoptic.sweeps.statistics import Estimate, estimate, metric_values, paired_differences, select

_LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "λ": r"$\lambda$", **{char: f"\\{char}" for char in "&%$#_{}"}}


@dataclass(frozen=True)
class Grid:
    """Cells of a table as texts.

    Attributes:
        title: above it.
        headings: of its columns; the first is that of the rows' names.
        rows: cells, as many as there are headings.
        notes: lines below it.
    """

    title: str
    headings: list[str]
    rows: list[list[str]]
    notes: list[str]


def quality_grid(layout: Layout, trials: Sequence[Trial]) -> Grid:
    """A row per row of the layout: trials, then mean ± standard deviation and the paper's number for each column."""
    has_paper = any(row.paper for row in layout.rows)
    headings = ["", "n"]
    for heading in layout.columns.values():
        headings += [heading, f"{heading} paper"] if has_paper else [heading]
    rows = []
    for row in layout.rows:
        members = select(trials, row.parameters)
        cells = [row.name, str(len(members))]
        for metric in layout.columns:
            cells.append(_spread(estimate(metric_values(members, metric))))
            cells += [_number(row.paper.get(metric))] if has_paper else []
        rows.append(cells)
    notes = [f"mean ± standard deviation of n trials over {', '.join(layout.seeds)}"]
    left_out = Counter(trial.state for trial in trials if trial.state != "done")
    if left_out:
        notes.append(f"left out: {', '.join(f'{count} {state}' for state, count in left_out.items())}")
    return Grid(layout.title, headings, rows, [*notes, *([layout.note] if layout.note else [])])


def difference_grid(layout: Layout, trials: Sequence[Trial]) -> Grid | None:
    """Differences to the baseline over pairs of equal seeds, with an interval; None without a baseline."""
    baseline = next((row for row in layout.rows if row.name == layout.baseline), None)
    if baseline is None:
        return None
    has_paper = any(row.paper for row in layout.rows)
    headings = ["", "pairs"]
    for heading in layout.columns.values():
        headings += [heading, f"{heading} paper"] if has_paper else [heading]
    reference = select(trials, baseline.parameters)
    rows = []
    for row in layout.rows:
        if row is baseline:
            continue
        members = select(trials, row.parameters)
        found = [estimate(paired_differences(members, reference, metric, layout.seeds)) for metric in layout.columns]
        cells = [row.name, str(max((item.count for item in found if item), default=0))]
        for metric, item in zip(layout.columns, found, strict=True):
            cells.append(_interval(item))
            cells += [_paper_difference(row, baseline, metric)] if has_paper else []
        rows.append(cells)
    note = "mean [95% interval, Student's t] over pairs of trials with equal seeds"
    return Grid(f"difference to {baseline.name}", headings, rows, [note])


def as_text(grid: Grid) -> str:
    """Columns aligned by blanks."""
    widths = [max(len(row[column]) for row in [grid.headings, *grid.rows]) for column in range(len(grid.headings))]

    def line(cells: Sequence[str]) -> str:
        texts = [
            cells[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)),
        ]
        return "  ".join(texts).rstrip()

    rule = "-" * (sum(widths) + 2 * len(widths) - 2)
    return "\n".join([grid.title, line(grid.headings), rule, *map(line, grid.rows), *grid.notes])


def as_markdown(grid: Grid) -> str:
    """A pipe table."""
    rule = ["---", *("---:" for _ in grid.headings[1:])]
    lines = [
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
        for row in [grid.headings, rule, *grid.rows]
    ]
    return "\n".join([f"**{grid.title}**", "", *lines, "", *("  \n".join(grid.notes).splitlines())])


def as_latex(grid: Grid) -> str:
    """A tabular for the package booktabs."""
    lines = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in [grid.headings, *grid.rows]]
    return "\n".join(
        [
            f"% {grid.title}",
            rf"\begin{{tabular}}{{l{'r' * (len(grid.headings) - 1)}}}",
            *(r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}"),
            *(f"% {note}" for note in grid.notes),
        ]
    )


FORMATS: dict[str, Callable[[Grid], str]] = {"text": as_text, "markdown": as_markdown, "latex": as_latex}


def _latex(text: str) -> str:
    return re.sub("|".join(map(re.escape, _LATEX)), lambda match: _LATEX[match[0]], text)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _spread(item: Estimate | None) -> str:
    if item is None or math.isnan(item.mean):  # a trial that diverged is a result
        return "-"
    return f"{item.mean:.2f}" if item.spread is None else f"{item.mean:.2f} ± {item.spread:.2f}"


def _interval(item: Estimate | None) -> str:
    if item is None or math.isnan(item.mean):
        return "-"
    interval = item.interval()
    return f"{item.mean:+.2f}" if interval is None else f"{item.mean:+.2f} [{interval[0]:+.2f}, {interval[1]:+.2f}]"


def _paper_difference(row: Row, baseline: Row, metric: str) -> str:
    if metric not in row.paper or metric not in baseline.paper:
        return "-"
    return f"{row.paper[metric] - baseline.paper[metric]:+.2f}"
