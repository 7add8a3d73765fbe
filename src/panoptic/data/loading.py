"""What loader workers do: read, transform and encode a sample, and bring samples to one size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any, Protocol

import cv2
import torch
from torch import Tensor
from torch.utils.data import Dataset

from panoptic.data.packing import pack, unpack
from panoptic.data.samplers import SampleKey, sample_seed
from panoptic.structures import Batch, Category, ImageStatistics, Instances, PanopticMap, Sample, SizeRule
from panoptic.targets.segment_table import ground_truth

Encoder = Callable[[Sample], Any]
Transform = Callable[[Sample, int], Sample]


class SampleDataset(Protocol):
    """A map-style data set."""

    categories: list[Category]
    image_statistics: ImageStatistics

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass(eq=False)
class PinnableBatch(Batch):
    """A batch that travels in one piece, and that the loader can put into page-locked memory for copies beside work."""

    def __reduce__(self) -> tuple[Any, ...]:
        """For workers, which pickle what they send."""
        return _from_pack, pack(tuple(getattr(self, field.name) for field in fields(self)))

    def pin_memory(self) -> PinnableBatch:
        """The same batch with images and targets pinned; PyTorch's loader calls it."""
        images, targets = map_tensors((self.images, self.targets), Tensor.pin_memory, {})
        return replace(self, images=images, targets=targets)


def _from_pack(*packed: Any) -> PinnableBatch:
    return PinnableBatch(*unpack(*packed))


@dataclass(frozen=True, eq=False)
class Encoders:
    """The encoders of all heads, each distinct one once.

    Args:
        distinct: the encoders to run.
        numbers: {head: index into `distinct`}; heads with equal encoders share the target.
    """

    distinct: tuple[Encoder, ...]
    numbers: dict[str, int]

    @classmethod
    def of(cls, encoders: Mapping[str, Encoder]) -> Encoders:
        """Find the equal ones; partials are equal when their function and arguments are."""
        distinct: list[Encoder] = []
        numbers = {}
        for head, encoder in encoders.items():
            equal = [number for number, other in enumerate(distinct) if _parts(other) == _parts(encoder)]
            numbers[head] = equal[0] if equal else len(distinct)
            if not equal:
                distinct.append(encoder)
        return cls(tuple(distinct), numbers)

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """{head: target}."""
        targets = [encode(sample) for encode in self.distinct]
        return {head: targets[number] for head, number in self.numbers.items()}


def _parts(encoder: Encoder) -> Any:
    """What two encoders are compared by; `functools.partial` itself compares by identity."""
    return (encoder.func, encoder.args, encoder.keywords) if isinstance(encoder, partial) else encoder


@dataclass(frozen=True, eq=False)
class LoadedSample:
    """What a worker makes of one key.

    Args:
        sample: after the transform.
        targets: {head: target}.
        truth: ground truth before the transform.
        truth_instances: the data set's own instances before the transform, None where it has none.
    """

    sample: Sample
    targets: dict[str, Any]
    truth: PanopticMap
    truth_instances: Instances | None = None


@dataclass(frozen=True, eq=False)
class SampleLoader(Dataset[LoadedSample]):
    """Reads, transforms and encodes the sample of a key (epoch, index)."""

    samples: SampleDataset
    transform: Transform
    encoders: Encoders
    seed: int

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: SampleKey) -> LoadedSample:
        """The same for the same key, whoever asks."""
        epoch, index = key
        original = self.samples[index]
        try:
            truth = ground_truth(original)
            seed = sample_seed(self.seed, epoch, index)
            sample = replace(self.transform(original, seed), seed=seed)
            targets = self.encoders(sample)
        except Exception as error:
            error.add_note(f"while preparing {original.file_name}, image {original.image_id}, in epoch {epoch}")
            raise
        return LoadedSample(sample, targets, truth, original.instances)


@dataclass(frozen=True)
class Collate:
    """Brings samples to one size.

    Args:
        size_rule: of the network.
        colour: (red, green, blue) of the padding, each 0..255.
        keep_truths: put the untouched ground truth into the batch.
    """

    size_rule: SizeRule
    colour: tuple[int, int, int]
    keep_truths: bool

    def __call__(self, loaded: Sequence[LoadedSample]) -> PinnableBatch:
        """Pad at the bottom and right; the samples' images become views of the batch."""
        if not loaded:
            return PinnableBatch(torch.empty(0, 3, 0, 0, dtype=torch.uint8), [], {}, [])
        sizes = [item.sample.size for item in loaded]
        height, width = self.size_rule.pad(max(h for h, _ in sizes), max(w for _, w in sizes))
        colour = torch.tensor(self.colour, dtype=torch.uint8)
        images = colour[None, :, None, None].repeat(len(loaded), 1, height, width)
        samples = []
        for padded, item, (h, w) in zip(images, loaded, sizes, strict=True):
            padded[:, :h, :w] = item.sample.image
            samples.append(replace(item.sample, image=padded[:, :h, :w]))  # sent once from worker to trainer
        return PinnableBatch(
            images=images,
            image_sizes=sizes,
            targets={head: [item.targets[head] for item in loaded] for head in loaded[0].targets},
            samples=samples,
            truths=[item.truth for item in loaded] if self.keep_truths else [],
            truth_instances=[item.truth_instances for item in loaded] if self.keep_truths else [],
        )


def worker_init_fn(worker: int) -> None:
    """One thread per worker: OpenCV's and PyTorch's pools do not survive a fork, and would fight for the cores."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def map_tensors(value: Any, function: Callable[[Tensor], Tensor], done: dict[int, Any]) -> Any:
    """The same structure of dataclasses, dicts, lists and tuples with every tensor replaced; shared parts stay shared.

    Args:
        value: the structure; it must outlive the call, `done` knows its parts by id.
        function: applied once to each tensor.
        done: {id of a part: its replacement}, empty at first.
    """
    if id(value) in done:
        return done[id(value)]
    result: Any = value
    if isinstance(value, Tensor):
        result = function(value)
    elif is_dataclass(value) and not isinstance(value, type):
        result = replace(value, **{f.name: map_tensors(getattr(value, f.name), function, done) for f in fields(value)})
    elif isinstance(value, dict):
        result = {key: map_tensors(item, function, done) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        items = [map_tensors(item, function, done) for item in value]
        named = isinstance(value, tuple) and type(value) is not tuple  # a named tuple takes its fields one by one
        result = type(value)(*items) if named else type(value)(items)
    done[id(value)] = result
    return result
