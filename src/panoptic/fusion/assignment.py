"""Step 5 of DeeperLab's instance prediction (Sec. 3.4.1): pixels to instances."""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit
from torch import Tensor

from panoptic.fusion.arrays import float_array, in_threads, split_range

_CHUNK = 65536
"""Pixels whose distances to all instances are held at once: 80 MB for 300 instances."""


def assign_pixels(located: Tensor, keypoints: Tensor) -> Tensor:
    """The instance whose keypoints are nearest to where each pixel sees them: least L2 norm over all P keypoints.

    Args:
        located: (P, 2, M), (y, x) in pixels, from `locate_keypoints`.
        keypoints: (N, P, 2), (y, x) in pixels, N >= 1.

    Returns:
        (M,) int64, 0..N-1; at equal distance the lower.
    """
    if located.device.type != "cpu":
        return assign_pixels_torch(located, keypoints)
    seen, points = float_array(located.flatten(0, 1)), float_array(keypoints.flatten(1))
    owners = np.empty(seen.shape[1], dtype=np.int64)
    in_threads(lambda part: _assign(seen, points, part.start, part.stop, owners), split_range(len(owners)))
    return torch.from_numpy(owners)


def assign_pixels_torch(located: Tensor, keypoints: Tensor) -> Tensor:
    """`assign_pixels` in torch, for devices other than the CPU; at equal distance any."""
    points = keypoints.flatten(1).to(located.dtype)
    chunks = torch.split(located.flatten(0, 1).T, _CHUNK)
    # Distances of a thousand pixels differ by less than what a matrix product would round away.
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cat([torch.cdist(chunk, points, compute_mode=mode).argmin(1) for chunk in chunks])


@njit(cache=True, nogil=True)
def _assign(located: np.ndarray, points: np.ndarray, start: int, stop: int, owners: np.ndarray) -> None:
    """`assign_pixels` of pixels start..stop of located (2P, M) to points (N, 2P), written to owners (M,).

    Neighbours see their keypoints at nearly the same place, and then all distances need not be computed again: moving
    by delta changes each distance by at most delta, so the winner stays while 2 delta < second distance - least one.
    """
    size = len(located)
    reference = np.zeros(size, dtype=np.float64)
    owner, margin = 0, -1.0
    for pixel in range(start, stop):
        moved = 0.0
        for axis in range(size):
            moved += (located[axis, pixel] - reference[axis]) ** 2
        if not 2 * math.sqrt(moved) < margin:
            for axis in range(size):
                reference[axis] = located[axis, pixel]
            owner, margin = _nearest(reference, points)
        owners[pixel] = owner


@njit(cache=True, nogil=True)
def _nearest(reference: np.ndarray, points: np.ndarray) -> tuple[int, float]:
    """The row of points (N, 2P) nearest to the reference (2P,), the first of equal ones, and by how much it is nearer.

    A sum of squares only grows: a row is left as soon as it is no nearer than the second, most after one keypoint.
    """
    owner, least, second = 0, np.inf, np.inf
    for row in range(len(points)):
        squared = 0.0
        for axis in range(reference.size):
            squared += (reference[axis] - points[row, axis]) ** 2
            if squared >= second:
                break
        if squared < least:
            owner, least, second = row, squared, least
        elif squared < second:
            second = squared
    return owner, math.sqrt(second) - math.sqrt(least)
