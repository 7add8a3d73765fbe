"""Images and ground truth that are found apart, by the names of their files."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from panoptic.data.faults import Kind, MissingFileError, report_each


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
        message = f"{len(missing)} of {len(images)} images have no {what}, the first is {missing[0]}"
        error = MissingFileError(message, kind=Kind.MISSING_FILE)
        report_each(error, ((name, f"image {name} has no {what}") for name in missing))
    if stray:
        message = f"{len(stray)} {what} have no image, the first is {stray[0]}; add it or remove them"
        error = MissingFileError(message, kind=Kind.STRAY_FILE)
        report_each(error, ((name, f"one of the {what} has no image: {name}") for name in stray))
    without = set(missing)
    return [name for name in images if name not in without]
