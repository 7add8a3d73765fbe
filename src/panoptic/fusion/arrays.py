"""Tensors as arrays for compiled loops, and threads to run those in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Task = TypeVar("Task")
Result = TypeVar("Result")


def float_array(tensor: Tensor) -> np.ndarray:
    """float32, contiguous, of a tensor on the CPU."""
    array: np.ndarray = tensor.detach().float().contiguous().numpy()
    return array


def padded_array(maps: Tensor) -> np.ndarray:
    """Maps on the CPU as float32, contiguous, and not copied if they were cropped at the bottom and right.

    Outputs of an image are crops of what was upsampled for the padded image; a copy would hold them twice.

    Args:
        maps: (..., H, W), at least three dimensions.

    Returns:
        (..., H', W') with H' >= H and W' >= W; what lies beyond H and W does not belong to the maps.
    """
    maps = maps.detach().float()
    width = maps.stride(-2)
    height = maps.stride(-3) // max(width, 1)
    padded = (*maps.shape[:-2], height, width)
    strides = torch.empty(padded, device="meta").stride()
    is_crop = maps.stride() == strides and width >= maps.shape[-1] and height >= maps.shape[-2]
    end = 4 * (maps.storage_offset() + int(np.prod(padded)))
    if not is_crop or end > maps.untyped_storage().nbytes():
        return float_array(maps)
    array: np.ndarray = maps.as_strided(padded, strides).numpy()
    return array


def in_threads(function: Callable[[Task], Result], tasks: Iterable[Task]) -> list[Result]:
    """Results of a function for each task, in as many threads as torch may use.

    Args:
        function: spends its time in compiled code that releases the interpreter's lock.
        tasks: independent of each other.
    """
    tasks = list(tasks)
    num_threads = min(len(tasks), torch.get_num_threads())
    if num_threads <= 1:
        return [function(task) for task in tasks]
    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(function, tasks))


def split_range(length: int) -> list[slice]:
    """0..length in consecutive slices of about the same size, one per thread that torch may use."""
    bounds = np.linspace(0, length, torch.get_num_threads() + 1).astype(int).tolist()
    return [slice(start, stop) for start, stop in pairwise(bounds)]
