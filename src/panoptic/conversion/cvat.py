"""CVAT's export "COCO 1.0": an instances JSON of polygons or run lengths. Other tools write the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import faster_coco_eval.core.mask as coco_mask
import numpy as np

from panoptic.conversion.category_files import read_categories
from panoptic.conversion.contract import AnnotatedImage, ObjectMask
from panoptic.conversion.files import check_photograph, existing_folder, raise_all
from panoptic.conversion.objects import (
    CLIPPED,
    DEGENERATE,
    EMPTY,
    area_of,
    encode_polygons,
    is_outside,
    paint_objects,
)
from panoptic.data import panoptic_entries
from panoptic.data.instances_format import load_instances_json
from panoptic.data.masks import MAX_COORDINATE
from panoptic.structures import Category

BOXES = "annotations of a box alone were left out"


class Cvat:
    """An instances JSON by index, in the order of its `images`; image ids are its own.

    The format has no order of objects: the largest is painted first, so that small ones stay visible.

    Args:
        instances_json: the JSON, such as `annotations/instances_default.json`; it is read as a whole.
        images: the folder that `file_name` is relative to.
        categories: JSON of the same categories that also says which are things; None takes all for things.
        crowd: false takes what has `iscrowd` 1 for single objects, for tools that mark every mask of run lengths so.

    Raises:
        FileNotFoundError: a file or folder is missing.
        ValueError: not as in COCO's instances format, with every entry that is not.
    """

    def __init__(
        self,
        instances_json: Path | str,
        images: Path | str,
        categories: Path | str | None = None,
        *,
        crowd: bool = True,
    ) -> None:
        self._path = Path(instances_json).expanduser()
        if not self._path.is_file():
            raise FileNotFoundError(f"from.instances_json={instances_json}: no such file")
        self.image_folder = existing_folder(images, "from.images")
        self._crowd = crowd
        content = load_instances_json(self._path)
        for name in ("images", "annotations", "categories"):
            if not isinstance(content, dict) or not isinstance(content.get(name), list):
                raise ValueError(f"expected an object with a list `{name}` (COCO instances format) in {self._path}")
        self.categories = _categories(self._path, content, categories)
        self._number_of = {category.dataset_category_id: category.id for category in self.categories}
        faults = _faults_of_images(content["images"])
        faults += _faults_of_annotations(content["annotations"], content["images"], set(self._number_of))
        raise_all(faults, f"{len(faults)} entries of {self._path} are not as in COCO's instances format")
        self._images: list[dict[str, Any]] = content["images"]
        self._entries: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in self._images}
        for entry in content["annotations"]:
            self._entries[entry["image_id"]].append(entry)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> AnnotatedImage:
        image = self._images[index]
        size = (image["height"], image["width"])
        check_photograph(self.image_folder / image["file_name"], size)
        drawn: list[ObjectMask] = []
        notes: list[str] = []
        for entry in self._entries[image["id"]]:
            runs, oddities = self._draw(entry, size)
            notes += oddities
            if runs is not None:
                is_crowd = self._crowd and bool(entry.get("iscrowd", 0))
                drawn.append(ObjectMask(self._number_of[entry["category_id"]], runs, is_crowd))
        objects = sorted(drawn, key=lambda item: -area_of(item.runs))
        panoptic_map = paint_objects(objects, self.categories, size)
        return AnnotatedImage(image["id"], image["file_name"], panoptic_map, objects, tuple(notes))

    def _draw(self, entry: Mapping[str, Any], size: tuple[int, int]) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
        """Run lengths of an annotation, None where it has no pixel, and notes."""
        segmentation = entry["segmentation"]
        where = f"annotation {entry['id']} of image {entry['image_id']} in {self._path}"
        if not segmentation:
            return None, (BOXES,)
        if isinstance(segmentation, list):
            return _draw_polygons(segmentation, size, where)
        if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
            raise ValueError(f"expected polygons, or run lengths with `size` and `counts`, as segmentation of {where}")
        if list(segmentation["size"]) != list(size):
            raise ValueError(f"run lengths have size {segmentation['size']}, the image {list(size)} in {where}")
        runs = _compressed(segmentation, size, where)
        return (runs, ()) if area_of(runs) else (None, (EMPTY,))


def _draw_polygons(
    polygons: Sequence[Any], size: tuple[int, int], where: str
) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    notes = []
    kept = []
    for polygon in polygons:
        try:
            flat = np.array(polygon, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"expected a polygon as x, y, x, y, ..., got {str(polygon)[:100]} in {where}") from None
        if flat.ndim != 1 or flat.size % 2 or not (np.abs(flat) <= MAX_COORDINATE).all():
            raise ValueError(
                f"expected a polygon as x, y, x, y, ..., got {str(polygon)[:100]} in {where}; "
                f"coordinates go up to {MAX_COORDINATE}"
            )
        points = flat.reshape(-1, 2)
        if len(points) < 3:
            notes.append(DEGENERATE)
            continue
        if is_outside(points, size):
            notes.append(CLIPPED)
        kept.append(points.reshape(-1).tolist())
    if not kept:
        return None, tuple(notes)
    runs = encode_polygons(kept, size)
    return (runs, tuple(notes)) if area_of(runs) else (None, (*notes, EMPTY))


def _compressed(segmentation: Mapping[str, Any], size: tuple[int, int], where: str) -> dict[str, Any]:
    """Run lengths in COCO's compressed form; plain ones must cover the image."""
    height, width = size
    counts = segmentation["counts"]
    if isinstance(counts, list):
        if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != height * width:
            raise ValueError(f"expected run lengths of {height * width} pixels together, got other counts in {where}")
        compressed: dict[str, Any] = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        return compressed
    if not isinstance(counts, str) or not counts.isascii():
        raise ValueError(f"expected run lengths as numbers or as a string, got {str(counts)[:50]!r} in {where}")
    runs = {"size": [height, width], "counts": counts.encode("ascii")}
    try:
        coco_mask.decode(runs)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"run lengths cannot be read, {error} in {where}") from None
    return runs


