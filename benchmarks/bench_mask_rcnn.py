"""A training step of our Mask R-CNN against torchvision's `maskrcnn_resnet50_fpn`: time turn by turn, and memory.

Run with `python benchmarks/bench_mask_rcnn.py`; three minutes on two cores, 4 GB. Both have the same weights, images
and instances, all layers train, batch norm keeps its statistics. Each draws its own anchors and regions: as many, but
not the same ones. On a GPU, where there is one, the images have the size of COCO's. Memory is the peak of three steps
over what the process has before them, each in a process of its own.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from measuring import peak_of, seconds_by_turns
from rich.console import Console
from rich.table import Table
from torchvision.models.detection import maskrcnn_resnet50_fpn

from panoptic.configuration import load_config, resolved
from panoptic.models.build import build_network
from panoptic.models.initialization import initialize_from
from panoptic.structures import Batch, Category, ImageStatistics
from panoptic.targets.instances import InstanceTargets

NUM_THREADS = 2
BATCH, INSTANCES, CLASSES = 2, 8, 80
SIZES = {"cpu": (256, 320), "cuda": (800, 1344)}
REPEATS = {"cpu": 10, "cuda": 40}
BAR = 1.1
"""A step may take this many times torchvision's time and memory."""

CATEGORIES = [Category(number, f"category {number}", is_thing=True) for number in range(CLASSES)]
VARIANTS = {"same order of values": False, "channels last": True}


def make_theirs(size):
    """Torchvision's network with random weights of a seed, its statistics those of one batch."""
    torch.manual_seed(0)
    network = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=1 + CLASSES, min_size=min(size), max_size=max(size)
    )
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        network.backbone(torch.randn(1, 3, 256, 320))
    network.train()
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.eval()
    return network


def make_ours(theirs, channels_last):
    """Our network with the same weights."""
    choices = ["backbone=resnet50_frozen", "decoder=fpn", "heads=mask_rcnn", f"channels_last={channels_last}"]
    network = build_network(resolved(load_config("train", choices)), CATEGORIES, ImageStatistics())
    with tempfile.TemporaryDirectory() as folder:
        torch.save(theirs.state_dict(), Path(folder) / "theirs.pth")
        initialize_from(network, Path(folder) / "theirs.pth")
    return network.train()


def make_batch(size, device):
    """Images (B, 3, H, W) uint8 and targets of rectangles."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (BATCH, 3, *size), dtype=torch.uint8, generator=generator)
    targets = []
    for seed in range(BATCH):
        sides = torch.rand(INSTANCES, 2, generator=generator).mul(0.35).add(0.05) * torch.tensor([size[1], size[0]])
        corners = torch.rand(INSTANCES, 2, generator=generator) * (torch.tensor([size[1], size[0]]) - sides)
        boxes = torch.cat([corners, corners + sides], 1).round()
        area = int((boxes[:, 2:] - boxes[:, :2]).prod(1).sum())
        ids = torch.randint(CLASSES, (INSTANCES,), generator=generator)
        parts = boxes, ids, torch.ones(area, dtype=torch.bool), torch.zeros(0, 4)
        targets.append(InstanceTargets(*(part.to(device) for part in parts), seed))
    return images.to(device), targets


def our_step(network, images, targets):
    """Losses and gradients."""
    sizes = [tuple(images.shape[-2:])] * len(images)
    network.zero_grad()
    outputs, features = network(images, sizes)
    sum(network.losses(outputs, features, Batch(images, sizes, {"instances": targets}, [])).values()).backward()


def their_step(network, images, targets):
    """Losses and gradients."""
    network.zero_grad()
    sum(network(images, targets).values()).backward()


def make_step(name, device):
    """A step of "torchvision" or of one of `VARIANTS`, without arguments."""
    theirs = make_theirs(SIZES[device])
    batch = make_batch(SIZES[device], device)
    if name in VARIANTS:
        network = make_ours(theirs, VARIANTS[name]).to(device)
        return lambda: our_step(network, *batch)
    theirs.to(device)
    images, targets = batch
    masks = [target.full_masks(SIZES[device]).byte() for target in targets]
    wanted = [{"boxes": t.boxes, "labels": 1 + t.category_ids, "masks": m} for t, m in zip(targets, masks, strict=True)]
    return lambda: their_step(theirs, list(images.float() / 255), wanted)


def measure_times(device):
    """{name: seconds of each repetition}, turn by turn."""
    steps = {name: make_step(name, device) for name in ("torchvision", *VARIANTS)}
    return seconds_by_turns(steps, REPEATS[device], device)


def measure_peak(name, device):
    """Megabytes of three steps beside weights and batch, in a process of its own."""
    command = [sys.executable, __file__, "--peak", name, "--device", device]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main():
    """Print the ratios and whether they pass; the exit status is 1 if one does not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peak", help="print the memory of one network's steps and stop")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(NUM_THREADS)
    if options.peak is not None:
        print(peak_of(make_step(options.peak, options.device), options.device))
        return 0
    times = measure_times(options.device)
    peaks = {name: measure_peak(name, options.device) for name in times}
    height, width = SIZES[options.device]
    title = f"Mask R-CNN: a training step, {BATCH} images of {height}x{width}, {options.device}"
    table = Table("network", "step (ms)", "ratio", "quartiles", "memory (MB)", "ratio", "bar", "", title=title)
    passed = True
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times["torchvision"], strict=True)]
        lower, ratio, upper = statistics.quantiles(ratios, n=4)
        memory = peaks[name] / peaks["torchvision"]
        holds = max(ratio, memory) <= BAR
        passed &= holds
        row = (f"{1000 * statistics.median(seconds):.0f}", f"{ratio:.2f}", f"{lower:.2f} to {upper:.2f}")
        verdict = ("", "") if name == "torchvision" else (f"<= {BAR:.2f}", "[green]pass" if holds else "[red]fail")
        table.add_row(name, *row, f"{peaks[name]:.0f}", f"{memory:.2f}", *verdict)
    Console().print(table)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
