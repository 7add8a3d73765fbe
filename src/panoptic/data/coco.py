"""Any data set in COCO's panoptic format: images, a panoptic JSON with its PNGs, optionally an instances JSON."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from panoptic.data.faults import DataError, Kind, read_both, report, report_each, reported
from panoptic.data.images import check_images_present, read_image
from panoptic.data.instances_format import InstancesFile, read_instances, read_instances_json
from panoptic.data.panoptic_entries import ImageId, PanopticAnnotation
from panoptic.data.panoptic_format import PanopticFile, check_files, read_panoptic_json, read_panoptic_map
from panoptic.structures import Category, ImageStatistics, Sample


class CocoPanoptic:
    """A data set by index, in the order of the JSON's annotations. That no file is missing is checked on opening.

    Args:
        panoptic_json: the panoptic JSON; "~" is the home folder, here and below.
        image_folder: images[].file_name is relative to it.
        png_folder: of the panoptic PNGs; None means the folder beside the JSON that has its name without ".json".
        instances_json: overlapping masks of the same images.
        image_statistics: mean and standard deviation of the images.

    Raises:
        FileNotFoundError: a JSON, a folder or an image is missing.
        ValueError: no annotations, or the files do not belong together.
    """

    def __init__(
        self,
        panoptic_json: Path | str,
        image_folder: Path | str,
        png_folder: Path | str | None = None,
        instances_json: Path | str | None = None,
        image_statistics: ImageStatistics | None = None,
    ) -> None:
        self.panoptic_file = read_panoptic_json(
            Path(panoptic_json).expanduser(), None if png_folder is None else Path(png_folder).expanduser()
        )
        self._image_folder = Path(image_folder).expanduser()
        self._entries = _with_image_names(self.panoptic_file)
        self.image_statistics = image_statistics or ImageStatistics()
        check_files(self.panoptic_file)
        check_images_present([self._image_folder / name for _, name in self._entries], self.panoptic_file.path)
        self._instances: InstancesFile | None = None
        if instances_json is not None:
            with reported():
                self._instances = self._read_instances(Path(instances_json).expanduser())

    @property
    def categories(self) -> list[Category]:
        """Ids 0..C-1."""
        return self.panoptic_file.categories

    @property
    def image_ids(self) -> list[ImageId]:
        """In the order of the indices."""
        return [annotation.image_id for annotation, _ in self._entries]

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Sample:
        (annotation, name), file = self._entries[index], self.panoptic_file
        path = self._image_folder / name
        pixels, panoptic_map = read_both(
            partial(read_image, path), partial(read_panoptic_map, file, annotation, exact_extents=True)
        )
        image = torch.from_numpy(pixels).permute(2, 0, 1)  # (3, H, W)
        size = (image.shape[1], image.shape[2])
        if panoptic_map.size != size:
            png = file.png_folder / annotation.png_name
            message = f"image {path} has size {size}, but its PNG {png} {panoptic_map.size} (height, width)"
            raise DataError(message, kind=Kind.SIZE, file=path)
        instances = None if self._instances is None else read_instances(self._instances, annotation.image_id, size)
        return Sample(image, annotation.image_id, name, panoptic_map, instances, size)

    def category_ids(self, index: int) -> set[int]:
        """Categories of an image's ground truth, by the JSON alone."""
        annotation, _ = self._entries[index]
        return {segment.category_id for segment in annotation.segments}

    def _read_instances(self, path: Path) -> InstancesFile:
        """The instances JSON, which must list every image."""
        instances = read_instances_json(path, self.categories)
        unlisted = [image_id for image_id in self.image_ids if image_id not in instances.entries]
        if unlisted:
            other = self.panoptic_file.path
            message = f"{path} does not list {len(unlisted)} images of {other}, such as {unlisted[0]}"
            error = DataError(message, kind=Kind.UNKNOWN_IMAGE)
            report_each(error, ((path, f"{path} does not list image {i} of {other}") for i in unlisted))
            instances.entries.update({image_id: [] for image_id in unlisted})  # faults are recorded
        return instances


def _with_image_names(file: PanopticFile) -> list[tuple[PanopticAnnotation, str]]:
    """Every annotation with its image's file name, in order; every image must have an annotation and the reverse."""
    if not file.annotations:
        message = f"{file.path} has no annotations; expected at least one image"
        raise DataError(message, kind=Kind.FORMAT, file=file.path)
    without = file.images_without_annotation
    if without:
        message = (
            f"{len(without)} images of {file.path} have no annotation, such as {without[0]}; remove them from `images`"
        )
        error = DataError(message, kind=Kind.UNKNOWN_IMAGE)
        report_each(error, ((file.path, f"image {i} of {file.path} has no annotation") for i in without))
    entries = []
    for annotation in file.annotations.values():
        if annotation.image_name is None:
            message = f"{file.path} has no file name for image {annotation.image_id} in `images`"
            report(DataError(message, kind=Kind.UNKNOWN_IMAGE, file=file.path))
        else:
            entries.append((annotation, annotation.image_name))
    return entries
