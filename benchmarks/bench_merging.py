"""Merging of 100 masks at 800x1333 by detection score and by spatial ranking: milliseconds per stage.

Run with `python benchmarks/bench_merging.py`; about a minute on two cores, 3 GB. Categories are as many as COCO has: 53
of stuff, 80 things. The bars leave out the argmax over categories, whose time goes with their number alone, and include
the pasting and the full masks of the result.
"""

import sys
import time

import numpy as np
import torch
from bench_fusion import NUM_THREADS, Stopwatch
from rich.console import Console
from rich.table import Table

from panoptic.fusion import detection_score, merging, spatial_ranking
from panoptic.models.layers import resize_bilinear
from panoptic.structures import Category, Detections

SIZE = (800, 1333)
NUM_INSTANCES = 100
REPEATS = 9
BAR = 100
CATEGORIES = tuple(Category(n, f"category {n}", is_thing=n >= 53) for n in range(133))
ARGMAX = "predict_semantic"
FUSIONS = {
    "detection score": (
        detection_score,
        detection_score.fuse_detection_score,
        (ARGMAX, "paste_masks", "best_first"),
    ),
    "spatial ranking": (
        spatial_ranking,
        spatial_ranking.fuse_spatial_ranking,
        (ARGMAX, "paste_masks", "best_first", "ranking_scores"),
    ),
}
MERGING = ("_paste_free", "_paste_stuff", "as_instances")


def smooth_noise(channels, generator):
    """(channels, H, W) normal noise of cells of stride 4, bilinear between them, as a network's logits are."""
    cells = torch.randn(1, channels, SIZE[0] // 4 + 1, SIZE[1] // 4 + 1, generator=generator)
    return resize_bilinear(cells, SIZE)[0]


def draw_detections(generator):
    """100 ellipses on grids of 28x28, over boxes of a few dozen to a few hundred pixels that cover each other."""
    height, width = SIZE
    centres = torch.rand(NUM_INSTANCES, 2, generator=generator) * torch.tensor([width, height])
    # As in COCO: most are small, a few are as large as the image. The geometric mean side is 0.15 of the image's.
    scales = 0.15 * torch.exp(0.8 * torch.randn(NUM_INSTANCES, 1, generator=generator))
    sides = torch.tensor([width, height]) * scales * (0.7 + 0.6 * torch.rand(NUM_INSTANCES, 2, generator=generator))
    boxes = torch.cat([centres - sides / 2, centres + sides / 2], dim=1)
    limits = torch.tensor([width, height, width, height], dtype=torch.float32)
    boxes = torch.minimum(boxes.clamp(min=0), limits)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 28), torch.linspace(-1, 1, 28), indexing="ij")
    ellipses = torch.sigmoid(8 * (1 - y**2 - x**2) + torch.randn(NUM_INSTANCES, 28, 28, generator=generator))
    category_ids = torch.randint(53, 133, (NUM_INSTANCES,), generator=generator)
    scores = 0.5 + 0.5 * torch.rand(NUM_INSTANCES, generator=generator)
    return Detections(category_ids, boxes, scores, ellipses, SIZE)


def draw_outputs():
    """Stripes of stuff with noise, 100 detections, and ranking logits."""
    generator = torch.Generator().manual_seed(0)
    semantic = smooth_noise(len(CATEGORIES), generator)
    for stripe, rows in enumerate(np.array_split(np.arange(SIZE[0]), 8)):
        semantic[stripe, rows] += 6
    return {
        "semantic": semantic,
        "instances": draw_detections(generator),
        "ranking": 2 * smooth_noise(sum(category.is_thing for category in CATEGORIES), generator),
    }


def measure(outputs, name):
    """The fastest of several runs without the argmax: {stage: ms}, the rest included, and how many instances stay."""
    module, fuse, stages = FUSIONS[name]
    runs = []
    for _ in range(1 + REPEATS):
        with Stopwatch(module, stages) as outer, Stopwatch(merging, MERGING) as inner:
            start = time.perf_counter()
            result = fuse(outputs, CATEGORIES)
            total = time.perf_counter() - start
        seconds = outer.seconds | inner.seconds
        seconds["the rest"] = total - sum(seconds.values())
        runs.append({stage: 1000 * second for stage, second in seconds.items()})
    fastest = min(runs[1:], key=lambda run: sum(run.values()) - run[ARGMAX])  # the first one compiles
    return fastest, sum(segment.score is not None for segment in result.panoptic_map.segments)


def main():
    """Print the stages and the bars; the exit status is 1 if one does not hold."""
    torch.set_num_threads(NUM_THREADS)
    outputs = draw_outputs()
    measured = {name: measure(outputs, name) for name in FUSIONS}
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(
        title=f"{NUM_INSTANCES} masks at {SIZE[0]}x{SIZE[1]}, {NUM_THREADS} threads, ms (fastest of {REPEATS})"
    )
    table.add_column("stage")
    for name, (_, num_kept) in measured.items():
        table.add_column(f"{name}\n{num_kept} stay", justify="right")
    for stage in (ARGMAX, "paste_masks", "best_first", "ranking_scores", *MERGING, "the rest"):
        table.add_row(stage, *(f"{ms[stage]:.1f}" if stage in ms else "" for ms, _ in measured.values()))
    table.add_section()
    table.add_row("all", *(f"{sum(ms.values()):.1f}" for ms, _ in measured.values()))
    console.print(table)
    figures = {name: sum(ms.values()) - ms[ARGMAX] for name, (ms, _) in measured.items()}
    table = Table("work, without argmax", "figure", "bar", "", title="bars")
    for name, figure in figures.items():
        verdict = "[green]pass" if figure <= BAR else "[red]fail"
        table.add_row(f"merging by {name}, pasting included", f"{figure:.3g} ms", f"<= {BAR} ms", verdict)
    console.print(table)
    return 0 if all(figure <= BAR for figure in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
