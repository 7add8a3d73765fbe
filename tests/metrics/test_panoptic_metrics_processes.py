"""Images split over processes give the numbers of one process."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from oracles.panoptic_oracle import random_pair
from torch import multiprocessing
from torchmetrics import MetricCollection

from panoptic.metrics import PanopticQuality, ParsingCovering, SemanticIoU
from panoptic.structures import Category

C = 4
CATEGORIES = [Category(id=number, name=f"category {number}", is_thing=number % 2 == 1) for number in range(C)]
NUM_IMAGES = 7  # a number that neither 2 nor 3 divides


def score(image_numbers):
    """The values and the rows of the images with these numbers, over all processes if there are several."""
    generator = np.random.default_rng(5)
    pairs = [random_pair(generator, C) for _ in range(NUM_IMAGES)]
    metrics = MetricCollection([PanopticQuality(CATEGORIES), ParsingCovering(CATEGORIES), SemanticIoU(CATEGORIES)])
    for number in image_numbers:
        metrics.update(*pairs[number])
    rows = [metrics[name].per_category() for name in ("PanopticQuality", "ParsingCovering", "SemanticIoU")]
    return {name: value.item() for name, value in metrics.compute().items()}, rows


def run_process(rank, num_processes, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=num_processes)
    torch.save(score(range(rank, NUM_IMAGES, num_processes)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [2, 3])
def test_images_split_over_processes_equal_one_process(num_processes, tmp_path):
    values, rows = score(range(NUM_IMAGES))
    multiprocessing.spawn(run_process, args=(num_processes, tmp_path), nprocs=num_processes)
    for rank in range(num_processes):
        got_values, got_rows = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert got_values == pytest.approx(values, rel=1e-12)
        for got_metric_rows, metric_rows in zip(got_rows, rows, strict=True):
            for got, row in zip(got_metric_rows, metric_rows, strict=True):
                assert got.pop("name") == row["name"]
                numbers = {name: value for name, value in row.items() if name != "name"}
                assert got == pytest.approx(numbers, rel=1e-12)
