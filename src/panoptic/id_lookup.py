"""One compiled pass over an id map: maps are made of runs, so an id is looked up only where it changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import njit
from torch import Tensor


@njit(cache=True, nogil=True)
def _first_unlisted(ids: np.ndarray, table: np.ndarray) -> int:
    """The first id of `ids` (flat) that is neither 0 nor in `table` (sorted); 0 when all are listed."""
    last = 0
    for position in range(ids.size):
        current = ids[position]
        if current == last:
            continue
        row = np.searchsorted(table, current)
        if current != 0 and (row == table.size or table[row] != current):
            return int(current)
        last = current
    return 0


def first_unlisted_id(segment_ids: Tensor, listed: Sequence[int]) -> int | None:
    """The first id of the map without an entry in the table, None if there is none.

    Args:
        segment_ids: (H, W) int64; 0 is void and always listed.
        listed: ids of the table, in any order.
    """
    if segment_ids.device.type != "cpu":
        table = torch.tensor([0, *listed], device=segment_ids.device)
        unlisted = segment_ids[~torch.isin(segment_ids, table)]  # device sync: once per map
        return int(unlisted[0]) if unlisted.numel() else None
    found = int(_first_unlisted(segment_ids.numpy().reshape(-1), np.sort(np.asarray(listed, dtype=np.int64))))
    return found or None
