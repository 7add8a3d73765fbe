"""How well keypoints and offsets can represent real maps: quality of fuse(encode(map)) against the map itself.

Each map of a panoptic JSON is encoded as DeeperLab's heads must predict it, the perfect outputs are fused, and the
result is scored at the original size. No network trained on these targets can be expected to do better. Crowds have
no targets and count as void.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from panoptic.analysis.tables import percent
from panoptic.data.panoptic_format import PanopticFile, check_files, read_panoptic_json, read_panoptic_map
from panoptic.data.transforms import EvalTransform
from panoptic.fusion.bottom_up import fuse_bottom_up
from panoptic.fusion.resize import resize_nearest
from panoptic.metrics.functional import CategorySums, sum_image
from panoptic.models.heads.base import Head
from panoptic.models.heads.keypoints import HeatmapHead, LongRangeHead, MiddleRangeHead, ShortRangeHead
from panoptic.models.heads.semantic import SemanticHead
from panoptic.score import summarize
from panoptic.structures import RECTANGLE, STAR, VOID, Category, Features, KeypointGraph, PanopticMap, Sample

GRAPHS = {graph.name: graph for graph in (STAR, RECTANGLE)}


def make_heads(categories: Sequence[Category], graph: KeypointGraph, radius: float) -> dict[str, Head]:
    """DeeperLab's five heads, for their targets and perfect outputs: their layers are as small as can be."""
    channels = {"decoder": 1}
    keypoint_heads: dict[str, Head] = {
        name: head(channels, categories, graph=graph, radius=radius, filters=1)
        for name, head in (
            ("heatmap", HeatmapHead),
            ("short_range", ShortRangeHead),
            ("middle_range", MiddleRangeHead),
            ("long_range", LongRangeHead),
        )
    }
    return {"semantic": SemanticHead(channels, categories, filters=1), **keypoint_heads}


def encode_and_fuse(
    truth: PanopticMap,
    categories: Sequence[Category],
    *,
    graph: KeypointGraph,
    radius: float,
    longest_side: int | None,
) -> PanopticMap:
    """The map that perfect heads lead to, at the size of the truth.

    Args:
        truth: (H, W) map.
        categories: of the data set.
        graph: keypoint kinds and edges.
        radius: of the disks, in pixels of the resized map.
        longest_side: the map is resized to it first, as the images of validation are; None keeps its size.
    """
    image = torch.zeros(1, dtype=torch.uint8).expand(3, *truth.size)
    sample = EvalTransform(longest_side)(Sample(image, 0, "map", truth, None, truth.size))
    features = Features({}, [sample.size], sample.size)
    outputs = {
        name: head.as_outputs([head.encode(sample)], features).image(0, sample.size)
        for name, head in make_heads(categories, graph, radius).items()
    }
    result = fuse_bottom_up(outputs, categories, graph=graph, radius=radius)
    return resize_nearest(result, truth.size).panoptic_map


def without_crowds(panoptic_map: PanopticMap) -> PanopticMap:
    """The map with its crowds turned into void."""
    crowds = torch.tensor([segment.id for segment in panoptic_map.segments if segment.is_crowd], dtype=torch.int64)
    segment_ids = panoptic_map.segment_ids.masked_fill(torch.isin(panoptic_map.segment_ids, crowds), VOID)
    return PanopticMap(segment_ids, [segment for segment in panoptic_map.segments if not segment.is_crowd])


def score_representation(
    file: PanopticFile, console: Console, *, graph: KeypointGraph, radius: float, longest_side: int | None
) -> CategorySums:
    """Sums over all maps of a panoptic JSON; options as in `encode_and_fuse`. Shows a progress bar."""
    total = CategorySums.zeros(len(file.categories))
    for annotation in track(file.annotations.values(), file.path.name, console=console, transient=True):
        truth = without_crowds(read_panoptic_map(file, annotation))
        fused = encode_and_fuse(truth, file.categories, graph=graph, radius=radius, longest_side=longest_side)
        total = total + sum_image(fused, truth, num_categories=len(file.categories))
    return total


def read_files(paths: Sequence[Path], folders: Sequence[Path] | None) -> list[PanopticFile]:
    """The panoptic JSONs, checked; `folders` holds their PNGs, None means the folders beside them."""
    if folders is not None and len(folders) != len(paths):
        raise ValueError(
            f"expected one --folder per panoptic JSON, {len(paths)}, got {len(folders)}; "
            "name all of them or none (then it is the folder beside the JSON that has its name)"
        )
    pngs: Sequence[Path | None] = folders or [None] * len(paths)
    files = [read_panoptic_json(path, folder) for path, folder in zip(paths, pngs, strict=True)]
    for file in files:
        if not file.annotations:
            raise ValueError(f"{file.path} has no annotations, so there is nothing to encode")
        check_files(file)
    return files


def add_rows(table: Table, file: PanopticFile, total: CategorySums) -> None:
    """One row for all categories, one for things and one for stuff."""
    values, _ = summarize(total, file)
    for group, suffix in (("all", ""), ("things", "_things"), ("stuff", "_stuff")):
        qualities = (percent(values[name + suffix]) for name in ("pq", "sq", "rq", "pc"))
        data_set = (str(file.path), str(len(file.annotations))) if group == "all" else ("", "")
        table.add_row(*data_set, group, *qualities, end_section=group == "stuff")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, score every data set and print one table; 1 if a file cannot be used."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("panoptic_json", type=Path, nargs="+", help="data sets in COCO's panoptic format")
    parser.add_argument(
        "--folder",
        type=Path,
        action="append",
        help="PNGs of a JSON, once for each in order; default: the folder beside the JSON that has its name",
    )
    parser.add_argument("--graph", choices=list(GRAPHS), default=STAR.name, help="keypoints and edges")
    parser.add_argument("--radius", type=float, default=25.0, help="of the disks, in pixels of the resized map")
    parser.add_argument("--longest-side", type=int, help="resize maps to it first; default: their own size")
    options = parser.parse_args(arguments)
    size = "own size" if options.longest_side is None else f"longest side {options.longest_side}"
    table = Table(title=f"fuse(encode(map)), {options.graph}, radius {options.radius:g}, {size}, percent")
    for heading in ("data set", "images", "categories", "PQ", "SQ", "RQ", "PC"):
        is_text = heading in ("data set", "categories")
        table.add_column(heading, justify="left" if is_text else "right", overflow="fold" if is_text else "ellipsis")
    try:
        for file in read_files(options.panoptic_json, options.folder):
            total = score_representation(
                file,
                Console(stderr=True),
                graph=GRAPHS[options.graph],
                radius=options.radius,
                longest_side=options.longest_side,
            )
            add_rows(table, file, total)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
