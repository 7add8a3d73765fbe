"""Objects that may overlap: drawn from outlines, painted into one map, kept whole in an instances JSON beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import faster_coco_eval.core.mask as coco_mask
import numpy as np
import torch
from numpy.typing import NDArray

from panoptic.conversion.category_files import dataset_ids
from panoptic.conversion.contract import AnnotatedImage, ObjectMask
from panoptic.data.json_lists import JsonList, write_json_lists
from panoptic.data.panoptic_writer import category_entries
from panoptic.structures import VOID, Category, PanopticMap, Segment

CLIPPED = "shapes that reach outside the image were cut off at its border"
EMPTY = "shapes without a pixel in the image were left out"
DEGENERATE = "polygons of fewer than three points were left out"


def paint_objects(objects: Sequence[ObjectMask], categories: Sequence[Category], size: tuple[int, int]) -> PanopticMap:
    """Paint objects one over the other; what none covers is void.

    A thing is a segment, whose id is its place in `objects` + 1. Stuff of one category is one segment, with the id of
    its first. An object of which nothing is left has no segment.

    Args:
        objects: later ones lie on earlier ones.
        categories: of the objects.
        size: (H, W) in pixels.
    """
    segment_ids = np.full(size, VOID, dtype=np.int64)
    ids_of_stuff: dict[int, int] = {}
    segments: dict[int, Segment] = {}
    for number, item in enumerate(objects, start=1):
        is_thing = categories[item.category_id].is_thing
        segment_id = number if is_thing else ids_of_stuff.setdefault(item.category_id, number)
        segment_ids[decode(item.runs)] = segment_id
        segments[segment_id] = Segment(segment_id, item.category_id, is_crowd=is_thing and item.is_crowd)
    areas = np.bincount(segment_ids.reshape(-1), minlength=len(objects) + 1)
    kept = [Segment(s.id, s.category_id, s.is_crowd, area=int(areas[s.id])) for s in segments.values() if areas[s.id]]
    return PanopticMap(torch.from_numpy(segment_ids), kept)


def covered_things(image: AnnotatedImage, categories: Sequence[Category]) -> tuple[int, int]:
    """How many things the map of an image does not hold whole, and of how many of these it holds nothing."""
    areas = {segment.id: segment.area for segment in image.panoptic_map.segments}
    covered = hidden = 0
    for number, item in enumerate(image.objects or (), start=1):
        if categories[item.category_id].is_thing:
            covered += areas.get(number) != int(coco_mask.area(item.runs))
            hidden += number not in areas
    return covered, hidden


def encode(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's compressed run lengths of a mask (H, W)."""
    runs: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return runs


def decode(runs: Mapping[str, Any]) -> NDArray[np.bool_]:
    """The mask (H, W) of COCO's compressed run lengths."""
    mask: NDArray[np.bool_] = coco_mask.decode(runs).astype(bool)
    return mask


def merge_runs(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Run lengths of the union."""
    merged: dict[str, Any] = coco_mask.merge([dict(part) for part in runs])
    return merged


def encode_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> dict[str, Any]:
    """Run lengths of the union of polygons, drawn as COCO does; what lies outside the image is cut off.

    Args:
        polygons: x, y, x, y, ... in pixels, three points or more each, at least one polygon.
        size: (H, W) in pixels.
    """
    height, width = size
    runs: dict[str, Any] = coco_mask.merge(coco_mask.frPyObjects([list(p) for p in polygons], height, width))
    return runs


def area_of(runs: Mapping[str, Any]) -> int:
    """Pixels of run lengths."""
    return int(coco_mask.area(runs))


def is_outside(points: NDArray[np.float64], size: tuple[int, int]) -> bool:
    """Whether any of the points (P, 2), x and y in pixels, lies outside an image of size (H, W)."""
    height, width = size
    return bool((points < 0).any() or (points > (width, height)).any())


class InstancesWriter:
    """Writes the things of all images as COCO's instances JSON, with run lengths.

    Args:
        path: of the JSON.
        categories: of the objects; only things are listed.
    """

    def __init__(self, path: Path, categories: Sequence[Category]) -> None:
        self._path = path
        self._categories = categories
        self._dataset_ids = dataset_ids(categories)
        names = ("images", "annotations", "categories")
        self._lists = {name: JsonList(path.with_name(f".{path.name}.{os.getpid()}.{name}")) for name in names}
        self._count = 0

    def add(self, image: AnnotatedImage) -> None:
        """List an image with its things."""
        height, width = image.panoptic_map.size
        self._lists["images"].append(
            {"id": image.image_id, "file_name": image.image_name, "width": width, "height": height}
        )
        for item in image.objects or ():
            if not self._categories[item.category_id].is_thing:
                continue
            self._count += 1
            entry = {
                "id": self._count,
                "image_id": image.image_id,
                "category_id": self._dataset_ids[item.category_id],
                "iscrowd": int(item.is_crowd),
                "area": area_of(item.runs),
                "bbox": [float(side) for side in coco_mask.toBbox(item.runs)],
                "segmentation": {"size": list(item.runs["size"]), "counts": bytes(item.runs["counts"]).decode("ascii")},
            }
            self._lists["annotations"].append(entry)

    def close(self, *, keep: bool) -> None:
        """Write the JSON; without `keep` nothing stays."""
        if keep:
            for category, entry in zip(self._categories, category_entries(self._categories), strict=True):
                if category.is_thing:
                    self._lists["categories"].append(entry)
            write_json_lists(self._path, self._lists)
        for entries in self._lists.values():
            entries.remove()
