"""Any data set in COCO's panoptic format: images, a panoptic JSON with its PNGs, optionally an instances JSON."""

from __future__ import annotations

from pathlib import Path

import torch

from panoptic.data.images import read_image
from panoptic.data.instances_format import InstancesFile, read_instances, read_instances_json
from panoptic.data.panoptic_format import (
    ImageId,
    PanopticAnnotation,
    PanopticFile,
    check_files,
    read_panoptic_json,
    read_panoptic_map,
)
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
        self._file = read_panoptic_json(
            Path(panoptic_json).expanduser(), None if png_folder is None else Path(png_folder).expanduser()
        )
        self._image_folder = Path(image_folder).expanduser()
        self._annotations = list(self._file.annotations.values())
        self._image_names = _image_names(self._file)
        self.image_statistics = image_statistics or ImageStatistics()
        check_files(self._file)
        self._check_images()
        self._instances = None if instances_json is None else self._read_instances(Path(instances_json).expanduser())

    @property
    def categories(self) -> list[Category]:
        """Ids 0..C-1."""
        return self._file.categories

    @property
    def image_ids(self) -> list[ImageId]:
        """In the order of the indices."""
        return [annotation.image_id for annotation in self._annotations]

    def __len__(self) -> int:
        return len(self._annotations)

    def __getitem__(self, index: int) -> Sample:
        annotation, path = self._annotations[index], self._image_folder / self._image_names[index]
        image = torch.from_numpy(read_image(path)).permute(2, 0, 1)  # (3, H, W)
        size = (image.shape[1], image.shape[2])
        panoptic_map = read_panoptic_map(self._file, annotation)
        if panoptic_map.size != size:
            png = self._file.png_folder / annotation.png_name
            raise ValueError(f"image {path} has size {size}, but its PNG {png} {panoptic_map.size} (height, width)")
        instances = None if self._instances is None else read_instances(self._instances, annotation.image_id, size)
        return Sample(image, annotation.image_id, self._image_names[index], panoptic_map, instances, size)

    def _check_images(self) -> None:
        """Raise FileNotFoundError unless every image is there."""
        paths = [self._image_folder / name for name in self._image_names]
        present = {entry for folder in {path.parent for path in paths} if folder.is_dir() for entry in folder.iterdir()}
        missing = [path for path in paths if path not in present]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(paths)} images of {self._file.path} are missing, the first is {missing[0]}; "
                f"check the option image_folder"
            )

    def _read_instances(self, path: Path) -> InstancesFile:
        """The instances JSON, which must list every image."""
        instances = read_instances_json(path, self.categories)
        unlisted = [image_id for image_id in self.image_ids if image_id not in instances.entries]
        if unlisted:
            raise ValueError(f"{path} does not list {len(unlisted)} images of {self._file.path}, such as {unlisted[0]}")
        return instances


def _image_names(file: PanopticFile) -> list[str]:
    """File name of every annotation's image, in order; every image must have an annotation and the reverse."""
    if not file.annotations:
        raise ValueError(f"{file.path} has no annotations; expected at least one image")
    if file.images_without_annotation:
        count, first = len(file.images_without_annotation), file.images_without_annotation[0]
        raise ValueError(
            f"{count} images of {file.path} have no annotation, such as {first}; remove them from `images`"
        )
    return [_image_name(file, annotation) for annotation in file.annotations.values()]


def _image_name(file: PanopticFile, annotation: PanopticAnnotation) -> str:
    if annotation.image_name is None:
        raise ValueError(f"{file.path} has no file name for image {annotation.image_id} in `images`")
    return annotation.image_name
