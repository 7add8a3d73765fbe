"""One joint histogram of two panoptic maps; every metric of an image comes from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from panoptic.structures import VOID, PanopticMap, Segment

NO_CATEGORY = -1
"""Category id of row 0, the void."""

UNLISTED_ID = "a map holds an id that its segment table lacks; do not change a map after its construction"
"""Message of the error of both histograms."""


@dataclass(frozen=True, eq=False)
class Overlaps:
    """How many pixels carry (target segment, predicted segment). Rows are those of the segment tables, row 0 is void.

    Small (segments x segments) and always in main memory, whatever device the maps are on.

    Args:
        pixels: (1 + N, 1 + M) int64, of N target and M predicted segments; sums to H * W.
        target_category_ids: (1 + N,) int64, -1 at row 0.
        target_is_crowd: (1 + N,) bool, False at row 0.
        prediction_category_ids: (1 + M,) int64, -1 at row 0.
        device: of the maps; results go back there.
    """

    pixels: NDArray[np.int64]
    target_category_ids: NDArray[np.int64]
    target_is_crowd: NDArray[np.bool_]
    prediction_category_ids: NDArray[np.int64]
    device: torch.device


def count_overlaps(prediction: PanopticMap, target: PanopticMap, *, num_categories: int) -> Overlaps:
    """Count the pixels of every pair of segments, in one pass over the pixels.

    Args:
        prediction: (H, W) map on any device.
        target: (H, W) map on the same device.
        num_categories: C; category ids are 0..C-1.

    Raises:
        ValueError: the sizes or the devices differ, or a segment's category id is not 0..C-1.
    """
    _check_pair(prediction, target)
    target_ids, prediction_ids = target.segment_ids, prediction.segment_ids
    target_table, prediction_table = _segment_id_rows(target), _segment_id_rows(prediction)
    on_cpu = target_ids.device.type == "cpu"
    histogram = _compiled_histogram if on_cpu else _torch_histogram
    return Overlaps(
        pixels=histogram(prediction_ids, target_ids, prediction_table, target_table),
        target_category_ids=_category_id_rows("target", target.segments, num_categories),
        target_is_crowd=np.array([False, *(segment.is_crowd for segment in target.segments)], dtype=np.bool_),
        prediction_category_ids=_category_id_rows("prediction", prediction.segments, num_categories),
        device=target_ids.device,
    )


def _check_pair(prediction: PanopticMap, target: PanopticMap) -> None:
    """Raise ValueError unless both maps have one size and one device."""
    if prediction.size != target.size:
        (height, width), (target_height, target_width) = prediction.size, target.size
        raise ValueError(
            f"expected a prediction of the target's size {target_height}x{target_width} (height x width), "
            f"got {height}x{width}; resize its segment ids by nearest neighbour"
        )
    devices = prediction.segment_ids.device, target.segment_ids.device
    if devices[0] != devices[1]:
        raise ValueError(f"expected both maps on one device, got {devices[0]} and {devices[1]}; move one with .to()")


def _segment_id_rows(panoptic_map: PanopticMap) -> NDArray[np.int64]:
    """(1 + N,) int64 segment id of every row."""
    return np.array([VOID, *(segment.id for segment in panoptic_map.segments)], dtype=np.int64)


def _category_id_rows(role: str, segments: Sequence[Segment], num_categories: int) -> NDArray[np.int64]:
    """(1 + N,) int64 category id of every row."""
    for segment in segments:
        if not 0 <= segment.category_id < num_categories:
            raise ValueError(
                f"expected category ids 0..{num_categories - 1}, got {segment.category_id} "
                f"of segment {segment.id} in the {role}; use one category list for both maps"
            )
    return np.array([NO_CATEGORY, *(segment.category_id for segment in segments)], dtype=np.int64)


def _compiled_histogram(
    prediction_ids: Tensor, target_ids: Tensor, prediction_table: NDArray[np.int64], target_table: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(1 + N, 1 + M) int64 pixels per pair of rows; the maps are on the CPU."""
    histogram: NDArray[np.int64] = _count_runs(
        np.ascontiguousarray(prediction_ids.numpy()).reshape(-1),
        np.ascontiguousarray(target_ids.numpy()).reshape(-1),
        prediction_table,
        target_table,
    )
    return histogram


