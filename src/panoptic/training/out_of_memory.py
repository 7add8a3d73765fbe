"""Running out of memory ends with the keys to lower and their values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

_CPU_ALLOCATOR = "DefaultCPUAllocator: "
"""Begins the text of the RuntimeError with which torch says that the CPU's memory is full."""


class MemoryExceededError(ValueError):
    """The configuration asks for more memory than there is."""


@contextmanager
def saying_what_to_lower(config: Mapping[str, Any], processes: int = 1) -> Iterator[None]:
    """Turn an error of memory, of the GPU or the CPU, into one that names what to lower; others pass.

    Args:
        config: resolved.
        processes: that share the global batch.

    Raises:
        MemoryExceededError: from the error of memory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise MemoryExceededError(_message(error, config, processes)) from error
    except RuntimeError as error:
        if _CPU_ALLOCATOR not in str(error):
            raise
        raise MemoryExceededError(_message(error, config, processes)) from error


def _message(error: BaseException, config: Mapping[str, Any], processes: int) -> str:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return "\n  ".join([f"out of memory ({first_line}); lower one of these:", *_advice(config, processes)])


def _advice(config: Mapping[str, Any], processes: int) -> Iterator[str]:
    """What there is to lower, with present values; what is lowest already is left out."""
    data, trainer = config["data"], config["trainer"]
    batch_size, accumulated = data.get("batch_size", 1), trainer["accumulate_grad_batches"]
    smaller = _smaller_batch(batch_size, processes)
    if smaller is not None:
        yield (
            f"data.batch_size={smaller} trainer.accumulate_grad_batches={accumulated * batch_size // smaller}, now "
            f"{batch_size} and {accumulated}: as many images per step (batch norm sees fewer at a time)"
        )
    size = data.get("train_transform", {}).get("size")
    if size is not None:
        yield f"data.train_transform.size, the crop in pixels, now {size}"
    if not str(trainer["precision"]).startswith(("bf16", "16")):
        yield f"trainer.precision=bf16-mixed, now {trainer['precision']}"
    if data.get("eval_batch_size", 1) > 1:
        yield f"data.eval_batch_size=1 if it happened in validation, now {data['eval_batch_size']}"
    if "longest_side" in data.get("eval_transform", {}):
        yield (
            "data.eval_transform.longest_side in pixels if it happened in validation, now "
            f"{data['eval_transform']['longest_side'] or 'the size of the images'}"
        )
    if data.get("num_workers", 0) > 0:
        yield f"data.num_workers if it was the computer's own memory, now {data['num_workers']}"


def _smaller_batch(batch_size: int, processes: int) -> int | None:
    """The largest batch below this one that divides it, with equal shares of at least two images for the processes.

    One image is not enough for the batch norm of pooled features.
    """
    fitting = [size for size in range(2 * processes, batch_size, processes) if batch_size % size == 0]
    return max(fitting, default=None)
