"""What DeeperLab's four instance heads must predict: one compact encoder, and its dense expansions on any device.

`encode_keypoints` runs in loader workers and returns id maps and a keypoint table. The `*_target` functions turn them
into dense maps where the losses are computed: torch only, no synchronisation, memory O(P H W + N P radius^2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from torch import Tensor

from panoptic.structures import VOID, Category, KeypointGraph, Sample
from panoptic.targets.segment_table import ground_truth, run_end, segment_table

_UNOWNED = torch.iinfo(torch.int64).max


@dataclass(frozen=True, eq=False)
class KeypointTargets:
    """Instances of one image and their keypoints.

    Args:
        instance_map: (H, W) int32, 0 outside instances, n on pixels of row n - 1 of `keypoints`.
        valid: (H, W) bool, False on void and crowd.
        keypoints: (N, P, 2), (y, x) in pixels of this map, pixel centres at integers.
    """

    instance_map: Tensor
    valid: Tensor
    keypoints: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> KeypointTargets:
        """The same targets on `device`."""
        return KeypointTargets(
            self.instance_map.to(device, non_blocking=non_blocking),
            self.valid.to(device, non_blocking=non_blocking),
            self.keypoints.to(device, non_blocking=non_blocking),
        )


def encode_keypoints(sample: Sample, *, categories: Sequence[Category], graph: KeypointGraph) -> KeypointTargets:
    """Instance map and keypoints of the non-crowd things of a sample (DeeperLab, Sec. 3.3.2).

    Corners are the extreme pixels of the visible part, inclusive; the centre is the mean of its pixels. An instance
    cut by a crop has the box and the centre of what is left ("not stated in the paper; chosen").

    Args:
        sample: an image with its panoptic map.
        categories: of the data set, category ids are indices into them.
        graph: which P keypoints, in which order.

    Returns:
        Instances in the order of their first pixels, row by row; a segment without pixels is none.

    Raises:
        ValueError: the sample has no panoptic map, a segment's category is not in `categories`, or the graph names a
            keypoint that is not known.
    """
    panoptic_map = ground_truth(sample)
    table = segment_table(panoptic_map, categories)
    instance_map, valid, moments = _keypoint_pass(
        panoptic_map.segment_ids.cpu().contiguous().numpy(), table.ids, table.is_instance, table.is_crowd
    )
    device = panoptic_map.segment_ids.device
    return KeypointTargets(
        torch.from_numpy(instance_map).to(device),
        torch.from_numpy(valid).to(device),
        torch.from_numpy(_keypoints(moments, graph)).to(device),
    )


@njit(cache=True, nogil=True)
def _keypoint_pass(
    segment_ids: np.ndarray, table: np.ndarray, is_instance: np.ndarray, is_crowd: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Instance map, valid pixels and, per instance, area, y_min, x_min, y_max, x_max, sum of y, sum of x."""
    height, width = segment_ids.shape
    instance_map = np.zeros((height, width), dtype=np.int32)
    valid = np.zeros((height, width), dtype=np.bool_)
    moments = np.zeros((table.size, 7), dtype=np.float64)
    numbers = np.zeros(table.size, dtype=np.int32)  # 0 until the segment's first pixel
    count = 0
    for y in range(height):
        start = 0
        while start < width:
            end = run_end(segment_ids[y], start)
            if segment_ids[y, start] != VOID:
                row = np.searchsorted(table, segment_ids[y, start])
                valid[y, start:end] = not is_crowd[row]
                if is_instance[row]:
                    if numbers[row] == 0:
                        moments[count, 1:5] = np.array([y, start, y, end - 1])
                        count += 1
                        numbers[row] = count
                    instance_map[y, start:end] = numbers[row]
                    moment = moments[numbers[row] - 1]
                    length = end - start
                    moment[0] += length
                    moment[2] = min(moment[2], start)
                    moment[3] = y  # rows come in ascending order
                    moment[4] = max(moment[4], end - 1)
                    moment[5] += length * y
                    moment[6] += length * (start + end - 1) * 0.5
            start = end
    return instance_map, valid, moments[:count]


def _keypoints(moments: np.ndarray, graph: KeypointGraph) -> np.ndarray:
    """Keypoints (N, P, 2) float32 as (y, x) from the moments (N, 7) of `_keypoint_pass`."""
    area, y_min, x_min, y_max, x_max, y_sum, x_sum = moments.T
    known = {
        "top_left": (y_min, x_min),
        "top_right": (y_min, x_max),
        "bottom_right": (y_max, x_max),
        "bottom_left": (y_max, x_min),
        "centre": (y_sum / area, x_sum / area),
    }
    unknown = sorted(set(graph.keypoints) - set(known))
    if unknown:
        raise ValueError(f"expected keypoints out of {sorted(known)}, got {unknown} in graph {graph.name!r}")
    keypoints = np.empty((len(moments), len(graph.keypoints), 2), dtype=np.float32)
    for kind, name in enumerate(graph.keypoints):
        keypoints[:, kind, 0], keypoints[:, kind, 1] = known[name]
    return keypoints


