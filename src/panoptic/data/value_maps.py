"""Maps of small numbers, as PNGs hold them, looked up in a table and counted in one compiled pass."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def look_up(
    values: NDArray[np.unsignedinteger], table: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The table's entry at each pixel (H, W) int64, and the pixels of each value (V,) int64.

    Args:
        values: (H, W) uint8 or uint16, each below V.
        table: (V,) int64.
    """
    height, width = values.shape
    found = np.empty((height, width), dtype=np.int64)
    counts = np.zeros(table.size, dtype=np.int64)
    for y in range(height):
        start = 0
        while start < width:
            value = values[y, start]
            end = start + 1
            while end < width and values[y, end] == value:
                end += 1
            counts[value] += end - start
            found[y, start:end] = table[value]
            start = end
    return found, counts
