"""A batch on its way from a loader worker to the trainer: all its tensors in one piece of shared memory.

PyTorch sends every tensor by a file descriptor of its own, fetched through a socket; a batch has about a hundred.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import torch
from torch import Tensor

_ALIGNMENT = 64
"""Bytes; every tensor begins at a multiple."""


def pack(content: Any) -> tuple[Tensor, bytes, list[tuple[int, int]]]:
    """Any picklable structure with CPU tensors, for `unpack`.

    Returns:
        the values of all tensors as (N,) uint8, the rest of the structure, and (start, stop) of each tensor's storage.
    """
    buffers: list[pickle.PickleBuffer] = []
    structure = io.BytesIO()
    _Pickler(structure, protocol=5, buffer_callback=buffers.append).dump(content)
    places, size = [], 0
    for buffer in buffers:
        start = -(-size // _ALIGNMENT) * _ALIGNMENT
        size = start + buffer.raw().nbytes
        places.append((start, size))
    values = torch.empty(size, dtype=torch.uint8)
    for buffer, (start, stop) in zip(buffers, places, strict=True):
        values[start:stop] = torch.from_numpy(np.frombuffer(buffer.raw(), np.uint8))
    return values, structure.getvalue(), places


def unpack(values: Tensor, structure: bytes, places: list[tuple[int, int]]) -> Any:
    """The structure again; its tensors are views of `values`, and those that shared memory share it again."""
    memory: Any = values.numpy()
    return pickle.loads(structure, buffers=[memory[start:stop] for start, stop in places])


class _Pickler(pickle.Pickler):
    """Writes a tensor as a view of its storage, and each storage once, beside the structure."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._storages: dict[tuple[int, torch.dtype], Tensor] = {}  # empty ones all lie at 0

    def reducer_override(self, value: Any) -> Any:
        """Of tensors; other objects are pickled as usual."""
        if not isinstance(value, Tensor):
            return NotImplemented
        place = value.untyped_storage().data_ptr(), value.dtype
        if value is self._storages.get(place):
            return torch.from_numpy, (value.numpy(),)
        if place not in self._storages:
            flat = torch.empty(0, dtype=value.dtype).set_(value.untyped_storage())
            self._storages[place] = flat
        return torch.as_strided, (self._storages[place], value.size(), value.stride(), value.storage_offset())