def _categories(path: Path, content: Mapping[str, Any], given: Path | str | None) -> list[Category]:
    """The JSON's own categories, all things, or those of the user's file, which must be the same."""
    as_things = [
        {**entry, "isthing": 1, "supercategory": entry.get("supercategory") or None}
        for entry in content["categories"]
        if isinstance(entry, dict)
    ]
    own = panoptic_entries.read_categories(path, {"categories": as_things})
    if given is None:
        return own
    categories = read_categories(given, "from.categories")
    ours, theirs = ({(c.dataset_category_id, c.name) for c in side} for side in (own, categories))
    if ours != theirs:
        raise ValueError(
            f"expected the categories (id, name) of {path} in from.categories={given}, got {sorted(theirs - ours)} "
            f"instead of {sorted(ours - theirs)}"
        )
    return categories


def _faults_of_images(images: Sequence[Any]) -> list[str]:
    """What is wrong with `images`."""
    kinds: dict[str, type | tuple[type, ...]] = {"id": (int, str), "file_name": str, "height": int, "width": int}
    faults = []
    for number, image in enumerate(images):
        wrong = [
            key for key, kind in kinds.items() if not isinstance(image, dict) or not isinstance(image.get(key), kind)
        ]
        if wrong:
            faults.append(f"entry {number} of `images` lacks {', '.join(wrong)}: {str(image)[:100]}")
    for key in ("id", "file_name"):
        values = (image.get(key) for image in images if isinstance(image, dict))
        counts = Counter(value for value in values if isinstance(value, int | str))
        faults += [f"{key} {value!r} occurs {count} times in `images`" for value, count in counts.items() if count > 1]
    return faults


def _faults_of_annotations(annotations: Sequence[Any], images: Sequence[Any], known: set[int | None]) -> list[str]:
    """What is wrong with `annotations`."""
    image_ids = [image.get("id") for image in images if isinstance(image, dict)]
    known_ids = {image_id for image_id in image_ids if isinstance(image_id, int | str)}
    faults = []
    for number, entry in enumerate(annotations):
        if not isinstance(entry, dict) or not {"id", "image_id", "category_id", "segmentation"} <= entry.keys():
            faults.append(f"entry {number} of `annotations` lacks id, image_id, category_id or segmentation")
        elif not isinstance(entry["image_id"], int | str) or not isinstance(entry["category_id"], int):
            faults.append(
                f"entry {number} of `annotations` has image_id {entry['image_id']} and category_id "
                f"{entry['category_id']}, expected ids as in `images` and `categories`"
            )
        elif entry["image_id"] not in known_ids:
            faults.append(f"annotation {entry['id']} is of image {entry['image_id']}, which `images` does not list")
        elif entry["category_id"] not in known:
            faults.append(
                f"annotation {entry['id']} has category {entry['category_id']}, not one of {sorted(map(str, known))}"
            )
    return faults
