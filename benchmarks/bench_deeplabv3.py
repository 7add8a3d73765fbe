"""Our DeepLabv3 against torchvision's `deeplabv3_resnet50`: forward and training step, time turn by turn, and memory.

Run with `python benchmarks/bench_deeplabv3.py`; five minutes on two cores, 4 GB. The same classes, images, labels and
loss, at output stride 8, which is torchvision's, each in the same order of values. Torchvision's has dropout and one
more 3x3 convolution behind its ASPP, the paper's has not (Sec. 3.3): "ours + their layers" is ours with them. The
forward pass is that of evaluation, up to logits at the input's size. On a GPU, where there is one, images have the
paper's size, and both run under bf16 and compiled too. Memory is the peak of three steps over what the process has
before them, each in a process of its own.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from measuring import peak_of, seconds_by_turns
from rich.console import Console
from rich.table import Table
from torch import nn
from torchvision.models.segmentation import deeplabv3_resnet50

from panoptic.configuration import load_config, resolved
from panoptic.models.build import build_network
from panoptic.structures import IGNORE_INDEX, Batch, Category, ImageStatistics
from panoptic.targets.semantic import SemanticTargets

NUM_THREADS = 2
CLASSES = 21
SIZES = {"cpu": (161, 225), "cuda": (513, 513)}
BATCHES = {"cpu": 2, "cuda": 8}
REPEATS = {"cpu": 6, "cuda": 30}
BAR = 1.02
"""Ours may take this many times torchvision's time and memory: as much, and the noise of repetitions."""

FREE_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
"""For glibc: else what is freed stays in the process, and peaks differ by a quarter from run to run."""

THEIRS, OURS, EQUAL = "torchvision", "ours", "ours + their layers"
WORK = ("forward", "training step")
CATEGORIES = [Category(number, f"category {number}", is_thing=number > 0) for number in range(CLASSES)]


@dataclass(frozen=True)
class Setting:
    """How both networks run."""

    channels_last: bool = False
    bf16: bool = False
    compiled: bool = False


SETTINGS = {
    "cpu": {"torch's order": Setting(), "channels last": Setting(channels_last=True)},
    "cuda": {
        "torch's order": Setting(),
        "channels last": Setting(channels_last=True),
        "channels last, bf16": Setting(channels_last=True, bf16=True),
        "channels last, bf16, compiled": Setting(channels_last=True, bf16=True, compiled=True),
    },
}


def make_ours(channels_last, *, equal_layers):
    """Our network at output stride 8; multi-grid (1, 1, 1), as torchvision's."""
    choices = ["backbone=resnet50_multi_grid", "backbone.multi_grid=[1,1,1]", "backbone.output_stride=8"]
    choices += ["decoder=deeplabv3", "heads=deeplabv3", "fusion=semantic", f"channels_last={channels_last}"]
    network = build_network(resolved(load_config("train", choices)), CATEGORIES, ImageStatistics())
    if equal_layers:
        head = network.heads["semantic"]
        convolution = nn.Conv2d(256, 256, 3, padding=1, bias=False)
        head.layers = nn.Sequential(nn.Dropout(0.5), convolution, nn.BatchNorm2d(256), nn.ReLU(), head.layers)
    return network.to(memory_format=torch.channels_last) if channels_last else network


def make_theirs(channels_last):
    """Torchvision's network with random weights."""
    network = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES)
    return network.to(memory_format=torch.channels_last) if channels_last else network


def make_batch(device):
    """Images (B, 3, H, W) uint8, and labels (B, H, W) with a stripe of void."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (BATCHES[device], 3, *SIZES[device]), dtype=torch.uint8, generator=generator)
    labels = torch.randint(CLASSES, images[:, 0].shape, dtype=torch.uint8, generator=generator)
    labels[:, :, :8] = IGNORE_INDEX
    return images.to(device), labels.to(device)


class Ours:
    """Logits at the input's size, and the loss, of our network."""

    def __init__(self, network, images, labels):
        self.network, self.images = network, images
        self.sizes = [tuple(images.shape[-2:])] * len(images)
        small = torch.zeros(labels.shape[1:], dtype=torch.bool, device=labels.device)
        self.batch = Batch(images, self.sizes, {"semantic": [SemanticTargets(one, small) for one in labels]}, [])

    def logits(self):
        """(B, C, H, W)."""
        return self.network(self.images, self.sizes)[0]["semantic"].upsampled()

    def loss(self):
        """A scalar."""
        return sum(self.network.losses(*self.network(self.images, self.sizes), self.batch).values())


