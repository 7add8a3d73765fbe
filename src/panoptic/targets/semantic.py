"""What a semantic head must predict: a category for every pixel, and which pixels belong to small instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from torch import Tensor

from panoptic.structures import IGNORE_INDEX, VOID, Category, Sample
from panoptic.targets.segment_table import ground_truth, run_end, segment_table


@dataclass(frozen=True, eq=False)
class SemanticTargets:
    """Semantic ground truth of one image.

    Args:
        semantic_map: (H, W) uint8 category ids, `IGNORE_INDEX` on void and crowd.
        small_instances: (H, W) bool, True on pixels of small instances, whose loss weighs more (DeeperLab, Eq. 1).
    """

    semantic_map: Tensor
    small_instances: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SemanticTargets:
        """The same targets on `device`."""
        return SemanticTargets(
            self.semantic_map.to(device, non_blocking=non_blocking),
            self.small_instances.to(device, non_blocking=non_blocking),
        )


def encode_semantic(
    sample: Sample, *, categories: Sequence[Category], small_instance_area: int = 4096
) -> SemanticTargets:
    """Category and smallness of every pixel (DeeperLab, Sec. 3.3.1).

    Args:
        sample: an image with its panoptic map.
        categories: of the data set, category ids are indices into them.
        small_instance_area: a non-crowd thing of fewer pixels than this, counted at the size of the sample, is small;
            64 x 64 in the paper.

    Raises:
        ValueError: the sample has no panoptic map, or a segment's category is not in `categories`.
    """
    panoptic_map = ground_truth(sample)
    table = segment_table(panoptic_map, categories)
    semantic_map, small_instances = _semantic_pass(
        panoptic_map.segment_ids.cpu().contiguous().numpy(),
        table.ids,
        np.where(table.is_crowd, IGNORE_INDEX, table.category_ids).astype(np.uint8),
        table.is_instance,
        small_instance_area,
    )
    device = panoptic_map.segment_ids.device
    return SemanticTargets(torch.from_numpy(semantic_map).to(device), torch.from_numpy(small_instances).to(device))


@njit(cache=True, nogil=True)
def _semantic_pass(
    segment_ids: np.ndarray, table: np.ndarray, labels: np.ndarray, is_instance: np.ndarray, small_area: int
) -> tuple[np.ndarray, np.ndarray]:
    """Semantic map (H, W) uint8 and small instances (H, W) bool, run by run; a second look fills in the small ones."""
    height, width = segment_ids.shape
    semantic_map = np.full((height, width), IGNORE_INDEX, dtype=np.uint8)
    small_instances = np.zeros((height, width), dtype=np.bool_)
    areas = np.zeros(table.size, dtype=np.int64)
    for y in range(height):
        start = 0
        while start < width:
            end = run_end(segment_ids[y], start)
            if segment_ids[y, start] != VOID:
                row = np.searchsorted(table, segment_ids[y, start])
                areas[row] += end - start
                semantic_map[y, start:end] = labels[row]
            start = end
    is_small = is_instance & (areas < small_area)
    if not is_small.any():
        return semantic_map, small_instances
    for y in range(height):
        start = 0
        while start < width:
            end = run_end(segment_ids[y], start)
            if segment_ids[y, start] != VOID and is_small[np.searchsorted(table, segment_ids[y, start])]:
                small_instances[y, start:end] = True
            start = end
    return semantic_map, small_instances
