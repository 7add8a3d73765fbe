"""Prediction on many files: reading, network, fusion and writing at the same time, in bounded memory.

One thread reads ahead, the caller's own runs the network, some fuse, one writes. The libraries that decode, fuse and
encode release Python's lock, so that these overlap; between two stages only a few images wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from panoptic.inference.predictor import NetworkInput
from panoptic.structures import PanopticMap

Item = TypeVar("Item")
Result = TypeVar("Result")

STAGES = ("reading", "network", "fusion", "writing")


class Stages(Protocol):
    """What a stream asks of a predictor; see `Predictor`."""

    device: torch.device

    def prepare(self, image: Path) -> NetworkInput:
        """Read, resize and pad; called by one thread of its own."""

    def forward(self, prepared: NetworkInput) -> Mapping[str, Any]:
        """Run the network; called by the thread that asks for results."""

    def fuse(self, outputs: Mapping[str, Any], prepared: NetworkInput) -> PanopticMap:
        """The prediction; called by several threads at a time."""


@dataclass
class StageTimes:
    """How long each stage was at work.

    Args:
        threads: {stage: threads that share its work}.
        busy: {stage: seconds, those of all its threads together}.
        elapsed: seconds from the first image to the last.
        images: that were written.
    """

    threads: dict[str, int]
    busy: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    elapsed: float = 0.0
    images: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def measured(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            with self._lock:
                self.busy[stage] += seconds

    def summary(self) -> str:
        """Images per second, and for each stage the share of the time in which its threads were at work."""
        if not self.images:
            return "no images"
        shares = (
            f"{stage} {self.busy[stage] / (self.elapsed * count):.0%}{f' of {count} threads' if count > 1 else ''}"
            for stage, count in self.threads.items()
        )
        return f"{self.images / self.elapsed:.2f} images per second; at work: {', '.join(shares)}"


def predict_stream(
    predictor: Stages,
    paths: Sequence[Path],
    *,
    draw: Callable[[Path, Tensor, PanopticMap], None],
    write: Callable[[int, Path, PanopticMap], None],
    fusion_threads: int = 2,
) -> Generator[StageTimes, None, None]:
    """Segment files, the same as one after another; yields the times so far after each image that was written.

    An error of any stage is raised as soon as it is met, and the other stages end before that.

    Args:
        predictor: its three steps.
        paths: files, in the order in which they are written.
        draw: (path, photograph (3, H, W) uint8, prediction), called right after fusion, by several threads at a time.
        write: (number of the path, path, prediction), called in order, by one thread.
        fusion_threads: that fuse and draw; each holds the outputs of one image at the network's input resolution.
    """
    if fusion_threads < 1:
        raise ValueError(f"expected at least 1 thread for fusion, got fusion_threads={fusion_threads}")
    times = StageTimes({stage: fusion_threads if stage == "fusion" else 1 for stage in STAGES})

    def prepare(path: Path) -> tuple[Path, NetworkInput]:
        with times.measured("reading"):
            return path, predictor.prepare(path)

    def forward(path: Path, prepared: NetworkInput) -> tuple[Path, NetworkInput, Mapping[str, Any]]:
        with times.measured("network"):
            outputs = predictor.forward(prepared)
            if predictor.device.type == "cuda":  # else the network's time would be counted as that of fusion
                torch.cuda.synchronize(predictor.device)
            return path, prepared, outputs

    def fuse(job: tuple[Path, NetworkInput, Mapping[str, Any]]) -> tuple[Path, PanopticMap]:
        path, prepared, outputs = job
        with times.measured("fusion"):
            panoptic_map = predictor.fuse(outputs, prepared)
            draw(path, prepared.photograph, panoptic_map)
            return path, panoptic_map

    def finish(job: tuple[int, tuple[Path, PanopticMap]]) -> None:
        number, (path, panoptic_map) = job
        with times.measured("writing"):
            write(number, path, panoptic_map)

    start = time.perf_counter()
    with ExitStack() as stack:
        prepared = _in_order(_pool(stack, "reading", 1), prepare, paths, ahead=2)
        outputs = (forward(*item) for item in prepared)
        fused = _in_order(_pool(stack, "fusion", fusion_threads), fuse, outputs, ahead=fusion_threads)
        for _ in _in_order(_pool(stack, "writing", 1), finish, enumerate(fused), ahead=1):
            times.images += 1
            times.elapsed = time.perf_counter() - start
            yield times


def _pool(stack: ExitStack, name: str, threads: int) -> ThreadPoolExecutor:
    """Threads that end with the stack, without what they have not begun."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    stack.callback(pool.shutdown, wait=True, cancel_futures=True)
    return pool


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int
) -> Iterator[Result]:
    """The function of each item, in order; `ahead` further ones are at work or done while one is used."""
    pending: deque[Future[Result]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