class Theirs:
    """The same of torchvision's network, on images that are normalised as ours does it."""

    def __init__(self, network, images, labels, channels_last):
        self.network, self.images, self.labels, self.channels_last = network, images, labels, channels_last
        statistics = ImageStatistics()
        self.mean = 255 * torch.tensor(statistics.mean, device=images.device)[:, None, None]
        self.std = 255 * torch.tensor(statistics.std, device=images.device)[:, None, None]

    def logits(self):
        """(B, C, H, W)."""
        images = (self.images - self.mean) / self.std
        return self.network(images.to(memory_format=torch.channels_last) if self.channels_last else images)["out"]

    def loss(self):
        """A scalar."""
        return F.cross_entropy(self.logits().float(), self.labels.long(), ignore_index=IGNORE_INDEX)


def make_step(name, work, setting, device):
    """One forward pass or training step of a network, without arguments."""
    torch.manual_seed(0)
    if name == THEIRS:
        network = make_theirs(setting.channels_last)
    else:
        network = make_ours(setting.channels_last, equal_layers=name == EQUAL)
    network.to(device).train(work != "forward")
    if setting.compiled:
        network.compile()
    batch = make_batch(device)
    part = Theirs(network, *batch, setting.channels_last) if name == THEIRS else Ours(network, *batch)
    mixed = torch.autocast(device, torch.bfloat16) if setting.bf16 else contextlib.nullcontext()

    def forward():
        with torch.no_grad(), mixed:
            part.logits()

    def train():
        network.zero_grad()
        with mixed:
            loss = part.loss()
        loss.backward()

    return forward if work == "forward" else train


def measure_times(work, setting, device):
    """{name: seconds of each repetition}, turn by turn."""
    steps = {name: make_step(name, work, setting, device) for name in (THEIRS, OURS, EQUAL)}
    return seconds_by_turns(steps, REPEATS[device], device)


def measure_peak(name, work, setting, device):
    """Megabytes of three steps beside weights and batch, in a process of its own."""
    command = [sys.executable, __file__, "--peak", name, work, setting, "--device", device]
    environment = {**os.environ, **FREE_AT_ONCE}
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(result.stdout.split()[-1])


def add_rows(table, work, name_of_setting, device):
    """Measure one kind of work in one setting; whether ours passes."""
    times = measure_times(work, SETTINGS[device][name_of_setting], device)
    peaks = {name: measure_peak(name, work, name_of_setting, device) for name in times}
    passed = True
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times[THEIRS], strict=True)]
        lower, ratio, upper = statistics.quantiles(ratios, n=4)
        memory = peaks[name] / peaks[THEIRS]
        verdict = ("", "")
        if name == OURS:
            passed = max(ratio, memory) <= BAR
            verdict = (f"<= {BAR:.2f}", "[green]pass" if passed else "[red]fail")
        row = (f"{1000 * statistics.median(seconds):.0f}", f"{ratio:.2f}", f"{lower:.2f} to {upper:.2f}")
        table.add_row(name_of_setting, name, *row, f"{peaks[name]:.0f}", f"{memory:.2f}", *verdict)
    table.add_section()
    return passed


def main():
    """Print the ratios and whether they pass; the exit status is 1 if one does not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peak", nargs=3, metavar=("NETWORK", "WORK", "SETTING"), help="print the memory of one")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(NUM_THREADS)
    device = options.device
    if options.peak is not None:
        name, work, setting = options.peak
        print(peak_of(make_step(name, work, SETTINGS[device][setting], device), device))
        return 0
    height, width = SIZES[device]
    passed = []
    for work in WORK:
        title = f"DeepLabv3, {work}: {BATCHES[device]} images of {height}x{width}, output stride 8, {device}"
        columns = ("setting", "network", "time (ms)", "ratio", "quartiles", "memory (MB)", "ratio", "bar", "")
        table = Table(*columns, title=title)
        passed += [add_rows(table, work, setting, device) for setting in SETTINGS[device]]
        Console(width=120).print(table)
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