@njit(cache=True, nogil=True)
def _slot_of(segment_id: int, num_slots: int) -> int:
    """Where the search for an id begins; `num_slots` is a power of two (Knuth's multiplicative hashing)."""
    return ((segment_id * 2654435761) & 0xFFFFFFFF) * num_slots >> 32


@njit(cache=True, nogil=True)
def _hash_table(table: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(slots,) int64 each, id and its row in the table, -1 in free slots; at most a quarter is taken."""
    num_slots = 16
    while num_slots < 4 * table.size:
        num_slots *= 2
    ids = np.zeros(num_slots, dtype=np.int64)
    rows = np.full(num_slots, -1, dtype=np.int64)
    for row in range(table.size):
        slot = _slot_of(table[row], num_slots)
        while rows[slot] >= 0:
            slot = (slot + 1) % num_slots
        ids[slot], rows[slot] = table[row], row
    return ids, rows


@njit(cache=True, nogil=True)
def _row_of(segment_id: int, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> int:
    """Row of a segment id; a hash table keeps the cost the same for 20 segments and for 400."""
    slot = _slot_of(segment_id, ids.size)
    while rows[slot] >= 0:
        if ids[slot] == segment_id:
            return int(rows[slot])
        slot = (slot + 1) % ids.size
    raise ValueError(UNLISTED_ID)


@njit(cache=True, nogil=True)
def _count_runs(
    prediction_ids: NDArray[np.int64],
    target_ids: NDArray[np.int64],
    prediction_table: NDArray[np.int64],
    target_table: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Joint histogram of flat maps: maps are made of runs, so an id is looked up only where it changes."""
    prediction_slots, prediction_rows = _hash_table(prediction_table)
    target_slots, target_rows = _hash_table(target_table)
    histogram = np.zeros((target_table.size, prediction_table.size), dtype=np.int64)
    target_id, prediction_id = target_ids[0], prediction_ids[0]
    target_row = _row_of(target_id, target_slots, target_rows)
    prediction_row = _row_of(prediction_id, prediction_slots, prediction_rows)
    start = 0
    for position in range(target_ids.size):
        if target_ids[position] == target_id and prediction_ids[position] == prediction_id:
            continue
        histogram[target_row, prediction_row] += position - start
        start = position
        if target_ids[position] != target_id:
            target_id = target_ids[position]
            target_row = _row_of(target_id, target_slots, target_rows)
        if prediction_ids[position] != prediction_id:
            prediction_id = prediction_ids[position]
            prediction_row = _row_of(prediction_id, prediction_slots, prediction_rows)
    histogram[target_row, prediction_row] += target_ids.size - start
    return histogram


def _torch_histogram(
    prediction_ids: Tensor, target_ids: Tensor, prediction_table: NDArray[np.int64], target_table: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(1 + N, 1 + M) int64 pixels per pair of rows; the maps are on any device."""
    num_targets, num_predictions = len(target_table), len(prediction_table)
    pairs = _torch_rows(target_ids, target_table) * (num_predictions + 1) + _torch_rows(
        prediction_ids, prediction_table
    )
    counted = torch.bincount(pairs.flatten(), minlength=(num_targets + 1) * (num_predictions + 1))
    # device sync: once per image, to bring the small histogram to main memory
    histogram: NDArray[np.int64] = counted.cpu().numpy().reshape(num_targets + 1, num_predictions + 1)
    if histogram[-1].any() or histogram[:, -1].any():
        raise ValueError(UNLISTED_ID)
    return np.ascontiguousarray(histogram[:-1, :-1])


def _torch_rows(segment_ids: Tensor, table: NDArray[np.int64]) -> Tensor:
    """(H, W) int64 row of each pixel's segment in the table; one past the last row where the table lacks it."""
    sorted_ids, rows = torch.from_numpy(table).to(segment_ids.device).sort()
    position = torch.searchsorted(sorted_ids, segment_ids.contiguous()).clamp(max=len(table) - 1)
    return torch.where(sorted_ids[position] == segment_ids, rows[position], len(table))
