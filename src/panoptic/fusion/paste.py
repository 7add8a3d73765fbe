"""Steps that fusions share: categories of pixels, categories as segments, majority votes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from panoptic.fusion.arrays import in_threads, padded_array, split_range
from panoptic.structures import IGNORE_INDEX, VOID, Category, Segment


def named_output(outputs: Mapping[str, Any], name: str) -> Any:
    """One of an image's outputs; raises KeyError if there is none of this name."""
    if name not in outputs:
        raise KeyError(f"expected an output {name!r}, got {sorted(outputs)}; add its head to the network")
    return outputs[name]


def output_of(outputs: Mapping[str, Any], name: str, shape: tuple[int | None, ...]) -> Tensor:
    """One of an image's outputs, its shape checked; None in `shape` stands for any size.

    Raises:
        KeyError: there is no output of this name.
        ValueError: its shape is another.
    """
    output: Tensor = named_output(outputs, name)
    fits = output.ndim == len(shape) and all(
        side == wanted if wanted is not None else side > 0 for side, wanted in zip(output.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if side is None else str(side) for side in shape)
        raise ValueError(f"expected {name} of shape ({wanted}), got {tuple(output.shape)}; pass one image's outputs")
    return output


def check_finite(is_finite: bool, name: str) -> None:
    """Raise ValueError, naming the output, unless all that was looked at `is_finite`."""
    if not is_finite:
        raise ValueError(f"expected finite values in {name}, got nan or infinity; the network has diverged")


def predicted_categories(outputs: Mapping[str, Tensor], categories: Sequence[Category]) -> Tensor:
    """The most probable category of each pixel, (H, W) int64, from "semantic" (C, H, W); of equal ones the lowest.

    Raises:
        KeyError: there is no output "semantic".
        ValueError: its shape is another, or a logit is not finite.
    """
    logits = output_of(outputs, "semantic", (len(categories), None, None))
    if logits.device.type != "cpu":
        check_finite(bool(logits.sum(dtype=torch.float32).isfinite()), "semantic")  # device sync: once per image
        return logits.argmax(dim=0)
    array = padded_array(logits)
    semantic_map = np.empty(logits.shape[1:], dtype=np.int64)
    bands = split_range(len(semantic_map))
    all_finite = in_threads(lambda band: _argmax_compiled(array, semantic_map, band.start, band.stop), bands)
    check_finite(all(all_finite), "semantic")
    return torch.from_numpy(semantic_map)


@njit(cache=True, nogil=True)
def _argmax_compiled(logits: np.ndarray, semantic_map: np.ndarray, start: int, stop: int) -> bool:
    """Argmax of logits (C, H', W') over C, row by row in memory order: twenty times as fast as torch on the CPU.

    Written to rows start..stop of semantic_map (H, W); returns whether all logits of these rows are finite.
    """
    width = semantic_map.shape[1]
    winner = np.empty(width, dtype=np.int32)
    total = np.zeros(width, dtype=np.float32)  # not finite as soon as one of its terms is not
    for y in range(start, stop):
        most = logits[0, y, :width].copy()
        total += most
        winner[:] = 0
        for category in range(1, len(logits)):
            row = logits[category, y, :width]
            for x in range(width):
                is_better = row[x] > most[x]
                most[x] = row[x] if is_better else most[x]
                winner[x] = category if is_better else winner[x]
                total[x] += row[x]
        semantic_map[y] = winner
    return bool(np.isfinite(total).all())


def thing_pixels(semantic_map: Tensor, categories: Sequence[Category]) -> Tensor:
    """Flat indices y * W + x, (M,) int64 ascending, of the pixels of (H, W) int64 whose category is a thing."""
    is_thing = torch.tensor([category.is_thing for category in categories], device=semantic_map.device)
    if semantic_map.device.type != "cpu":
        return is_thing[semantic_map.flatten()].nonzero().flatten()  # device sync: once per image
    num_pixels = int(count_values(semantic_map.flatten(), len(categories))[is_thing].sum())
    pixels = np.empty(num_pixels + 1, dtype=np.int64)  # the last one takes what does not count
    _thing_pixels_compiled(semantic_map.flatten().numpy(), is_thing.numpy(), pixels)
    return torch.from_numpy(pixels[:-1])


@njit(cache=True, nogil=True)
def _thing_pixels_compiled(category_ids: np.ndarray, is_thing: np.ndarray, pixels: np.ndarray) -> None:
    count = 0
    for pixel in range(category_ids.size):
        pixels[count] = pixel
        count += is_thing[category_ids[pixel]]


def look_up(table: Tensor, indices: Tensor) -> Tensor:
    """`table[indices]`, of (T,) int64 and any shape of int64; on the CPU twice as fast."""
    if table.device.type != "cpu":
        return table[indices]
    found = np.empty(indices.numel(), dtype=np.int64)
    _look_up_compiled(table.numpy(), indices.flatten().numpy(), found)
    return torch.from_numpy(found).view(indices.shape)


@njit(cache=True, nogil=True)
def _look_up_compiled(table: np.ndarray, indices: np.ndarray, found: np.ndarray) -> None:
    for position in range(indices.size):
        found[position] = table[indices[position]]


def paste_categories(
    semantic_map: Tensor, chosen: Sequence[Category], *, min_area: int
) -> tuple[Tensor, list[Segment]]:
    """Each chosen category that is present becomes one segment.

    Args:
        semantic_map: (H, W) int64 category ids.
        chosen: categories to turn into segments; pixels of all others are void.
        min_area: stuff of fewer pixels than this is void; things are kept, whatever their size.

    Returns:
        segment_ids: (H, W) int64, ids 1, 2, ... in the order of `chosen`.
        segments: their table, with areas and without scores.
    """
    areas = count_values(semantic_map.flatten(), IGNORE_INDEX + 1).tolist()  # device sync: once per image
    id_of_category = torch.full((len(areas),), VOID, dtype=torch.int64)
    segments: list[Segment] = []
    for category in chosen:
        if areas[category.id] >= (1 if category.is_thing else max(min_area, 1)):
            segments.append(Segment(len(segments) + 1, category.id, area=areas[category.id]))
            id_of_category[category.id] = len(segments)
    return look_up(id_of_category.to(semantic_map.device), semantic_map), segments


def count_values(values: Tensor, num_values: int) -> Tensor:
    """How often each of 0..num_values-1 is in `values`, (M,) int64 in that range: (num_values,) int64."""
    if values.device.type != "cpu":
        return torch.bincount(values, minlength=num_values)
    return torch.from_numpy(_count_compiled(values.numpy(), num_values))


@njit(cache=True, nogil=True)
def _count_compiled(values: np.ndarray, num_values: int) -> np.ndarray:
    """`count_values`; neighbours are mostly equal, so counts are written where a run ends."""
    counts = np.zeros(num_values, dtype=np.int64)
    start = 0
    for position in range(1, values.size + 1):
        if position == values.size or values[position] != values[start]:
            counts[values[start]] += position - start
            start = position
    return counts


def majority_vote(
    owners: Tensor, category_ids: Tensor, *, num_instances: int, num_categories: int
) -> tuple[Tensor, Tensor]:
    """The category that most pixels of each instance have, and how many pixels it has.

    Args:
        owners: (M,) int64 instance 0..N-1 of each pixel.
        category_ids: (M,) int64 category of each pixel.
        num_instances: N.
        num_categories: C.

    Returns:
        winners: (N,) int64, the lowest category id of equal ones; 0 for an instance without pixels.
        areas: (N,) int64.
    """
    if owners.device.type != "cpu":
        pairs = torch.bincount(owners * num_categories + category_ids, minlength=num_instances * num_categories)
        votes = pairs.view(num_instances, num_categories)
    else:
        votes = torch.zeros(num_instances, num_categories, dtype=torch.int64)
        _count_pairs_compiled(owners.numpy(), category_ids.numpy(), votes.numpy())
    return votes.argmax(dim=1), votes.sum(dim=1)


@njit(cache=True, nogil=True)
def _count_pairs_compiled(rows: np.ndarray, columns: np.ndarray, counts: np.ndarray) -> None:
    """Add to counts (N, C) how often each pair occurs; as in `_count_compiled`, written where a run ends."""
    start = 0
    for position in range(1, rows.size + 1):
        is_end = position == rows.size or rows[position] != rows[start] or columns[position] != columns[start]
        if is_end:
            counts[rows[start], columns[start]] += position - start
            start = position


def paste_instances(segment_ids: Tensor, pixels: Tensor, owners: Tensor, ids: Tensor) -> Tensor:
    """A map with the pixels of instances overwritten.

    Args:
        segment_ids: (H, W) int64.
        pixels: (M,) int64, y * W + x of each pixel of an instance.
        owners: (M,) int64, instance 0..N-1 of each.
        ids: (N,) int64 segment id of each instance.
    """
    if segment_ids.device.type != "cpu":
        return segment_ids.flatten().index_copy(0, pixels, ids[owners]).view_as(segment_ids)
    pasted = segment_ids.numpy().copy()
    _paste_compiled(pasted.reshape(-1), pixels.numpy(), owners.numpy(), ids.numpy())
    return torch.from_numpy(pasted)


@njit(cache=True, nogil=True)
def _paste_compiled(segment_ids: np.ndarray, pixels: np.ndarray, owners: np.ndarray, ids: np.ndarray) -> None:
    for number in range(pixels.size):
        segment_ids[pixels[number]] = ids[owners[number]]
