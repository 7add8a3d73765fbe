"""From the official downloads of PASCAL VOC 2012 and SBD to a folder that trains: lists and annotations of trainaug.

VOCdevkit/VOC2012 is checked, and gets ImageSets/Segmentation/trainaug.txt and the folders SegmentationClassAug and
SegmentationObjectAug, with PNGs of those of its images that SBD alone annotates. trainaug is the challenge's train and
all of SBD without the challenge's val.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from panoptic.data.sbd import read_sbd_classes, read_sbd_objects
from panoptic.data.voc import VOC2012, read_list, voc_colour
from panoptic.data.voc_maps import VOC_VOID, class_segments

OFFICIAL = {
    **{"train": 1464, "val": 1449, "trainval": 2913, "test": 1456},
    **{"SBD's train": 8498, "SBD's val": 2857, "trainaug": 10582},
}
"""Images of each list; test is another download than the first three."""

PALETTE = [channel for value in range(256) for channel in voc_colour(value)]


def find_trainaug(voc: Path, sbd: Path) -> tuple[list[str], dict[str, int]]:
    """The images of trainaug, sorted, and how many are in each list it is made of."""
    lists = {
        name: set(read_list(voc / "ImageSets" / "Segmentation" / f"{name}.txt").lines) for name in ("train", "val")
    }
    both = {name: set(read_list(sbd / f"{name}.txt").lines) for name in ("train", "val")}
    trainaug = sorted((lists["train"] | both["train"] | both["val"]) - lists["val"])
    counts = {**{name: len(images) for name, images in lists.items()}, "trainaug": len(trainaug)}
    return trainaug, {**counts, **{f"SBD's {name}": len(images) for name, images in both.items()}}


def check_counts(counts: dict[str, int]) -> None:
    """Raise ValueError unless all are the official ones."""
    wrong = [f"{OFFICIAL[name]} in {name}, got {count}" for name, count in counts.items() if count != OFFICIAL[name]]
    if wrong:
        raise ValueError(f"expected images: {'; '.join(wrong)}. Fetch the files again, or say --subset if it is meant")


def write_annotations(voc: Path, sbd: Path, images: Sequence[str]) -> int:
    """Write the two folders of PNGs, which appear when they are complete.

    Returns:
        Pixels of objects that are void, as their class in `inst` is another than in `cls`.

    Raises:
        FileExistsError: a folder is there already.
    """
    disagreeing = 0
    with tempfile.TemporaryDirectory(prefix=".trainaug.", dir=voc) as temporary:
        classes_folder, objects_folder = (Path(temporary) / name for name in ("classes", "objects"))
        classes_folder.mkdir()
        objects_folder.mkdir()
        for image_id in track(images, "SBD's annotations", disable=not sys.stderr.isatty()):
            path = sbd / "cls" / f"{image_id}.mat"
            classes = read_sbd_classes(path)
            class_segments(classes, path)  # finds values that are no class
            of_objects, objects = read_sbd_objects(sbd / "inst" / f"{image_id}.mat")
            if objects.shape != classes.shape:
                raise ValueError(f"annotations of {image_id} in {sbd} have sizes {classes.shape} and {objects.shape}")
            disagrees = of_objects != classes
            disagreeing += int(disagrees.sum())
            write_png(classes_folder / f"{image_id}.png", classes)
            write_png(objects_folder / f"{image_id}.png", np.where(disagrees, VOC_VOID, objects).astype(np.uint8))
        classes_folder.rename(voc / "SegmentationClassAug")
        objects_folder.rename(voc / "SegmentationObjectAug")
    return disagreeing


def write_png(path: Path, values: NDArray[np.uint8]) -> None:
    """Write (H, W) uint8 as a PNG of indices into VOC's palette."""
    image = Image.fromarray(values)
    image.putpalette(PALETTE)  # values become indices
    image.save(path)


def prepare(voc: Path, sbd: Path | None, *, is_subset: bool) -> list[str]:
    """Check the challenge's folder, and add trainaug if SBD is given.

    Returns:
        Lines that say what is there.

    Raises:
        FileExistsError: trainaug is there already.
        FileNotFoundError: a list, an image or an annotation is missing.
        ValueError: other numbers of images than the official ones, or a damaged annotation.
    """
    has_test = (voc / "ImageSets" / "Segmentation" / "test.txt").is_file()
    splits = ("train", "val", "trainval", *(["test"] if has_test else []))
    counts = {split: len(VOC2012(voc, split)) for split in splits}
    if not is_subset:
        check_counts(counts)
    lines = [f"{count} images in {split}" for split, count in counts.items()]
    if sbd is None:
        return lines
    trainaug_list = voc / "ImageSets" / "Segmentation" / "trainaug.txt"
    for path in (trainaug_list, voc / "SegmentationClassAug", voc / "SegmentationObjectAug"):
        if path.exists():
            raise FileExistsError(f"{path} exists already; remove it to make it anew")
    trainaug, counts = find_trainaug(voc, sbd)
    if not is_subset:
        check_counts(counts)
    missing = [image_id for image_id in trainaug if not (voc / "JPEGImages" / f"{image_id}.jpg").is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} images of trainaug are not in {voc / 'JPEGImages'}, such as {missing[0]}"
        )
    own = {path.stem for path in (voc / "SegmentationClass").glob("*.png")}
    added = [image_id for image_id in trainaug if image_id not in own]
    disagreeing = write_annotations(voc, sbd, added)
    trainaug_list.write_text("".join(f"{image_id}\n" for image_id in trainaug))
    lines.append(f"{len(trainaug)} images in trainaug, {len(added)} of them annotated by SBD")
    lines.append(f"{disagreeing} pixels of objects are void, as inst and cls give them different classes")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and prepare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("voc", type=Path, help="VOCdevkit/VOC2012")
    parser.add_argument("--sbd", type=Path, help="SBD's folder benchmark_RELEASE/dataset, with cls and inst")
    parser.add_argument(
        "--subset", action="store_true", help="other numbers of images than the official ones are meant"
    )
    options = parser.parse_args(arguments)
    sbd = None if options.sbd is None else options.sbd.expanduser()
    try:
        lines = prepare(options.voc.expanduser(), sbd, is_subset=options.subset)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
