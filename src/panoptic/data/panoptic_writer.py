"""Writing a data set or predictions in COCO's panoptic format: a JSON and its folder of PNGs, all or nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from panoptic.data.extents import measure_segments
from panoptic.data.panoptic_format import ImageId, write_atomically, write_panoptic_png
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
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
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
        self._images.append({"id": image_id, "file_name": image_name, "width": width, "height": height})
        self._annotations.append(
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
        content = {"images": self._images, "annotations": self._annotations, "categories": self._category_entries()}
        self._temporary_folder.rename(self.png_folder)
        write_atomically(self.path, json.dumps(content).encode())

    def _category_entries(self) -> list[dict[str, Any]]:
        """The JSON's list of categories."""
        entries = []
        for category, dataset_id in zip(self._categories, self._dataset_ids, strict=True):
            entry: dict[str, Any] = {"id": dataset_id, "name": category.name, "isthing": int(category.is_thing)}
            if category.group is not None:
                entry["supercategory"] = category.group
            if category.colour is not None:
                entry["color"] = list(category.colour)
            entries.append(entry)
        return entries

    def discard(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self._temporary_folder)

    def __enter__(self) -> PanopticWriter:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error_type is None:
            self.close()
        else:
            self.discard()