def expand_disks(targets: KeypointTargets, radius: float) -> Tensor:
    """Which instance's disk each pixel is in, for each keypoint kind (DeeperLab, Fig. 4a).

    Args:
        targets: of one image.
        radius: of the disks in pixels; a pixel at exactly this distance of the keypoint is inside.

    Returns:
        owner: (P, H, W) int64, 0 outside all disks, n in the disk of row n - 1 of `targets.keypoints`; where disks of
            several instances meet, the nearest keypoint owns the pixel, at equal distance the lower row.
    """
    if not radius > 0:
        raise ValueError(f"expected a positive radius in pixels, got {radius}")
    keypoints = targets.keypoints
    num_instances, num_kinds, _ = keypoints.shape
    height, width = targets.instance_map.shape
    reach = torch.arange(int(2 * radius) + 1, device=keypoints.device)
    pixels = torch.ceil(keypoints - radius).long()[..., None] + reach  # (N, P, 2, D)
    squared = (pixels - keypoints[..., None]).square()
    distances = squared[:, :, 0, :, None] + squared[:, :, 1, None, :]  # (N, P, D, D)
    y, x = pixels[:, :, 0, :, None], pixels[:, :, 1, None, :]
    inside = (distances <= radius * radius) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    # Bits of non-negative floats sort as the floats do, so the least (distance, row) is the least of packed integers.
    rows = torch.arange(num_instances, device=keypoints.device)[:, None, None, None]
    keys = (distances.view(torch.int32).long() << 32) | rows
    kinds = torch.arange(num_kinds, device=keypoints.device)[:, None, None]
    # One slot past the end takes what lies outside: boolean indexing would synchronise with the device.
    slots = torch.where(inside, (kinds * height + y) * width + x, num_kinds * height * width)
    nearest = keys.new_full((num_kinds * height * width + 1,), _UNOWNED)
    nearest.scatter_reduce_(0, slots.flatten(), keys.flatten(), "amin")
    nearest = nearest[:-1].view(num_kinds, height, width)
    return torch.where(nearest == _UNOWNED, 0, (nearest & 0xFFFFFFFF) + 1)


def heatmap_target(owner: Tensor) -> Tensor:
    """Keypoint heatmap (P, H, W): 1 inside disks, 0 elsewhere; `owner` as `expand_disks` returns it."""
    return (owner > 0).to(torch.get_default_dtype())


def short_range_target(targets: KeypointTargets, owner: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets from the pixels of each disk to its keypoint (DeeperLab, Fig. 4c).

    Args:
        targets: of one image.
        owner: (P, H, W) int64, from `expand_disks`.

    Returns:
        offsets: (P, 2, H, W), (dy, dx) in pixels of the network's input, 0 where not active.
        active: (P, H, W) bool, inside disks, without void and crowd.
    """
    kinds = list(range(targets.keypoints.shape[1]))
    return _offsets(targets, owner, kinds)


def middle_range_target(targets: KeypointTargets, owner: Tensor, graph: KeypointGraph) -> tuple[Tensor, Tensor]:
    """Offsets from the pixels of the disk of an edge's source keypoint to its target keypoint (DeeperLab, Fig. 4d).

    From the pixel, not from the source keypoint, as in PersonLab.

    Args:
        targets: of one image.
        owner: (P, H, W) int64, from `expand_disks`.
        graph: its edges, E of them.

    Returns:
        offsets: (E, 2, H, W), (dy, dx) in pixels of the network's input, 0 where not active.
        active: (E, H, W) bool, inside disks of the source keypoint, without void and crowd.
    """
    sources = torch.tensor([source for source, _ in graph.edges], device=owner.device)
    return _offsets(targets, owner[sources], [target for _, target in graph.edges])


def _offsets(targets: KeypointTargets, owner: Tensor, kinds: list[int]) -> tuple[Tensor, Tensor]:
    """Offsets (K, 2, H, W) from each pixel to keypoint `kinds[k]` of its owner, and where they are active (K, H, W)."""
    count, height, width = owner.shape
    active = (owner > 0) & targets.valid
    table = _keypoint_columns(targets)[kinds]  # (K, 2, N + 1)
    index = owner.reshape(count, 1, height * width).expand(count, 2, height * width)
    located = table.gather(2, index).view(count, 2, height, width)
    return torch.where(active[:, None], located - _pixel_grid(owner), 0.0), active


def long_range_target(targets: KeypointTargets) -> tuple[Tensor, Tensor]:
    """Offsets from the pixels of each instance to all its keypoints (DeeperLab, Fig. 4b).

    Returns:
        offsets: (P, 2, H, W), (dy, dx) in pixels of the network's input, 0 where not active.
        active: (H, W) bool, on pixels of instances (never void or crowd).
    """
    active = targets.instance_map > 0
    located = _keypoint_columns(targets)[:, :, targets.instance_map.long()]  # (P, 2, H, W)
    return torch.where(active, located - _pixel_grid(targets.instance_map), 0.0), active


def _keypoint_columns(targets: KeypointTargets) -> Tensor:
    """Keypoints as (P, 2, N + 1), column n of instance n; column 0, of no instance, is 0."""
    return torch.nn.functional.pad(targets.keypoints.permute(1, 2, 0), (1, 0))


def _pixel_grid(like: Tensor) -> Tensor:
    """(2, H, W): y and x of every pixel of a (.., H, W) map."""
    height, width = like.shape[-2:]
    y = torch.arange(height, device=like.device, dtype=torch.float32)
    x = torch.arange(width, device=like.device, dtype=torch.float32)
    return torch.stack(torch.meshgrid(y, x, indexing="ij"))
