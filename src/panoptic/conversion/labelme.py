"""labelme's files: one JSON a photograph, with the shapes that were drawn on it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panoptic.conversion.category_files import read_categories
from panoptic.conversion.contract import AnnotatedImage, ObjectMask
from panoptic.conversion.files import check_photograph, existing_folder, index_files, photograph_header, raise_all
from panoptic.conversion.labelme_shapes import draw_shape
from panoptic.conversion.objects import merge_runs, paint_objects
from panoptic.data.faults import read_bytes
from panoptic.structures import Category, check_categories


@dataclass(frozen=True, eq=False)
class _Shape:
    """One entry of `shapes`.

    Args:
        label: of the user.
        group: shapes of one number are one object; None is an object of its own.
        runs: COCO's compressed run lengths.
    """

    label: str
    group: int | None
    runs: Mapping[str, Any]


class Labelme:
    """A folder of labelme's JSON files, by index, in the order of their names.

    Polygons, rectangles, circles and masks are painted in the order of the file, later over earlier; shapes of one
    `group_id` are one object, at the place of the first. Outlines are drawn as COCO does. Image ids are the paths of
    the JSON files within the folder, without suffix.

    Args:
        folder: searched for *.json, with the folders below it.
        categories: JSON of categories, whose names are the labels; None takes every label that occurs for a thing,
            numbered from 1 in the order of the alphabet.
        images: folder that image names are made relative to; None is `folder`. Where a photograph is, its JSON says.

    Raises:
        FileNotFoundError: a folder or the file of categories is missing.
        ValueError: no JSON, a file that is not labelme's, or unusable categories.
    """

    def __init__(
        self, folder: Path | str, categories: Path | str | None = None, images: Path | str | None = None
    ) -> None:
        self._folder = existing_folder(folder, "from.folder")
        self.image_folder = self._folder if images is None else existing_folder(images, "from.images")
        self._files = index_files(self._folder, [".json"])
        if not self._files:
            raise ValueError(f"no *.json in {self._folder}; expected labelme's files")
        self._keys = list(self._files)
        self.categories = (
            _labels_as_things(list(self._files.values()))
            if categories is None
            else read_categories(categories, "from.categories")
        )
        self._category_of = {category.name: category for category in self.categories}

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> AnnotatedImage:
        path = self._files[self._keys[index]]
        content = _read(path)
        photograph = path.parent / str(content["imagePath"]).replace("\\", "/")  # labelme on Windows
        size = _size(path, content, photograph)
        check_photograph(photograph, size)
        shapes, notes = _draw_shapes(path, content["shapes"], size)
        objects = self._join(path, shapes)
        return AnnotatedImage(
            image_id=self._keys[index],
            image_name=self._name_of(path, photograph),
            panoptic_map=paint_objects(objects, self.categories, size),
            objects=objects,
            notes=notes,
        )

    def _name_of(self, path: Path, photograph: Path) -> str:
        """The photograph's path within the image folder."""
        name = os.path.relpath(photograph, self.image_folder)
        if name.startswith(".."):
            raise ValueError(
                f"{path} is of {photograph}, which is not in {self.image_folder}; give from.images=<a folder above it>"
            )
        return Path(name).as_posix()

    def _join(self, path: Path, shapes: Sequence[_Shape]) -> list[ObjectMask]:
        """One object for each group, and for each shape without one."""
        labels: dict[tuple[str, int], str] = {}
        runs: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
        for number, shape in enumerate(shapes):
            key = ("shape", number) if shape.group is None else ("group", shape.group)
            if labels.setdefault(key, shape.label) != shape.label:
                raise ValueError(
                    f"expected one label in group_id {shape.group} of {path}, got {labels[key]!r} and {shape.label!r}; "
                    "shapes of one group are one object"
                )
            if shape.label not in self._category_of:
                raise ValueError(
                    f"unknown label {shape.label!r} in {path}; the file of categories has {sorted(self._category_of)}"
                )
            runs.setdefault(key, []).append(shape.runs)
        return [ObjectMask(self._category_of[label].id, merge_runs(runs[key])) for key, label in labels.items()]


def _labels_as_things(paths: Sequence[Path]) -> list[Category]:
    """Every label of the files as a thing."""
    labels, faults = set(), []
    for path in paths:
        try:
            labels |= {str(entry["label"]) for entry in _read(path)["shapes"]}
        except (OSError, ValueError) as error:
            faults.append(str(error))
    raise_all(faults, f"{len(faults)} of {len(paths)} files cannot be read")
    if not labels:
        raise ValueError(f"no shape in any of {len(paths)} files, the first is {paths[0]}")
    categories = [
        Category(n, label, is_thing=True, dataset_category_id=n + 1) for n, label in enumerate(sorted(labels))
    ]
    check_categories(categories)
    return categories


def _read(path: Path) -> dict[str, Any]:
    """The content of a file, with what every labelme file has."""
    data = read_bytes(path)
    try:
        content: Any = json.loads(data)
    except ValueError as error:
        raise ValueError(f"expected JSON in {path}, got: {error}") from error
    has_shapes = isinstance(content, dict) and isinstance(content.get("shapes"), list)
    if not has_shapes or not isinstance(content.get("imagePath"), str):
        raise ValueError(f"expected labelme's `shapes` and `imagePath` in {path}; move other files away")
    for number, entry in enumerate(content["shapes"]):
        if not isinstance(entry, dict) or not isinstance(entry.get("label"), str) or "points" not in entry:
            raise ValueError(f"expected `label` and `points` in shape {number} of {path}, got {str(entry)[:100]}")
    return dict(content)


def _size(path: Path, content: Mapping[str, Any], photograph: Path) -> tuple[int, int]:
    """(H, W) as the JSON says, or of the photograph where it does not."""
    size = (content.get("imageHeight"), content.get("imageWidth"))
    if size == (None, None):
        return photograph_header(photograph)[0]
    height, width = size
    if type(height) is not int or type(width) is not int or height < 1 or width < 1:
        raise ValueError(f"expected whole numbers imageHeight and imageWidth in {path}, got {size}")
    return height, width


def _draw_shapes(
    path: Path, entries: Sequence[Mapping[str, Any]], size: tuple[int, int]
) -> tuple[list[_Shape], tuple[str, ...]]:
    """The shapes that have pixels, in the order of the file, and notes."""
    shapes: list[_Shape] = []
    notes: list[str] = []
    for number, entry in enumerate(entries):
        where = f"shape {number} ({entry['label']!r}) of {path}"
        group = entry.get("group_id")
        if group is not None and type(group) is not int:
            raise ValueError(f"expected a whole number or null as group_id, got {group!r} in {where}")
        runs, oddities = draw_shape(entry, size, where)
        notes += oddities
        if runs is not None:
            shapes.append(_Shape(entry["label"], group, runs))
    return shapes, tuple(notes)
