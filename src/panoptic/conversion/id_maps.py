"""Maps whose values are ids: what is common to their formats."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from panoptic.conversion.files import (
    PHOTOGRAPHS,
    check_pairs,
    check_photograph,
    existing_folder,
    index_files,
    raise_all,
)
from panoptic.data.images import read_grey16_png, read_index_png
from panoptic.structures import VOID, PanopticMap, Segment

_DEPTH, _HEADER = 24, 25
"""Where a PNG's header has the bits per value, and where that ends."""


class MapsWithPhotographs:
    """Maps and photographs of the same names.

    Args:
        maps: folder of the maps, searched with the folders below it.
        images: folder of the photographs, likewise.
        maps_suffix: end of the maps' names.
        images_suffix: end of the photographs' names; None is that of any image.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: no map, or files without partner, all of them.
    """

    def __init__(self, maps: Path | str, images: Path | str, maps_suffix: str, images_suffix: str | None) -> None:
        map_folder = existing_folder(maps, "from.maps")
        self.image_folder = existing_folder(images, "from.images")
        self.maps = index_files(map_folder, [maps_suffix])
        self.photographs = index_files(self.image_folder, PHOTOGRAPHS if images_suffix is None else [images_suffix])
        what = f"map *{maps_suffix} in {map_folder}"
        other = f"photograph{'' if images_suffix is None else f' *{images_suffix}'} in {self.image_folder}"
        check_pairs(self.maps, self.photographs, what, other)
        self.keys = list(self.maps)

    def __len__(self) -> int:
        return len(self.keys)

    def read_grey16(self, key: str) -> tuple[NDArray[np.uint16], list[int]]:
        """(H, W) of a map of 16 bits, and the values that occur in it, sorted; its photograph has its size.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: truncated, damaged, another kind of file, or a photograph of another size.
        """
        values = read_grey16_png(self.maps[key])
        check_photograph(self.photographs[key], (values.shape[0], values.shape[1]))
        return values, np.flatnonzero(np.bincount(values.reshape(-1))).tolist()

    def image_name(self, key: str) -> str:
        """The photograph's path within the image folder."""
        return self.photographs[key].relative_to(self.image_folder).as_posix()


def map_of_values(values: NDArray[np.integer], segment_of: Callable[[int, int], Segment | None]) -> PanopticMap:
    """A panoptic map, in which every value of another map becomes one segment or void.

    Args:
        values: (H, W), 0 or more.
        segment_of: (value, area in pixels) to the segment; several values may have one id, whose areas are summed.
    """
    counts = np.bincount(values.reshape(-1))
    lookup = np.zeros(len(counts), dtype=np.int64)
    segments: dict[int, Segment] = {}
    for value in np.flatnonzero(counts).tolist():
        segment = segment_of(value, int(counts[value]))
        if segment is None:
            continue
        lookup[value] = segment.id
        before = segments.get(segment.id)
        area = int(counts[value]) + (0 if before is None or before.area is None else before.area)
        segments[segment.id] = Segment(segment.id, segment.category_id, segment.is_crowd, area=area)
    assert VOID not in segments, "segment ids start at 1"
    return PanopticMap(torch.from_numpy(lookup[values]), list(segments.values()))


def raise_unknown(path: Path, unknown: Iterable[int], expected: str) -> None:
    """Raise ValueError with all values of a map that mean nothing, if there are any."""
    raise_all(map(str, sorted(unknown)), f"unknown values in {path}, expected {expected}")


def read_ids(path: Path) -> NDArray[np.int64]:
    """Values of a PNG with one channel of 8 or 16 bits, palette indices or grey: (H, W) int64.

    Raises:
        FileNotFoundError: no such file, or a link that leads nowhere.
        ValueError: truncated, damaged, or another kind of file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}, or a link that leads nowhere")
    with path.open("rb") as file:
        depth = file.read(_HEADER)[_DEPTH:_HEADER]
    values = read_grey16_png(path) if depth == b"\x10" else read_index_png(path)
    return values.astype(np.int64)


def pair_up(
    classes: NDArray[np.int64], numbers: NDArray[np.int64], paths: tuple[Path, Path]
) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
    """Which pairs of a class and a number occur, and where.

    Args:
        classes: (H, W), 0 or more.
        numbers: (H, W), 0 or more.
        paths: of the two, for errors.

    Returns:
        places: (H, W), index into the pairs.
        pairs: (class, number), sorted by number, then by class.

    Raises:
        ValueError: maps of unequal size.
    """
    if classes.shape != numbers.shape:
        raise ValueError(f"{paths[0]} has size {classes.shape}, but {paths[1]} {numbers.shape} (height, width)")
    base = int(classes.max()) + 1
    present, places = np.unique(numbers * base + classes, return_inverse=True)
    pairs = [(int(code % base), int(code // base)) for code in present.tolist()]
    return places.reshape(classes.shape).astype(np.int64), pairs
