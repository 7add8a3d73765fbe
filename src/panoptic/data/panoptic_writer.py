"""Writing a data set or predictions in COCO's panoptic format: a JSON and its folder of PNGs, all or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from panoptic.data.extents import measure_segments
from panoptic.data.json_lists import JsonList, write_json_lists
from panoptic.data.panoptic_entries import ImageId
from panoptic.data.panoptic_format import write_panoptic_png
from panoptic.structures import Category, PanopticMap, check_categories


class PanopticWriter:
    """Writes maps one by one; the JSON and its folder appear when the `with` block ends without an error.

    Args:
        path: the JSON to write; its PNGs go to the folder beside it that has its name without ".json".
        categories: of the maps; their dataset_category_ids are written.

    Raises:
        FileExistsError: the JSON or its folder exists already; nothing is overwritten.
    """

    def __init__(self, path: Path, categories: Sequence[Category]) -> None:
        check_categories(categories)
        self.path = Path(path).expanduser()
        self.png_folder = self.path.with_suffix("")
        if self.png_folder == self.path:
            raise ValueError(f"expected a path that ends in .json, got {path}")
        for existing in (self.path, self.png_folder):
            if existing.exists():
                raise FileExistsError(f"{existing} exists already; remove it or choose another path")
        self._categories = list(categories)
        self._dataset_ids = [c.id if c.dataset_category_id is None else c.dataset_category_id for c in categories]
        self._temporary_folder = self.png_folder.with_name(f".{self.png_folder.name}.{os.getpid()}.tmp")
        self._temporary_folder.mkdir(parents=True)
        self._lists = {
            name: JsonList(self.path.with_name(f"{self._temporary_folder.name}.{name}"))
            for name in ("images", "annotations", "categories")
        }
        self._png_names: set[str] = set()

    def add(self, panoptic_map: PanopticMap, *, image_id: ImageId, image_name: str) -> None:
        """Write the PNG of one image, named after the image; a segment without pixels is left out.

        Args:
            panoptic_map: at the size of the image.
            image_id: unique in the file.
            image_name: file name of the photograph, with its folders if it has any.
        """
        png_name = Path(image_name).with_suffix(".png").as_posix().replace("/", "_")
        if png_name in self._png_names:
            raise ValueError(f"image name {image_name} would write {png_name} a second time; names must be unique")
        self._png_names.add(png_name)
        write_panoptic_png(self._temporary_folder / png_name, panoptic_map.segment_ids)
        height, width = panoptic_map.size
        self._lists["images"].append({"id": image_id, "file_name": image_name, "width": width, "height": height})
        self._lists["annotations"].append(
            {"image_id": image_id, "file_name": png_name, "segments_info": self._segments_info(panoptic_map)}
        )

    def _segments_info(self, panoptic_map: PanopticMap) -> list[dict[str, Any]]:
        """The JSON's table; `bbox` is x, y, width, height in pixels."""
        ids = [segment.id for segment in panoptic_map.segments]
        extents = measure_segments(panoptic_map.segment_ids.cpu().numpy(), ids)
        infos = []
        for segment, area, (x1, y1, x2, y2) in zip(
            panoptic_map.segments, extents.areas.tolist(), extents.boxes.tolist(), strict=True
        ):
            if area == 0:
                continue
            info = {
                "id": segment.id,
                "category_id": self._dataset_ids[segment.category_id],
                "iscrowd": int(segment.is_crowd),
                "area": area,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
            }
            infos.append(info if segment.score is None else {**info, "score": segment.score})
        return infos

    def close(self) -> None:
        """Put the folder and the JSON in place."""
        for entry in category_entries(self._categories):
            self._lists["categories"].append(entry)
        self._temporary_folder.rename(self.png_folder)
        write_json_lists(self.path, self._lists)
        self._remove_lists()

    def discard(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self._temporary_folder)
        self._remove_lists()

    def _remove_lists(self) -> None:
        for entries in self._lists.values():
            entries.remove()

    def __enter__(self) -> PanopticWriter:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error_type is None:
            self.close()
        else:
            self.discard()


def category_entries(categories: Sequence[Category]) -> list[dict[str, Any]]:
    """The list `categories` of a panoptic JSON."""
    entries = []
    for category in categories:
        dataset_id = category.id if category.dataset_category_id is None else category.dataset_category_id
        entry: dict[str, Any] = {"id": dataset_id, "name": category.name, "isthing": int(category.is_thing)}
        if category.group is not None:
            entry["supercategory"] = category.group
        if category.colour is not None:
            entry["color"] = list(category.colour)
        entries.append(entry)
    return entries
