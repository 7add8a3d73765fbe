"""Compiled loops over logits, of one band of rows each: argmax and softmax, resized on the way.

In one file: the cache of a compiled function does not notice when one that it calls changes elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

_BLOCK = 512
"""Columns whose probabilities are computed at once: those of 80 categories stay in the second-level cache."""


class Taps(NamedTuple):
    """Where positions 0..n-1 of one side lie before resizing.

    Args:
        before: (n,) int32, the cell before each.
        after: (n,) int32, the cell after it.
        shares: (n,) of the cell after; the other one has the rest.
    """

    before: np.ndarray
    after: np.ndarray
    shares: np.ndarray


class Resizing(NamedTuple):
    """How a map is resized: bilinear with half-pixel centres.

    Args:
        rows: taps of H rows.
        columns: taps of W columns.
        is_needed: False where both sizes are the same.
    """

    rows: Taps
    columns: Taps
    is_needed: bool


def resizing_of(old: tuple[int, int], new: tuple[int, int]) -> Resizing:
    """From (h, w) = `old` to (H, W) = `new`."""
    return Resizing(_taps(old[0], new[0]), _taps(old[1], new[1]), old != new)


def _taps(old: int, new: int) -> Taps:
    positions = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    before = positions.astype(np.int32)
    after = np.minimum(before + 1, old - 1).astype(np.int32)
    return Taps(before, after, (positions - before).astype(np.float32))


@njit(cache=True, nogil=True)
def argmax_rows(
    logits: np.ndarray,
    resizing: Resizing,
    channels: np.ndarray,
    num_first: int,
    all_best: np.ndarray,
    first_best: np.ndarray,
    start: int,
    stop: int,
) -> bool:
    """Argmax of resized logits (C, h', w') for rows start..stop, the lowest of equal channels.

    Args:
        logits: those of the map are the first h rows and w columns.
        resizing: from (h, w) to (H, W).
        channels: (C,) in the order they are read; `num_first` of them ascending, then the others ascending.
        num_first: channels of the first group.
        all_best: (H, W) uint8, written: the best of all channels.
        first_best: (H, W) uint8, written: the best of the first group; left alone if that is empty.
        start: first row.
        stop: last row, exclusive.

    Returns:
        Whether all that was read is finite.
    """
    width = all_best.shape[1]
    line, most = np.empty(width, dtype=np.float32), np.empty(width, dtype=np.float32)
    winner = np.zeros(width, dtype=np.int32)
    total = np.zeros(width, dtype=np.float32)  # not finite as soon as one of its terms is not
    for y in range(start, stop):
        most[:] = -np.inf
        for number in range(channels.size):
            channel = np.int32(channels[number])
            values = _read_line(logits[channel], y, 0, resizing, line)
            for x in range(width):
                is_better = (values[x] > most[x]) | ((values[x] == most[x]) & (channel < winner[x]))
                most[x] = values[x] if is_better else most[x]
                winner[x] = channel if is_better else winner[x]
                total[x] += values[x]
            if number == num_first - 1:
                for x in range(width):
                    first_best[y, x] = winner[x]
        for x in range(width):
            all_best[y, x] = winner[x]
    return bool(np.isfinite(total).all())


@njit(cache=True, nogil=True)
def _read_line(source: np.ndarray, y: int, first: int, resizing: Resizing, line: np.ndarray) -> np.ndarray:
    """(n,) of row y of a resized map, from column `first`; written to line (n,) only if it is resized."""
    length = line.size
    above, below = source[resizing.rows.before[y]], source[resizing.rows.after[y]]
    if not resizing.is_needed:
        values: np.ndarray = above[first : first + length]
        return values
    before = resizing.columns.before[first : first + length]
    after = resizing.columns.after[first : first + length]
    along, down = resizing.columns.shares[first : first + length], resizing.rows.shares[y]
    begin, end = before[0], after[length - 1] + 1
    blended = above[begin:end] + down * (below[begin:end] - above[begin:end])
    for x in range(length):
        value = blended[before[x] - begin]
        line[x] = value + along[x] * (blended[after[x] - begin] - value)
    return line


@njit(cache=True, nogil=True)
def best_probability_rows(
    logits: np.ndarray, resizing: Resizing, needed: np.ndarray, best: np.ndarray, start: int, stop: int
) -> None:
    """Softmax probability of the best of resized logits (C, h', w') for rows start..stop of best (H, W).

    Written where needed (H, W) bool says so.
    """
    width = needed.shape[1]
    resized = np.empty((len(logits), 1, _BLOCK), dtype=np.float32)
    lines = np.empty((len(logits), _BLOCK), dtype=np.float32)
    for y in range(start, stop):
        for first in range(0, width, _BLOCK):
            length = min(_BLOCK, width - first)
            if needed[y, first : first + length].any():
                for channel in range(len(logits)):
                    line = resized[channel, 0, :length]
                    line[:] = _read_line(logits[channel], y, first, resizing, line)
                totals = _exponentials(resized, 0, 0, lines, length)
                for x in range(length):
                    if needed[y, first + x]:
                        best[y, first + x] = np.float32(1) / totals[x]


@njit(cache=True, nogil=True)
def sum_probability_rows(
    logits: np.ndarray,
    channels: np.ndarray,
    windows: np.ndarray,
    starts: np.ndarray,
    pixels: np.ndarray,
    width: int,
    sums: np.ndarray,
    start: int,
    stop: int,
) -> bool:
    """Sums of softmax probabilities over each mask, for rows start..stop.

    Args:
        logits: (T, H', W').
        channels: (N,) channel of each mask.
        windows: (N, 4) of `PastedMasks`.
        starts: (N,) of `PastedMasks`.
        pixels: (K,) of `PastedMasks`.
        width: W, of the map; the others are padding.
        sums: (H, N), written, by row.
        start: first row.
        stop: last row, exclusive.

    Returns:
        Whether all that was read is finite.
    """
    lines = np.empty((len(logits), _BLOCK), dtype=np.float32)
    shares: np.ndarray = np.empty(0, dtype=np.float32)
    total = 0.0  # not finite as soon as one of its terms is not
    for y in range(start, stop):
        for first in range(0, width, _BLOCK):
            length, is_read = min(_BLOCK, width - first), False
            for number in range(len(windows)):
                left, top, right, bottom = windows[number]
                begin, end = max(left, first), min(right, first + length)
                if not (top <= y < bottom and begin < end):
                    continue
                if not is_read:
                    shares, is_read = np.float32(1) / _exponentials(logits, y, first, lines, length), True
                    total += shares.sum()
                row = starts[number] + (y - top) * (right - left) - left
                likely = lines[channels[number], begin - first : end - first]
                sums[y, number] += _masked_sum(
                    likely, shares[begin - first : end - first], pixels[row + begin : row + end]
                )
    return bool(np.isfinite(total))


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def _masked_sum(values: np.ndarray, factors: np.ndarray, mask: np.ndarray) -> float:
    """Sum of products (n,) where the mask is; in double precision, in which equal ones add up exactly in any order."""
    total = 0.0
    for x in range(mask.size):
        total += np.float64(values[x] * factors[x]) if mask[x] else 0.0
    return total


@njit(cache=True, nogil=True, fastmath={"contract"})
def _exponentials(logits: np.ndarray, y: int, first: int, lines: np.ndarray, length: int) -> np.ndarray:
    """Exponentials of logits less the highest of their pixel, for a part of one row.

    Args:
        logits: (T, H, W).
        y: the row.
        first: its first column.
        lines: (T, n), of which the first columns are written.
        length: columns that are computed.

    Returns:
        (length,) sums over T; not a number where one of the logits is not finite.
    """
    most = np.full(length, -np.inf, dtype=np.float32)
    totals = np.zeros(length, dtype=np.float32)
    for channel in range(len(logits)):
        values = logits[channel, y, first : first + length]
        for x in range(length):
            most[x] = values[x] if values[x] > most[x] else most[x]
            totals[x] += values[x] - values[x]  # 0, or not a number
    for channel in range(len(logits)):
        values, line = logits[channel, y, first : first + length], lines[channel, :length]
        for x in range(length):
            # e^z = 2^n e^r with |r| <= ln(2) / 2, where six terms of the series are as exact as fp32. A polynomial,
            # since calls of exp are not vectorised and would take most of the time.
            power = max((values[x] - most[x]) * np.float32(1.4426950408889634), np.float32(-125))
            whole = np.int32(power - np.float32(0.5))
            rest = (power - np.float32(whole)) * np.float32(0.6931471805599453)
            series = np.float32(1 / 720) * rest + np.float32(1 / 120)
            series = series * rest + np.float32(1 / 24)
            series = series * rest + np.float32(1 / 6)
            series = series * rest + np.float32(0.5)
            series = series * rest + np.float32(1)
            series = series * rest + np.float32(1)
            scale = np.int32((whole + np.int32(127)) << np.int32(23)).view(np.float32)  # 2^n by its exponent
            line[x] = series * scale
            totals[x] += line[x]
    return totals
