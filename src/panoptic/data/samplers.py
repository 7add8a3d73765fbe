"""Which image comes when: a function of seed and epoch alone, the same for any number of processes and workers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

SampleKey = tuple[int, int]
"""(epoch, index): what decides a sample and its augmentation."""

_ORDER_STREAM, _SAMPLE_STREAM = 0, 1  # spawn keys: orders and augmentations never share random numbers


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """The seed of one sample's augmentation in one epoch, 0..2^64 - 1."""
    sequence = np.random.SeedSequence(seed, spawn_key=(_SAMPLE_STREAM, epoch, index))
    return int(sequence.generate_state(1, np.uint64)[0])


class TrainSampler(Sampler[SampleKey]):
    """A new order in every epoch, cut into global batches of which every process takes its slice; the rest is dropped.

    Args:
        length: images in the data set.
        seed: 0 or more.
        batch_size: images per batch and process.
        rank: of this process.
        world_size: number of processes.

    Raises:
        ValueError: the data set is smaller than one global batch.
    """

    def __init__(self, length: int, *, seed: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.global_batch = batch_size * world_size
        if not 0 <= rank < world_size or batch_size < 1:
            raise ValueError(
                f"expected 0 <= rank < world_size and batch_size >= 1, got {rank}, {world_size} and {batch_size}"
            )
        if length < self.global_batch:
            raise ValueError(
                f"expected at least one batch of {self.global_batch} images, got a train set of {length}; "
                "use a smaller batch_size or more images"
            )
        self.length = length
        self.seed = seed
        self.batch_size = batch_size
        self.rank = rank
        self.epoch = 0
        self.consumed = 0

    def __len__(self) -> int:
        """Images of this process in a whole epoch, also after a resume in the middle of one."""
        return self.length // self.global_batch * self.batch_size

    def __iter__(self) -> Iterator[SampleKey]:
        """Keys of the epoch that are not consumed yet; `consumed` is not advanced, see `state_dict`."""
        return self._keys(self.epoch, self.consumed)

    def _keys(self, epoch: int, consumed: int) -> Iterator[SampleKey]:
        sequence = np.random.SeedSequence(self.seed, spawn_key=(_ORDER_STREAM, epoch))
        order = np.random.Generator(np.random.PCG64(sequence)).permutation(self.length).tolist()
        for batch_start in range(consumed, self.length - self.global_batch + 1, self.global_batch):
            start = batch_start + self.rank * self.batch_size
            for index in order[start : start + self.batch_size]:
                yield epoch, index

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; the epoch that is current already keeps its position."""
        if epoch != self.epoch:
            self.epoch, self.consumed = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Where the next `iter` starts: epoch and images consumed by all processes together.

        Loaders fetch ahead of training, so only who trains knows what was consumed, and sets it.
        """
        return {"epoch": self.epoch, "consumed": self.consumed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue there, with any number of processes that makes the same global batch."""
        epoch, consumed = state["epoch"], state["consumed"]
        if not 0 <= consumed <= self.length or consumed % self.global_batch:
            raise ValueError(
                f"expected a multiple of the batch size {self.global_batch} within {self.length} images, got "
                f"{consumed} consumed; resume with the checkpoint's batch size and data set"
            )
        self.epoch, self.consumed = epoch, consumed


class EvalSampler(Sampler[SampleKey]):
    """Every image once, over all processes together: nothing is repeated to make their shares equal.

    A share is one piece of the order, so that the first process has the first images, however many processes there are.

    Args:
        length: images in the data set.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(self, length: int, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"expected 0 <= rank < world_size, got {rank} and {world_size}")
        share, remainder = divmod(length, world_size)
        first = rank * share + min(rank, remainder)
        self.indices = range(first, first + share + (rank < remainder))

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[SampleKey]:
        """Keys of epoch 0 in the order of the data set."""
        return ((0, index) for index in self.indices)
