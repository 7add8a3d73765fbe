"""Speed of the data path: what targets cost beside the augmentation of the same crop, with one thread as in a worker.

Run with `python benchmarks/bench_data.py`; some ten seconds.
"""

import statistics
import sys
import time
from functools import partial

import cv2
import torch
from rich.console import Console
from rich.table import Table

from panoptic.data.loading import Encoders, worker_init_fn
from panoptic.data.transforms import TrainTransform
from panoptic.structures import STAR, Category, PanopticMap, Sample, Segment
from panoptic.targets.keypoints import encode_keypoints
from panoptic.targets.semantic import encode_semantic

SIZE = (721, 721)
NUM_INSTANCES = 60
CATEGORIES = [Category(n, f"category {n}", is_thing=n % 2 == 1) for n in range(20)]
BAR = 1.0
"""Encoding may take as long as augmentation."""


def make_sample():
    """A crop of `NUM_INSTANCES` ellipses on four bands of stuff, in noise; every tenth ellipse is a crowd."""
    bands = torch.arange(SIZE[0]).mul(4).div(SIZE[0], rounding_mode="floor") + 1
    segments = [Segment(band + 1, 2 * band) for band in range(4)]
    canvas = bands[:, None].expand(SIZE).int().contiguous().numpy()
    generator = torch.Generator().manual_seed(0)
    for number in range(NUM_INSTANCES):
        x, y = 90 * (number % 8) + 45, 90 * (number // 8) + 45
        axes = tuple(torch.randint(15, 60, (2,), generator=generator).tolist())
        cv2.ellipse(canvas, (x, y), axes, 37 * number, 0, 360, 1000 + number, thickness=-1)
        segments.append(Segment(1000 + number, 2 * (number % 10) + 1, is_crowd=number % 10 == 9))
    image = torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8, generator=generator)
    panoptic_map = PanopticMap(torch.from_numpy(canvas).long(), segments)
    return Sample(image, 0, "ellipses", panoptic_map, None, SIZE)


def median_milliseconds(work, repetitions=30):
    """Median time of `work()` after a first call that compiles."""
    work()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def deeperlab_encoders():
    """The encoders of DeeperLab's five heads; the four keypoint heads share one."""
    keypoints = partial(encode_keypoints, categories=CATEGORIES, graph=STAR)
    heads = dict.fromkeys(("heatmap", "short_range", "middle_range", "long_range"), keypoints)
    return Encoders.of({"semantic": partial(encode_semantic, categories=CATEGORIES), **heads})


def main():
    """Print the ratio and whether it passes; the exit status is 1 if it does not."""
    worker_init_fn(0)
    sample, encoders = make_sample(), deeperlab_encoders()
    encode = median_milliseconds(lambda: encoders(sample))
    table = Table(
        "work", "encode (ms)", "augment (ms)", "ratio", "bar", "", title="targets of a 721x721 crop, 60 instances"
    )
    passed = True
    for name, transform in (
        ("scale, crop, flip, colour", TrainTransform(SIZE)),
        ("the same without colour", TrainTransform(SIZE, colour=0)),
    ):
        seeds = iter(range(1000))
        augment = median_milliseconds(lambda: transform(sample, next(seeds)))  # noqa: B023, called before the next round
        passed &= encode <= BAR * augment
        verdict = "[green]pass" if encode <= BAR * augment else "[red]fail"
        table.add_row(name, f"{encode:.2f}", f"{augment:.2f}", f"{encode / augment:.2f}", f"<= {BAR:.2f}", verdict)
    Console().print(table)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
