"""COCO's panoptic format itself: read to be written in another one, and written from every other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from panoptic.conversion.contract import AnnotatedImage
from panoptic.conversion.files import check_photograph, existing_folder
from panoptic.conversion.objects import InstancesWriter, covered_things
from panoptic.data.panoptic_format import check_files, read_panoptic_json, read_panoptic_map
from panoptic.data.panoptic_writer import PanopticWriter, category_entries
from panoptic.structures import Category


class PanopticFiles:
    """A panoptic JSON with its PNGs by index, in the order of its annotations: a data set, or predictions.

    Args:
        panoptic_json: the JSON.
        png_folder: of its PNGs; None is the folder beside the JSON that has its name without ".json".
        images: folder of the photographs, whose sizes are compared; None leaves that out.

    Raises:
        FileNotFoundError: a file or folder is missing.
        ValueError: no annotations, files that do not belong together, or an image without a file name.
    """

    def __init__(
        self, panoptic_json: Path | str, png_folder: Path | str | None = None, images: Path | str | None = None
    ) -> None:
        path = Path(panoptic_json).expanduser()
        self._file = read_panoptic_json(path, None if png_folder is None else Path(png_folder).expanduser())
        check_files(self._file)
        self._annotations = list(self._file.annotations.values())
        self.categories = self._file.categories
        self.image_folder = None if images is None else existing_folder(images, "from.images")
        unnamed = [annotation.image_id for annotation in self._annotations if annotation.image_name is None]
        if unnamed or not self._annotations:
            what = f"no file name of image {unnamed[0]} in `images`" if unnamed else "no annotations"
            raise ValueError(f"{path} has {what}; files are named after the photographs")

    def __len__(self) -> int:
        return len(self._annotations)

    def __getitem__(self, index: int) -> AnnotatedImage:
        annotation = self._annotations[index]
        assert annotation.image_name is not None, "checked at first"
        panoptic_map = read_panoptic_map(self._file, annotation)
        if self.image_folder is not None:
            check_photograph(self.image_folder / annotation.image_name, panoptic_map.size)
        return AnnotatedImage(annotation.image_id, annotation.image_name, panoptic_map)


class PanopticTarget:
    """Writes `panoptic.json`, PNGs in `panoptic`, and `categories.json`; where objects overlap `instances.json` too.

    Args:
        folder: new.
        categories: of the maps.
    """

    def __init__(self, folder: Path, categories: Sequence[Category]) -> None:
        self._folder = folder
        self._categories = categories
        self._writer = PanopticWriter(folder / "panoptic.json", categories)
        self._instances = InstancesWriter(folder / "instances.json", categories)
        self._image_ids: set[int | str] = set()
        self._num_covered = self._num_hidden = 0

    def add(self, image: AnnotatedImage) -> None:
        """Write one image."""
        if image.image_id in self._image_ids:
            raise ValueError(f"image id {image.image_id!r} of {image.image_name} occurs twice; rename the file")
        self._image_ids.add(image.image_id)
        self._writer.add(image.panoptic_map, image_id=image.image_id, image_name=image.image_name)
        self._instances.add(image)
        covered, hidden = covered_things(image, self._categories)
        self._num_covered += covered
        self._num_hidden += hidden

    def close(self) -> list[str]:
        """Put the files in place."""
        self._writer.close()
        self._instances.close(keep=self._num_covered > 0)
        text = json.dumps(category_entries(self._categories), indent=1, ensure_ascii=False)
        (self._folder / "categories.json").write_text(text + "\n", encoding="utf-8")
        if not self._num_covered:
            return []
        hidden = f", {self._num_hidden} of them with every pixel" if self._num_hidden else ""
        return [f"{self._num_covered} objects lie under others{hidden}: instances.json has them whole"]
