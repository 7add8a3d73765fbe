"""Connected regions of equal labels, as runs of pixels: maps are made of runs, of which there are few."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from panoptic.structures import IGNORE_INDEX


@dataclass(frozen=True, eq=False)
class Regions:
    """The K connected regions of a map, in the order of their first pixels (row by row).

    Args:
        labels: (K,) uint8 label of each.
        areas: (K,) int64, pixels of each.
        row_starts: (H + 1,) int64, the first run of each row, and R.
        begins: (R,) int32, the first column of each run.
        ends: (R,) int32, the last one, exclusive.
        owners: (R,) int64 region 0..K-1 of each run.
    """

    labels: np.ndarray
    areas: np.ndarray
    row_starts: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    owners: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def paint(self, target: np.ndarray, values: np.ndarray, chosen: np.ndarray) -> None:
        """Write one of `values` (K,) to the pixels of each region that is `chosen` (K,) bool, in a map (H, W)."""
        _paint(self.row_starts, self.begins, self.ends, self.owners, target, values, chosen)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """(K,) float64, the sum of values (H, W) over each region."""
        sums: np.ndarray = _sums(self.row_starts, self.begins, self.ends, self.owners, values, len(self))
        return sums


def connected_regions(labels: np.ndarray, *, diagonal: bool) -> Regions:
    """The largest sets of pixels that have the same label and are connected.

    Args:
        labels: (H, W) uint8; pixels of `IGNORE_INDEX` belong to no region.
        diagonal: pixels touch at corners too (8-connected), not only at sides (4-connected).
    """
    row_starts, begins, ends, run_labels = _find_runs(labels, IGNORE_INDEX)
    owners, areas = _join_runs(row_starts, begins, ends, run_labels, 1 if diagonal else 0)
    region_labels = np.empty(len(areas), dtype=np.uint8)
    region_labels[owners] = run_labels
    return Regions(region_labels, areas, row_starts, begins, ends, owners)


@njit(cache=True, nogil=True)
def _find_runs(labels: np.ndarray, ignored: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Runs of equal labels in each row: (H + 1,) first run of each row, and (R,) begins, ends and labels."""
    height, width = labels.shape
    row_starts = np.zeros(height + 1, dtype=np.int64)
    for y in range(height):
        row, count = labels[y], np.int64(labels[y, 0] != ignored)
        for x in range(1, width):
            count += (row[x] != row[x - 1]) & (row[x] != ignored)
        row_starts[y + 1] = row_starts[y] + count
    num_runs = row_starts[height]
    begins, ends = np.empty(num_runs, dtype=np.int32), np.empty(num_runs, dtype=np.int32)
    run_labels = np.empty(num_runs, dtype=np.uint8)
    for y in range(height):
        number, x = row_starts[y], 0
        while number < row_starts[y + 1]:
            while labels[y, x] == ignored:
                x += 1
            begins[number], run_labels[number] = x, labels[y, x]
            while x < width and labels[y, x] == run_labels[number]:
                x += 1
            ends[number] = x
            number += 1
    return row_starts, begins, ends, run_labels


@njit(cache=True, nogil=True)
def _join_runs(
    row_starts: np.ndarray, begins: np.ndarray, ends: np.ndarray, run_labels: np.ndarray, reach: int
) -> tuple[np.ndarray, np.ndarray]:
    """Regions of runs; those of neighbouring rows touch in a column, with a `reach` of 1 at corners too.

    Returns:
        owners: (R,) int64 region of each run.
        areas: (K,) int64 pixels of each region.
    """
    parents = np.arange(begins.size)
    for y in range(1, row_starts.size - 1):
        above = row_starts[y - 1]
        for run in range(row_starts[y], row_starts[y + 1]):
            while above < row_starts[y] and ends[above] + reach <= begins[run]:
                above += 1  # ends before this run and all that follow it
            other = above
            while other < row_starts[y] and begins[other] < ends[run] + reach:
                if run_labels[other] == run_labels[run]:
                    one, two = _root(parents, other), _root(parents, run)
                    parents[max(one, two)] = min(one, two)
                other += 1
    owners, areas, count = np.empty_like(parents), np.zeros_like(parents), 0
    for run in range(begins.size):
        if parents[run] == run:  # the first one of its region
            owners[run] = count
            count += 1
        else:
            owners[run] = owners[parents[run]]
        areas[owners[run]] += ends[run] - begins[run]
    return owners, areas[:count].copy()


@njit(cache=True, nogil=True)
def _root(parents: np.ndarray, run: int) -> int:
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run


@njit(cache=True, nogil=True)
def _paint(
    row_starts: np.ndarray,
    begins: np.ndarray,
    ends: np.ndarray,
    owners: np.ndarray,
    target: np.ndarray,
    values: np.ndarray,
    chosen: np.ndarray,
) -> None:
    for y in range(row_starts.size - 1):
        for run in range(row_starts[y], row_starts[y + 1]):
            if chosen[owners[run]]:
                target[y, begins[run] : ends[run]] = values[owners[run]]


@njit(cache=True, nogil=True)
def _sums(
    row_starts: np.ndarray,
    begins: np.ndarray,
    ends: np.ndarray,
    owners: np.ndarray,
    values: np.ndarray,
    num_regions: int,
) -> np.ndarray:
    sums = np.zeros(num_regions)
    for y in range(row_starts.size - 1):
        for run in range(row_starts[y], row_starts[y + 1]):
            for x in range(begins[run], ends[run]):
                sums[owners[run]] += values[y, x]
    return sums
