"""What the processes of one training agree on: sums, logged means, and the statistics they validate with."""

from __future__ import annotations

from collections.abc import Mapping

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of `value` over all processes, detached; `value` itself in a single one."""
    if not _are_several():
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def max_over_processes(value: Tensor) -> Tensor:
    """The largest of `value` over all processes; `value` itself in a single one."""
    if not _are_several():
        return value
    largest = value.detach().clone()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


def mean_over_processes(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean of every scalar over all processes, in one exchange; the scalars themselves, detached, in a single one.

    Args:
        values: {name: scalar}, the same names in the same order in every process.
    """
    if not _are_several():
        return {name: value.detach() for name, value in values.items()}
    means = sum_over_processes(torch.stack(list(values.values()))) / dist.get_world_size()
    return dict(zip(values, means.unbind(), strict=True))


class ImageMeans(Metric):
    """Means over images, each counted once whatever the shares of batches and processes.

    Lightning's own mean (`log` with `sync_dist`) rounds the images per process down, which is wrong for unequal shares.

    Args:
        names: of the values.
    """

    is_differentiable = False
    full_state_update = False

    sums: Tensor
    count: Tensor

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names
        self.add_state("sums", default=torch.zeros(len(names), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Mapping[str, Tensor], num_images: int) -> None:
        """Add the means of a batch.

        Args:
            values: {name: scalar, mean over the batch's images}.
            num_images: in the batch, at least 1.
        """
        means = torch.stack([values[name].detach().double() for name in self.names])
        self.sums = self.sums + num_images * means
        self.count = self.count + num_images

    def compute(self) -> dict[str, Tensor]:
        """{name: float64 scalar}; nan without any image."""
        return dict(zip(self.names, (self.sums / self.count).unbind(), strict=True))


class ShareStatistics(pl.Callback):
    """Gives every process the first one's buffers before validation: the running statistics of batch norm.

    Each process gathers those of its own images, and only the first one's are saved. Callbacks that change weights for
    validation must come before this one.
    """

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Every process takes part, also one without an image."""
        if _are_several():
            for buffer in pl_module.buffers():
                dist.broadcast(buffer, src=0)


def _are_several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
