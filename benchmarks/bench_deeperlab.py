"""DeeperLab's three networks at the paper's sizes: images per second with the fusion, and peak memory.

Run with `python benchmarks/bench_deeperlab.py`; minutes on two cores, then on a GPU where there is one. Networks and
sizes are those of the experiments, with random weights. Outputs of random weights are unlike trained ones, and the
fusion's time depends on them: what is fused are the perfect outputs of a drawn map with noise, as in bench_fusion.py,
at the networks' stride of 4. Every measurement runs in a process of its own: none finds memory that another one left.
"""

import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from bench_fusion import CATEGORIES, NUM_THREADS, draw_map, noisy_outputs
from measuring import PeakMemory
from rich.console import Console
from rich.table import Table

from panoptic.configuration import load_config, resolved
from panoptic.inference.predictor import NetworkInput, Predictor
from panoptic.instantiation import build
from panoptic.models.build import build_network
from panoptic.structures import Batch, ImageStatistics, Sample

VARIANTS = {
    "Light Wider MNV2": "deeperlab_light_wider_mnv2",
    "Wider MNV2": "deeperlab_wider_mnv2",
    "Xception-71": "deeperlab_xception71",
}
"""{name in Table 1: experiment}; `<experiment>_721` is the one with half the input."""

PAPER = {
    ("Light Wider MNV2", 721): {"cpu": 0.77, "cuda": 22.61},
    ("Light Wider MNV2", 1441): {"cpu": 0.18, "cuda": 9.37},
    ("Wider MNV2", 1441): {"cpu": 0.09, "cuda": 6.19},
    ("Xception-71", 1441): {"cpu": 0.06, "cuda": 3.09},
}
"""Images per second on a Xeon E5-1650 v3 and a V100 (DeeperLab, Table 1). The paper does not say whether they include
merging; at 22.61 they cannot, an image takes 44 ms and its merging 45."""

NUM_THINGS = 60
WARM_UP_SIDE = 145
REPEATS = {"cpu": 2, "cuda": 10}
BATCH_SIZE = 2
"""The least that trains: one value per channel, as image pooling makes of one image, has no batch statistics."""

MOST_HELD = 1.0
"""Memory of upsampling and fusing, in upsampled outputs of all heads: the 65 maps of categories are 0.61 of them, and
let go of before the others are made; with a copy of them it is 1.23."""


@dataclass(frozen=True)
class Inference:
    """Of one image.

    Args:
        network: seconds of the fastest run, from pixels to outputs at stride 4.
        fusion: seconds of the fastest run, from these to the panoptic map on the CPU, upsampling included.
        network_peak: bytes beside the weights.
        fusion_peak: bytes beside the weights and the outputs at stride 4.
        upsampled: bytes of the outputs of all heads at the network's input resolution.
    """

    network: float
    fusion: float
    network_peak: int
    fusion_peak: int
    upsampled: int


@dataclass(frozen=True)
class Training:
    """Of one step: its seconds, and the bytes of weights, gradients, momentum and activations at their peak."""

    seconds: float
    peak: int


def fastest(repeats, device, function, *arguments):
    """(Seconds of the fastest of some runs, what the last one returned), on a GPU until it is done."""
    seconds, result = [], None
    for _ in range(repeats):
        del result  # else its memory would count in the next run's
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        result = function(*arguments)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def compose(experiment):
    """The experiment's configuration; no data is read."""
    return resolved(load_config("train", [f"experiment={experiment}", "data.root=unused"]))


def noise_image(side):
    """(3, side, side) uint8."""
    return torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def write_cells(side, file):
    """Save {head: (1, K, h, w)}: noisy outputs of a drawn map at every 4th pixel, where a network has its cells."""
    outputs = noisy_outputs(draw_map(side, NUM_THINGS))
    torch.save({name: output[..., ::4, ::4].flatten(0, -3)[None].clone() for name, output in outputs.items()}, file)


def draw_into(outputs, cells):
    """Put the drawn cells of the same pixels in place of what a network made; their order in memory stays its own."""
    for name, output in outputs.items():
        h, w = output.values.shape[-2:]
        output.values.copy_(cells[name][..., :h, :w])


@torch.inference_mode()
def measure_inference(experiment, side, device, file):
    """Network and fusion on one image of side x side pixels; after a smaller one, which compiles and warms up."""
    torch.set_num_threads(NUM_THREADS)
    config, cells = compose(experiment), torch.load(file)
    predictor = Predictor(
        build_network(config, CATEGORIES, ImageStatistics()),
        build(config["fusion"]),
        CATEGORIES,
        resize=build(config["data"]["eval_transform"]),
        device=device,
    )
    for size in (WARM_UP_SIDE, side):
        pixels = noise_image(size)
        image = NetworkInput(pixels, pixels[None], (size, size))
        with PeakMemory(device) as of_network:
            network, outputs = fastest(REPEATS[device], device, predictor.forward, image)
        draw_into(outputs, cells)
        with PeakMemory(device) as of_fusion:
            fusion, _ = fastest(REPEATS[device], device, predictor.fuse, outputs, image)
    channels = sum(output.values.shape[1] for output in outputs.values())
    return Inference(network, fusion, of_network.bytes, of_fusion.bytes, 4 * channels * side**2)


