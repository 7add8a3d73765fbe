"""What `panoptic check-data` found, as tables and a figure. A report is what the command writes to `report.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.markup import escape
from rich.table import Table

from panoptic.analysis.tables import percent

_ROWS = 12
"""Of either end of a long table of categories, so that it fits on a screen."""

_LETTERS = 200
"""Of a message in the table of findings; the report has all of it."""


def contents_table(splits: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row per split: images, share of void, instances, sizes.

    Args:
        splits: {name: what `SplitCheck.as_dict` gave}.
    """
    table = Table(title="contents")
    table.add_column("split")
    for heading in ("images", "read", "void %", "instances", "crowds", "per image (min, median, max)"):
        table.add_column(heading, justify="right")
    table.add_column("sizes, height x width (images)")
    for name, split in splits.items():
        spread = split["instances_per_image"]
        table.add_row(
            escape(name),
            str(split["images"]) if split["opened"] else "not opened",
            str(split["images_read"]),
            percent(split["void_share"]),
            str(split["instances"]),
            str(split["crowds"]),
            "-" if spread is None else f"{spread['min']}, {spread['median']:g}, {spread['max']}",
            _sizes(split["sizes"]),
        )
    return table


def _sizes(sizes: Sequence[Mapping[str, int]]) -> str:
    """The commonest sizes, and how many others there are."""
    shown = [f"{size['height']}x{size['width']} ({size['images']})" for size in sizes[:3]]
    return ", ".join(shown) + (f", and {len(sizes) - 3} others" if len(sizes) > 3 else "")


def frequency_table(name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Categories of one split that have pixels, most first; of many, both ends.

    Args:
        name: of the split.
        rows: `categories` of its report.
    """
    ordered = sorted((row for row in rows if row["pixels"]), key=lambda row: -row["pixels"])
    absent = len(rows) - len(ordered)
    caption = f"{absent} of {len(rows)} categories have no pixel" if absent else None
    table = Table(title=f"categories of {escape(name)}", caption=caption)
    table.add_column("category")
    table.add_column("kind")
    for heading in ("pixels %", "images", "instances"):
        table.add_column(heading, justify="right")
    left_out = max(len(ordered) - 2 * _ROWS, 0)
    for number, row in enumerate(ordered):
        if left_out and number == _ROWS:
            table.add_row(f"({left_out} more)")
        if number < _ROWS or number >= _ROWS + left_out:
            instances = "" if row["instances"] is None else str(row["instances"])
            kind = "thing" if row["is_thing"] else "stuff"
            table.add_row(escape(row["name"]), kind, percent(row["share"]), str(row["images"]), instances)
    return table


def findings_table(findings: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """Errors, then warnings: one row per split and kind with their number and the first of them.

    Args:
        findings: (name of the split, or "" for all, the finding).
    """
    table = Table(title="findings")
    table.add_column("")
    table.add_column("split")
    table.add_column("kind")
    table.add_column("number", justify="right")
    table.add_column("the first", overflow="fold")
    groups: dict[tuple[bool, str, str], list[str]] = {}
    for split, finding in findings:
        groups.setdefault((not finding["is_error"], split, finding["kind"]), []).append(finding["message"])
    for (is_warning, split, kind), messages in sorted(groups.items(), key=lambda group: group[0][0]):
        style = "yellow" if is_warning else "red"
        word = f"[{style}]{'warning' if is_warning else 'error'}[/]"
        first = messages[0] if len(messages[0]) <= _LETTERS else f"{messages[0][:_LETTERS]} ..."
        table.add_row(word, escape(split), kind, str(len(messages)), escape(first))
    return table


def frequency_figure(splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Share of pixels of every category on a logarithmic axis, and instances of things; one bar per split.

    Args:
        splits: {name: `categories` of its report}, all with the same categories; ordered by the first. Categories that
            occur in none are left out.
    """
    names = list(splits)
    rows = splits[names[0]]
    occurring = [number for number in range(len(rows)) if any(split[number]["pixels"] for split in splits.values())]
    order = sorted(occurring, key=lambda number: rows[number]["pixels"])
    figure = Figure(figsize=(11, max(3.0, 1.2 + 0.22 * len(order))), dpi=110, layout="constrained")
    shares, instances = figure.subplots(1, 2, sharey=True)
    for place, name in enumerate(names):
        drawn = [splits[name][number] for number in order]
        offsets = np.arange(len(order)) + 0.8 * ((len(names) - place - 0.5) / len(names) - 0.5)
        _bars(shares, offsets, [100 * row["share"] for row in drawn], name, len(names))
        _bars(instances, offsets, [row["instances"] or 0 for row in drawn], name, len(names))
    shares.set_yticks(range(len(order)), [rows[number]["name"] for number in order], fontsize="small")
    shares.set_ylim(-0.6, len(order) - 0.4)
    figure.suptitle(f"{len(order)} of {len(rows)} categories")
    shares.set_xlabel("pixels in % of images with ground truth, void included")
    instances.set_xlabel("instances of things, crowds left out")
    if len(names) > 1:
        figure.legend(*shares.get_legend_handles_labels(), loc="outside upper right", ncols=len(names))
    return figure


def _bars(axes: Axes, offsets: np.ndarray, values: Sequence[float], name: str, count: int) -> None:
    """The bars of one split; a category without a pixel or instance has none."""
    axes.barh(offsets, values, height=0.8 / count, label=name)
    if any(values):
        axes.set_xscale("log")
        smallest = min(value for value in values if value)
        axes.set_xlim(left=min(0.8 * 10 ** math.floor(math.log10(smallest)), axes.get_xlim()[0]))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.grid(visible=True, axis="x", color="0.9")
    axes.set_axisbelow(True)
