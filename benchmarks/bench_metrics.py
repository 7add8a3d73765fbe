"""Speed of the metrics: every bar of their specification, measured in one run and compared as ratios.

Run with `python benchmarks/bench_metrics.py`; under a minute on two cores.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torchmetrics.detection import PanopticQuality as TorchmetricsPanopticQuality

from panoptic.data.panoptic_entries import PanopticAnnotation
from panoptic.data.panoptic_format import PanopticFile, read_panoptic_png, write_panoptic_png
from panoptic.metrics.functional import CategorySums, sum_image
from panoptic.score import score_files
from panoptic.structures import Category, PanopticMap, Segment

NUM_WORKERS = 2


@dataclass(frozen=True)
class Row:
    """One line of the report: passes if `figure` is at least (`at_least`) or at most `bar`."""

    work: str
    figure: float
    bar: float
    at_least: bool
    unit: str
    detail: str

    @property
    def passes(self):
        """Whether the figure is on the right side of the bar."""
        return self.figure >= self.bar if self.at_least else self.figure <= self.bar


def make_categories(number):
    """Categories of which every second is a thing."""
    return [Category(id=n, name=f"category {n}", is_thing=n % 2 == 1) for n in range(number)]


def make_pair(height, width, num_segments, seed=0):
    """A prediction and a target of `num_segments` regions with wavy edges, one category each, and some void."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    wavy_y, wavy_x = y + 6 * np.sin(x / 11), x + 6 * np.sin(y / 7)
    nearest = np.full((height, width), np.inf, dtype=np.float32)
    numbers = np.zeros((height, width), dtype=np.int64)
    for number in range(1, num_segments + 1):
        distance = (wavy_y - generator.uniform(0, height)) ** 2 + (wavy_x - generator.uniform(0, width)) ** 2
        numbers[distance < nearest] = number
        nearest = np.minimum(nearest, distance)
    target = numbers.copy()
    target[: height // 20] = 0
    prediction = np.roll(numbers, (3, 5), axis=(0, 1))
    ids = np.concatenate([[0], generator.choice(np.arange(1, 2**24), num_segments, replace=False)])
    segments = [Segment(int(ids[n]), n - 1) for n in range(1, num_segments + 1)]
    return tuple(PanopticMap(torch.from_numpy(ids[one]), segments) for one in (prediction, target))


def make_stripes(height, width, num_segments):
    """A prediction and a target of 20x20 tiles dealt out to N segments: the edges do not depend on N."""
    tile = np.arange(height)[:, None] // 20 + np.arange(width)[None] // 20
    numbers = torch.from_numpy(1 + tile % num_segments)
    segments = [Segment(n, n - 1) for n in range(1, num_segments + 1)]
    return PanopticMap(numbers.roll(1, dims=1), segments), PanopticMap(numbers, segments)


def fastest(work, repeats):
    """Seconds of the fastest of `repeats` runs."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def seconds_of_ours(pair, num_categories, repeats=20):
    """PQ, PC and mIoU of one pair."""
    sum_image(*pair, num_categories=num_categories)  # compiled before the clock starts
    return fastest(lambda: sum_image(*pair, num_categories=num_categories), repeats)


def seconds_of_unique(pair):
    """The joint histogram alone, by `numpy.unique` over pair keys."""
    prediction, target = (one.segment_ids.numpy() for one in pair)

    def count():
        return np.unique(target.astype(np.uint64) * 2**24 + prediction.astype(np.uint64), return_counts=True)

    return fastest(count, 5)


def seconds_of_torchmetrics(pair, categories):
    """PQ of one pair by torchmetrics."""
    metric = TorchmetricsPanopticQuality(
        things={c.id for c in categories if c.is_thing},
        stuffs={c.id for c in categories if not c.is_thing} | {len(categories)},
        allow_unknown_preds_category=True,
    )
    both = []
    for one in pair:
        ids = torch.tensor([0, *(s.id for s in one.segments)])
        category_ids = torch.tensor([len(categories), *(s.category_id for s in one.segments)])  # void is a stuff there
        ids, order = ids.sort()
        row = torch.searchsorted(ids, one.segment_ids)
        both.append(torch.stack([category_ids[order][row], one.segment_ids], dim=-1)[None])  # (1, H, W, 2)
    return fastest(lambda: metric.update(*both), 1)


def compare(height, width, num_segments):
    """Ours against torchmetrics and against `numpy.unique`."""
    categories, pair = make_categories(num_segments), make_pair(height, width, num_segments)
    ours, unique = seconds_of_ours(pair, num_segments), seconds_of_unique(pair)
    torchmetrics = seconds_of_torchmetrics(pair, categories)
    work = f"PQ + PC + mIoU, {height}x{width}, {num_segments} segments"
    own = f"{1000 * ours:.2f} ms"
    return [
        Row(f"{work}, against torchmetrics", torchmetrics / ours, 1000, True, "x", f"{own}, {torchmetrics:.2f} s"),
        Row(f"{work}, against numpy.unique", unique / ours, 10, True, "x", f"{own}, {1000 * unique:.1f} ms"),
    ]


def growth():
    """Seconds per pixel from a small to a 16 times larger image; seconds from 20 to 150 segments and categories."""
    small = seconds_of_ours(make_pair(480, 640, 20), 20)
    large = seconds_of_ours(make_pair(1920, 2560, 20), 20)
    many = seconds_of_ours(make_pair(480, 640, 150), 150)
    few_stripes, many_stripes = (seconds_of_ours(make_stripes(480, 640, number), number) for number in (20, 150))
    return [
        Row("per pixel, 1920x2560 against 480x640", large / small / 16, 2, False, "x", f"{1000 * large:.2f} ms"),
        Row(
            "150 segments against 20, same edges",
            many_stripes / few_stripes,
            2,
            False,
            "x",
            f"{1000 * few_stripes:.2f} ms, {1000 * many_stripes:.2f} ms",
        ),
        Row("150 segments against 20, smaller regions", many / small, 2, False, "x", f"{1000 * many:.2f} ms"),
    ]


def write_pairs(folder, num_pairs, num_different=20):
    """`num_pairs` pairs of PNGs and their tables: (truth, prediction)."""
    pairs = [make_pair(480, 640, 20, seed) for seed in range(num_different)]
    files = []
    for number, name in enumerate(("prediction", "truth")):
        (folder / name).mkdir()
        annotations = {}
        for image_id in range(num_pairs):
            panoptic_map = pairs[image_id % num_different][number]
            write_panoptic_png(folder / name / f"{image_id}.png", panoptic_map.segment_ids)
            present = set(panoptic_map.segment_ids.unique().tolist())
            segments = tuple(s for s in panoptic_map.segments if s.id in present)
            annotations[image_id] = PanopticAnnotation(image_id, f"{image_id}.png", segments, None, None)
        files.append(PanopticFile(folder / f"{name}.json", folder / name, make_categories(20), annotations))
    return files[1], files[0]


def score_folder(num_pairs=200, projected=5000):
    """`panoptic score` on files, projected to a data set, and the part of it that decodes PNGs."""
    with tempfile.TemporaryDirectory() as name:
        truth, prediction = write_pairs(Path(name), num_pairs)
        next(score_files(truth, prediction, num_workers=1))  # compiled before the clock starts
        start = time.perf_counter()
        sum(score_files(truth, prediction, num_workers=NUM_WORKERS), CategorySums.zeros(20))
        seconds = time.perf_counter() - start
        pngs = sorted(truth.png_folder.iterdir())
        decoding = fastest(lambda: [read_panoptic_png(png) for png in pngs], 1) * 2
    detail = (
        f"{num_pairs} pairs in {seconds:.2f} s with {NUM_WORKERS} threads; decoding alone {decoding:.2f} s with one"
    )
    return [Row(f"panoptic score, {projected} pairs 480x640", seconds / num_pairs * projected, 60, False, "s", detail)]


def main():
    """Measure and print every row; 0 if all pass."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(NUM_WORKERS)
    rows = [*compare(480, 640, 20), *compare(1024, 2048, 60), *growth(), *score_folder()]
    table = Table(title="metrics")
    for heading in ("work", "bar", "figure", "", "measured"):
        table.add_column(heading)
    for row in rows:
        bar = f"{'>=' if row.at_least else '<='} {row.bar:g} {row.unit}"
        verdict = "pass" if row.passes else "fail"
        table.add_row(row.work, bar, f"{row.figure:.4g} {row.unit}", verdict, row.detail)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    return 0 if all(row.passes for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
