"""DeeperLab's fusion at the paper's sizes: milliseconds per stage, growth with pixels and instances, memory.

Run with `python benchmarks/bench_fusion.py`; about two minutes on two cores, 4 GB. Inputs are the perfect outputs of
a drawn map, plus noise that varies as a network's does: per cell of stride 4, bilinear between. Things cover a quarter
of it, at one configuration half: twice and four times their share in the street scenes that the paper's times are of
(Mapillary's sample image: 11 % in 32 things; Cityscapes' 7 %). The bars of time and growth leave out the argmax over
categories, whose time goes with their number alone.
"""

import argparse
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import torch
from measuring import PeakMemory
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from panoptic.fusion import bottom_up
from panoptic.models.heads.base import DenseOutput
from panoptic.models.layers import resize_bilinear
from panoptic.models.network import ImageOutputs
from panoptic.structures import STAR, Category, PanopticMap, Sample, Segment
from panoptic.targets.keypoints import (
    encode_keypoints,
    expand_disks,
    heatmap_target,
    long_range_target,
    middle_range_target,
    short_range_target,
)

NUM_THREADS = 2
SIDES = (721, 1441)
COUNTS = (10, 60, 200)
SHARE, LARGE_SHARE = 0.25, 0.5
REPEATS = 9
RADIUS = 25.0
CATEGORIES = tuple(Category(n, f"category {n}", is_thing=n >= 28) for n in range(65))
"""As many as Mapillary Vistas has: 28 stuff, 37 things."""

ARGMAX = "predicted_categories"
STAGES = (
    ARGMAX,
    "thing_pixels",
    "look_up",
    "locate_keypoints",
    "hough_scores",
    "find_peaks",
    "follow_edges",
    "expected_oks",
    "group_keypoints",
    "suppress_boxes",
    "assign_pixels",
    "paste_categories",
    "majority_vote",
    "paste_instances",
)
"""Functions that `fuse_bottom_up` calls; what it does beside them is "the rest"."""