def drawn_batch(network, side, device):
    """Images of noise with drawn maps as their ground truth."""
    samples = [
        Sample(noise_image(side), number, "drawn", draw_map(side, NUM_THINGS, seed=number), None, (side, side))
        for number in range(BATCH_SIZE)
    ]
    targets = {name: [encode(sample).to(device) for sample in samples] for name, encode in network.encoders.items()}
    images = torch.stack([sample.image for sample in samples]).to(device)
    return Batch(images, [(side, side)] * BATCH_SIZE, targets, samples)


def train_step(network, optimizer, config, batch):
    """Forward, losses, backward, clipping and the optimizer's step; bf16-mixed on a GPU, as by default there."""

    def total():
        with torch.autocast("cuda", torch.bfloat16, enabled=batch.images.is_cuda):
            outputs, features = network(batch.images, batch.image_sizes)
            losses = network.losses(outputs, features, batch)
        return sum(config["loss_weights"][name] * loss for name, loss in losses.items())

    optimizer.zero_grad()
    total().backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), config["trainer"]["gradient_clip_val"])
    optimizer.step()


def measure_training(experiment, side, device):
    """A step on crops of side x side pixels; after one on smaller crops, which makes gradients and momentum."""
    torch.set_num_threads(NUM_THREADS)
    config = compose(experiment)
    with PeakMemory(device) as memory:
        network = build_network(config, CATEGORIES, ImageStatistics()).to(device).train()
        optimizer = build(config["optimizer"])(network.parameters())
        for size in (WARM_UP_SIDE, side):
            batch = drawn_batch(network, size, device)
            seconds, _ = fastest(1, device, train_step, network, optimizer, config, batch)
    return Training(seconds, memory.bytes)


def in_own_process(function, *arguments):
    """What the function returns, from a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure_all(device, folder):
    """{(variant, side): Inference} and {(variant, side): Training} of one device."""
    inferences, trainings = {}, {}
    for variant, experiment in VARIANTS.items():
        for name in (f"{experiment}_721", experiment):
            side = compose(name)["data"]["eval_transform"]["longest_side"]
            file = folder / f"{side}.pt"
            if not file.exists():
                in_own_process(write_cells, side, file)
            inferences[variant, side] = in_own_process(measure_inference, name, side, device, file)
        crop = compose(experiment)["data"]["train_transform"]["size"][0]
        trainings[variant, crop] = in_own_process(measure_training, experiment, crop, device)
    return inferences, trainings


def inference_table(device, inferences):
    """A row for each network and size."""
    hardware = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {NUM_THREADS} threads"
    table = Table(title=f"inference, one image, {hardware}, fp32 (fastest of {REPEATS[device]})")
    table.add_column("network")
    headings = ("input", "network\nms", "fusion\nms", "network\nimages/s", "both\nimages/s", "paper\nimages/s")
    for heading in (*headings, "network\npeak GB", "fusion\npeak GB", "fusion, in\nupsampled"):
        table.add_column(heading, justify="right")
    for (variant, side), measured in inferences.items():
        paper = PAPER.get((variant, side))
        table.add_row(
            variant,
            f"{side}²",
            f"{1000 * measured.network:.0f}",
            f"{1000 * measured.fusion:.0f}",
            f"{1 / measured.network:.2f}",
            f"{1 / (measured.network + measured.fusion):.2f}",
            f"{paper[device]:.2f}" if paper else "-",
            f"{measured.network_peak / 1e9:.2f}",
            f"{measured.fusion_peak / 1e9:.2f}",
            f"{measured.fusion_peak / measured.upsampled:.2f} x",
        )
    return table


def training_table(device, trainings):
    """A row for each network."""
    precision = "bf16-mixed" if device == "cuda" else "fp32"
    table = Table(title=f"training step, {BATCH_SIZE} crops, {device}, {precision}")
    table.add_column("network")
    for heading in ("crop", "seconds", "peak GB"):
        table.add_column(heading, justify="right")
    for (variant, side), measured in trainings.items():
        table.add_row(variant, f"{side}²", f"{measured.seconds:.2f}", f"{measured.peak / 1e9:.2f}")
    return table


def main():
    """Print both tables of each device; the exit status is 1 if a fusion held too many upsampled outputs."""
    console = Console(width=None if sys.stdout.isatty() else 130)
    passed = True
    with tempfile.TemporaryDirectory() as folder:
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            inferences, trainings = measure_all(device, Path(folder))
            console.print(inference_table(device, inferences))
            console.print(training_table(device, trainings))
            most = max(measured.fusion_peak / measured.upsampled for measured in inferences.values())
            passed &= most < MOST_HELD
            verdict = "[green]pass" if most < MOST_HELD else "[red]fail"
            console.print(
                f"{device}: most memory of a fusion {most:.2f} upsampled outputs, bar < {MOST_HELD:g}: {verdict}"
            )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
