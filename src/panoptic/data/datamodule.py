"""From data sets to batches on the device: loading, augmentation and target encoding in worker processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from panoptic.data.loading import (
    Collate,
    Encoder,
    Encoders,
    SampleDataset,
    SampleLoader,
    Transform,
    map_tensors,
    worker_init_fn,
)
from panoptic.data.samplers import EvalSampler, TrainSampler
from panoptic.data.transforms import mean_colour
from panoptic.structures import Batch, Category, ImageStatistics, SizeRule


class PanopticDataModule(pl.LightningDataModule):
    """Loaders over a train, a val and a test split. The trainer must be made with `use_distributed_sampler=False`.

    Args:
        train: data set to learn from.
        val: data set to evaluate on.
        test: data set to evaluate on at the end, or None.
        train_transform: (sample, seed) -> sample.
        eval_transform: (sample, seed) -> sample.
        batch_size: training images per step over all processes.
        eval_batch_size: images per step and process; results do not depend on neighbours when it is 1.
        num_workers: processes per loader; 0 loads in the training process. The batches are the same for any number.
        seed: of order and augmentation.

    Raises:
        ValueError: the splits' categories differ, a split to evaluate on is empty, or a batch size is below 1.
    """

    def __init__(
        self,
        train: SampleDataset,
        val: SampleDataset,
        test: SampleDataset | None = None,
        *,
        train_transform: Transform,
        eval_transform: Transform,
        batch_size: int = 8,
        eval_batch_size: int = 1,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, split in (("val", val), ("test", test)):
            if split is not None and list(split.categories) != list(train.categories):
                ours, theirs = [c.name for c in train.categories], [c.name for c in split.categories]
                raise ValueError(f"expected equal categories in all splits, got {ours} in train and {theirs} in {name}")
            if split is not None and len(split) == 0:
                raise ValueError(f"the {name} split is empty; expected at least one image")
        if min(batch_size, eval_batch_size) < 1:
            raise ValueError(f"expected batch sizes of at least 1, got {batch_size} and {eval_batch_size}")
        self.train, self.val, self.test = train, val, test
        self.train_transform, self.eval_transform = train_transform, eval_transform
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._connected: tuple[Encoders, SizeRule] | None = None
        self._sampler: TrainSampler | None = None
        self._resume_state: dict[str, int] | None = None

    @property
    def categories(self) -> list[Category]:
        """The same in all splits."""
        return list(self.train.categories)

    @property
    def image_statistics(self) -> ImageStatistics:
        """Those of the train split."""
        return self.train.image_statistics

    def connect(self, encoders: Mapping[str, Encoder], size_rule: SizeRule) -> None:
        """Say what the network needs, before loaders are asked for.

        Args:
            encoders: {head: its `encode`}; equal partials run once per sample and share their target.
            size_rule: the sizes of images that the network takes.
        """
        self._connected = (Encoders.of(encoders), size_rule)

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of this process; after `load_state_dict` the first epoch continues where it was left."""
        rank, world_size = self._process()
        if self.batch_size % world_size:
            lower = max(self.batch_size // world_size, 1) * world_size
            raise ValueError(
                f"batch_size {self.batch_size} cannot be divided among {world_size} processes; "
                f"use {lower} or {lower + world_size}"
            )
        batch_size = self.batch_size // world_size
        sampler = TrainSampler(len(self.train), seed=self.seed, batch_size=batch_size, rank=rank, world_size=world_size)
        if self._resume_state is not None:
            sampler.load_state_dict(self._resume_state)
            self._resume_state = None
        self._sampler = sampler
        return self._loader(self.train, self.train_transform, sampler, batch_size, training=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Every image of the val split once, over all processes together; one empty batch for a process without any."""
        return self._eval_loader(self.val)

    def test_dataloader(self) -> DataLoader[Any]:
        """As `val_dataloader`, of the test split."""
        if self.test is None:
            raise ValueError("expected a test split, got none; give `test`, or evaluate on val")
        return self._eval_loader(self.test)

    def _eval_loader(self, split: SampleDataset) -> DataLoader[Any]:
        sampler = EvalSampler(len(split), *self._process())
        return self._loader(split, self.eval_transform, sampler, self.eval_batch_size, training=False)

    def _loader(
        self,
        split: SampleDataset,
        transform: Transform,
        sampler: TrainSampler | EvalSampler,
        batch_size: int,
        *,
        training: bool,
    ) -> DataLoader[Any]:
        if self._connected is None:
            raise RuntimeError("expected connect(encoders, size_rule) before loaders are asked for; call it first")
        encoders, size_rule = self._connected
        batches: dict[str, Any] = {"batch_size": batch_size, "sampler": sampler, "drop_last": training}
        if len(sampler) == 0:  # Lightning would leave this process out, while the others wait for it
            batches = {"batch_sampler": [[]]}
        return DataLoader(
            SampleLoader(split, transform, encoders, self.seed),
            **batches,
            num_workers=self.num_workers,
            collate_fn=Collate(size_rule, mean_colour(self.image_statistics), keep_truths=not training),
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=worker_init_fn,
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator().manual_seed(self.seed),  # the global generator is left to the network
        )

    def _process(self) -> tuple[int, int]:
        """(rank, world size)."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move images and targets; samples and truths stay, they are for metrics and pictures."""
        move = partial(_to_device, device=device)
        images, targets = map_tensors((batch.images, batch.targets), move, {})
        return replace(batch, images=images, targets=targets)

    def state_dict(self) -> dict[str, int]:
        """Position in the training data as of the last batch trained on, whatever workers fetched ahead."""
        if self._sampler is None:
            return dict(self._resume_state or {"epoch": 0, "consumed": 0})
        if self.trainer is None:
            return self._sampler.state_dict()
        epoch: Any = self.trainer.fit_loop.epoch_progress.current
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        batches = progress.processed  # not `completed`: callbacks save before that is counted
        if epoch.started == epoch.processed or batches >= self.trainer.num_training_batches:
            # between two epochs; Lightning counts an epoch as processed only after its validation
            return {"epoch": max(epoch.started, epoch.processed), "consumed": 0}
        return {"epoch": epoch.processed, "consumed": batches * self._sampler.global_batch}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """The next train loader continues there."""
        self._resume_state = dict(state_dict)


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True)