def draw_map(side, num_things, share=SHARE, seed=0):
    """A square map: stripes of stuff, and ellipses in a grid that cover about `share`, whatever their number."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    ids = 1 + (y // (side / 8)).astype(np.int64)
    segments = [Segment(n + 1, n) for n in range(8)]
    columns = int(np.ceil(np.sqrt(num_things)))
    rows = int(np.ceil(num_things / columns))
    for number in range(num_things):
        row, column = number // columns, number % columns
        height, width = generator.uniform(0.66, 1, 2) * (share / 2.2) ** 0.5 * (side / rows, side / columns)
        centre_y, centre_x = generator.uniform(0.45, 0.55, 2) * (side / rows, side / columns)
        centre_y, centre_x = centre_y + row * side / rows, centre_x + column * side / columns
        ids[((y - centre_y) / height) ** 2 + ((x - centre_x) / width) ** 2 <= 1] = 9 + number
        segments.append(Segment(9 + number, 28 + number % 37))
    return PanopticMap(torch.from_numpy(ids), segments)


def noisy(values, deviation, generator):
    """Values (..., H, W) plus normal noise of cells of stride 4, bilinear between them."""
    height, width = values.shape[-2:]
    cells = torch.randn(1, values[..., 0, 0].numel(), height // 4 + 1, width // 4 + 1, generator=generator)
    return values.add_(resize_bilinear(deviation * cells, (height, width)).view_as(values))


def noisy_outputs(panoptic_map):
    """The five outputs of a good network: logits of +-6 with a deviation of 1, offsets that are off by 1 pixel."""
    generator = torch.Generator().manual_seed(0)
    size = panoptic_map.size
    image = torch.zeros(1, dtype=torch.uint8).expand(3, *size)
    sample = Sample(image, 0, "drawn", panoptic_map, None, size)
    targets = encode_keypoints(sample, categories=CATEGORIES, graph=STAR)
    owner = expand_disks(targets, RADIUS)
    category_of = torch.zeros(len(panoptic_map.segments) + 1, dtype=torch.int64)
    for segment in panoptic_map.segments:
        category_of[segment.id] = segment.category_id
    semantic = F.one_hot(category_of[panoptic_map.segment_ids], len(CATEGORIES)).byte().movedim(2, 0).float()
    return {
        "semantic": noisy(semantic.mul_(6).contiguous(), 1, generator),
        "heatmap": noisy(12 * heatmap_target(owner) - 6, 1, generator),
        "short_range": noisy(short_range_target(targets, owner)[0], 1, generator),
        "middle_range": noisy(middle_range_target(targets, owner, STAR)[0], 1, generator),
        "long_range": noisy(long_range_target(targets)[0], 1, generator),
    }


class Stopwatch:
    """Seconds that the named functions of a module take while they run inside a `with`."""

    def __init__(self, module, names):
        self.module, self.names = module, names
        self.seconds = dict.fromkeys(names, 0.0)

    def __enter__(self):
        self.patches = ExitStack()
        for name in self.names:
            self.patches.enter_context(patch.object(self.module, name, self._timed(name)))
        return self

    def __exit__(self, *error):
        self.patches.close()

    def _timed(self, name):
        function = getattr(self.module, name)

        def timed(*arguments, **options):
            start = time.perf_counter()
            result = function(*arguments, **options)
            self.seconds[name] += time.perf_counter() - start
            return result

        return timed


@dataclass(frozen=True)
class Measurement:
    """The fastest run of one configuration in milliseconds: each stage, the rest, and all of it without the argmax."""

    stages: dict[str, float]
    num_found: int

    @property
    def fusion(self):
        """All stages but the argmax."""
        return sum(self.stages.values()) - self.stages[ARGMAX]


def measure(side, num_things, share):
    """Fuse one drawn image several times."""
    outputs = noisy_outputs(draw_map(side, num_things, share))
    runs = []
    for _ in range(1 + REPEATS):
        with Stopwatch(bottom_up, STAGES) as stopwatch:
            start = time.perf_counter()
            result = bottom_up.fuse_bottom_up(outputs, CATEGORIES, radius=RADIUS)
            total = time.perf_counter() - start
        seconds = {**stopwatch.seconds, "the rest": total - sum(stopwatch.seconds.values())}
        num_found = sum(segment.score is not None for segment in result.panoptic_map.segments)
        runs.append(Measurement({name: 1000 * second for name, second in seconds.items()}, num_found))
    return min(runs[1:], key=lambda run: run.fusion)  # the first one compiles


def grow_memory(size):
    """Print the growth of the peak memory by upsampling and fusing one image, as a multiple of the upsampled outputs.

    Runs in a process of its own: a peak never falls. The image is padded, as most are.
    """
    outputs = noisy_outputs(draw_map(289, 10))
    bottom_up.fuse_bottom_up(outputs, CATEGORIES)
    padded = (size[0], size[1] + 8)
    cells = {
        name: DenseOutput(
            resize_bilinear(output.flatten(0, -3)[None], (padded[0] // 4 + 1, padded[1] // 4 + 1)),
            padded,
            pairs=output.ndim == 4,
        )
        for name, output in outputs.items()
    }
    with PeakMemory("cpu") as memory:
        bottom_up.fuse_bottom_up(ImageOutputs(cells, 0, size), CATEGORIES)
    print(memory.bytes / (4 * padded[0] * padded[1] * sum(cell.values.shape[1] for cell in cells.values())))


def measure_memory():
    """`grow_memory` of an image of 1441 x 1081 pixels, in a fresh process."""
    process = subprocess.run([sys.executable, __file__, "--memory"], capture_output=True, text=True, check=True)
    return float(process.stdout)


def stage_table(measurements):
    """Milliseconds per stage, a column for each configuration."""
    table = Table(title=f"fusion with {NUM_THREADS} threads, ms (fastest of {REPEATS})")
    table.add_column("stage")
    for (side, count, share), measurement in measurements.items():
        table.add_column(f"{side}²\n{count} things\non {share:.0%}\n{measurement.num_found} found", justify="right")
    for name in (*STAGES, "the rest"):
        table.add_row(name, *(f"{measurement.stages[name]:.1f}" for measurement in measurements.values()))
    table.add_section()
    table.add_row("fusion without argmax", *(f"{measurement.fusion:.1f}" for measurement in measurements.values()))
    return table


def main():
    """Print the stages and the bars; the exit status is 1 if one does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--memory", action="store_true", help="only print the growth of memory, in this process")
    torch.set_num_threads(NUM_THREADS)
    if parser.parse_args().memory:
        grow_memory((1441, 1081))
        return 0
    memory = measure_memory()
    configurations = [(side, count, SHARE) for side in SIDES for count in COUNTS]
    configurations += [(side, 60, LARGE_SHARE) for side in SIDES]
    measurements = {configuration: measure(*configuration) for configuration in configurations}
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(stage_table(measurements))
    ms = {configuration: measurement.fusion for configuration, measurement in measurements.items()}
    ms = {(side, count): time for (side, count, share), time in ms.items() if share == SHARE}
    bars = [
        ("60 instances at 721² (the paper's time)", ms[721, 60], 45, "ms"),
        ("60 instances at 1441² (the paper's time)", ms[1441, 60], 145, "ms"),
        ("60 instances, 1441² against 721² (4.0 times the pixels)", ms[1441, 60] / ms[721, 60], 4.5, "x"),
        ("200 instances against 10 at 721²", ms[721, 200] / ms[721, 10], 2, "x"),
        ("200 instances against 10 at 1441²", ms[1441, 200] / ms[1441, 10], 2, "x"),
        ("memory of upsampling and fusion, 1441x1081, in upsampled outputs", memory, 1.3, "x"),
    ]
    table = Table("work", "figure", "bar", "", title="bars")
    for work, figure, bar, unit in bars:
        verdict = "[green]pass" if figure <= bar else "[red]fail"
        table.add_row(work, f"{figure:.3g} {unit}", f"<= {bar:g} {unit}", verdict)
    console.print(table)
    return 0 if all(figure <= bar for _, figure, bar, _ in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
