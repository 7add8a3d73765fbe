"""Images and ground truth that are found apart, by the names of their files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

import torch

from panoptic.data.faults import DataError, Kind, MissingFileError, read_both, report_each
from panoptic.data.images import WRITTEN_OTHERWISE, is_written_otherwise, read_image
from panoptic.structures import PanopticMap, Sample


def paired(images: Sequence[str], truths: Collection[str], what: str) -> list[str]:
    """The images, in their order; each must have its ground truth, and the reverse.

    Args:
        images: names without what tells image and ground truth apart.
        truths: names of the same form.
        what: the ground truth is called in errors, such as "PNGs in <folder>".

    Raises:
        FileNotFoundError: an image has no ground truth, or ground truth no image; while faults are recorded, images
            without ground truth are left out.
    """
    missing, stray = sorted(set(images) - set(truths)), sorted(set(truths) - set(images))
    if missing:
        counted = f"{len(missing)} of {len(images)} images have no {what}"
        is_there = is_written_otherwise(missing[0], stray)
        advice = WRITTEN_OTHERWISE if is_there else "add these, or remove the images"
        message = f"{counted}, the first is {missing[0]}; {advice}"
        error = MissingFileError(message, kind=Kind.MISSING_FILE)
        report_each(error, ((name, f"image {name} has no {what}") for name in missing))
    if stray:
        message = f"{len(stray)} {what} have no image, the first is {stray[0]}; add it or remove them"
        error = MissingFileError(message, kind=Kind.STRAY_FILE)
        report_each(error, ((name, f"one of the {what} has no image: {name}") for name in stray))
    without = set(missing)
    return [name for name in images if name not in without]


def read_sample(path: Path, image_id: str, file_name: str, read_truth: Callable[[], PanopticMap | None]) -> Sample:
    """A photograph with its ground truth.

    Args:
        path: of the photograph.
        image_id: of the sample.
        file_name: of the sample, as errors and predictions name it.
        read_truth: gives the map, None where there is no ground truth.

    Raises:
        ValueError: a file that cannot be read, or a map of another size than the photograph.
        FileNotFoundError: a file is missing.
    """
    pixels, panoptic_map = read_both(partial(read_image, path), read_truth)
    image = torch.from_numpy(pixels).permute(2, 0, 1)  # (3, H, W)
    size = (image.shape[1], image.shape[2])
    if panoptic_map is not None and panoptic_map.size != size:
        message = f"image {path} has size {size}, but its ground truth {panoptic_map.size} (height, width)"
        raise DataError(message, kind=Kind.SIZE, file=path)
    return Sample(image, image_id, file_name, panoptic_map, None, size)
