"""Scenes drawn per second, and how many times that is of what the training step of a small network takes in."""

from __future__ import annotations

import time

import cv2
import timm
import torch
from rich.console import Console
from rich.table import Table

from panoptic.data.scenes import Scenes

SIZES = ((96, 128), (128, 192), (480, 640))
BATCH_SIZE = 8
BAR = 1.0
"""One core must draw at least as many scenes as one core's training step takes in."""


def scenes_per_second(size: tuple[int, int], difficulty: str, seconds: float = 3.0) -> float:
    """Drawing rate of one core, after a first scene that compiles."""
    scenes = Scenes("train", length=100_000, size=size, difficulty=difficulty)
    scenes[0]
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        count += 1
        scenes[count]
    return count / (time.perf_counter() - start)


def trained_images_per_second(size: tuple[int, int], seconds: float = 5.0) -> float:
    """Images that forward and backward of a small backbone take in, without any head, on one core."""
    network = timm.create_model("resnet10t", features_only=True, pretrained=False)
    images = torch.rand(BATCH_SIZE, 3, *size)

    def step() -> None:
        network.zero_grad(set_to_none=True)
        sum(level.square().mean() for level in network(images)).backward()

    step()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        count += BATCH_SIZE
    return count / (time.perf_counter() - start)


def main() -> int:
    """Print the table; 1 if a ratio misses the bar."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    table = Table("size", "difficulty", "scenes/s", "trained images/s", "ratio", title="one core, resnet10t, batch 8")
    missed = False
    for size in SIZES:
        trained = trained_images_per_second(size)
        for difficulty in ("easy", "hard"):
            drawn = scenes_per_second(size, difficulty)
            missed |= drawn / trained < BAR
            name = f"{size[0]}x{size[1]}"
            table.add_row(name, difficulty, f"{drawn:.0f}", f"{trained:.0f}", f"{drawn / trained:.2f} (bar {BAR})")
    Console(width=110).print(table)
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
