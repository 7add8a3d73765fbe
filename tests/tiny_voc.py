"""A tiny data set in PASCAL VOC 2012's official layout, and SBD's files, written with Pillow and scipy alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.io
import scipy.sparse
from PIL import Image

SIZES = {"2007_000032": (12, 17), "2007_000033": (9, 20), "2008_000002": (15, 11), "2008_000003": (10, 13)}
"""{image id: (H, W)}: one of train, one of val, one of SBD alone, one of test."""

LISTS = {"train": ["2007_000032"], "val": ["2007_000033"], "test": ["2008_000003"]}
OF_SBD = "2008_000002"
CAR, CHAIR, PERSON = 7, 9, 15


def classes_of(image_id: str) -> np.ndarray:
    """(H, W) uint8: two cars, one on the other's left, a person, a chair not in train, outlines of void."""
    classes = np.zeros(SIZES[image_id], dtype=np.uint8)
    classes[1:6, 1:9] = 255
    classes[2:5, 2:8] = CAR
    classes[6:8, 3:7] = PERSON
    if image_id != "2007_000032":
        classes[8, :3] = CHAIR
    return classes


def objects_of(image_id: str, void: int = 255) -> np.ndarray:
    """(H, W) uint8: the cars are 1 and 3, the person 2, the chair 4; there may be another value for void."""
    classes = classes_of(image_id)
    objects = np.zeros_like(classes)
    objects[2:5, 2:5], objects[2:5, 5:8], objects[6:8, 3:7] = 1, 3, 2
    objects[classes == CHAIR] = 4
    objects[classes == 255] = void
    return objects


def write_tiny_voc(root: Path, *, void: int = 255) -> Path:
    """Write train, val and test of one image each, and the photograph of one that only SBD annotates."""
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for image_id, size in SIZES.items():
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / "JPEGImages" / f"{image_id}.jpg")
    for split, image_ids in {**LISTS, "trainval": [*LISTS["train"], *LISTS["val"]]}.items():
        write_list(root, split, image_ids)
    for image_id in (*LISTS["train"], *LISTS["val"]):
        write_palette_png(root / "SegmentationClass" / f"{image_id}.png", classes_of(image_id))
        write_palette_png(root / "SegmentationObject" / f"{image_id}.png", objects_of(image_id, void))
    return root


def write_list(root: Path, split: str, lines: Sequence[str]) -> Path:
    path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def write_palette_png(path: Path, values: np.ndarray) -> None:
    """As the challenge's PNGs: values are indices of a palette, whose colours are no matter here."""
    image = Image.fromarray(values)
    image.putpalette([channel for value in range(256) for channel in (255 - value, value, value // 2)])
    image.save(path)


def write_tiny_sbd(root: Path, image_ids: Sequence[str] = (OF_SBD, "2007_000033")) -> Path:
    """Write SBD's folder `dataset`: the first image is its train, the others its val; it has no void."""
    (root / "cls").mkdir(parents=True)
    (root / "inst").mkdir()
    for image_id in image_ids:
        classes, objects = sbd_classes_of(image_id), objects_of(image_id, void=0)
        edges = np.zeros((20, 1), dtype=object)
        for number in range(20):
            edges[number, 0] = scipy.sparse.csc_matrix(classes.shape)
        present = np.unique(classes[classes > 0])[:, None]
        fields = {"Boundaries": edges, "Segmentation": classes, "CategoriesPresent": present}
        scipy.io.savemat(root / "cls" / f"{image_id}.mat", {"GTcls": fields}, do_compression=True)
        categories = np.array([[CAR], [PERSON], [CAR], [CHAIR]], dtype=np.uint8)
        fields = {"Boundaries": edges, "Segmentation": objects, "Categories": categories}
        scipy.io.savemat(root / "inst" / f"{image_id}.mat", {"GTinst": fields}, do_compression=True)
    (root / "train.txt").write_text(f"{image_ids[0]}\n")
    (root / "val.txt").write_text("".join(f"{image_id}\n" for image_id in image_ids[1:]))
    return root


def write_sbd_classes(sbd: Path, image_id: str, classes: np.ndarray) -> None:
    """Write other classes of an image than SBD's, without the fields that nothing reads."""
    scipy.io.savemat(sbd / "cls" / f"{image_id}.mat", {"GTcls": {"Segmentation": classes}})


def sbd_classes_of(image_id: str) -> np.ndarray:
    """As `classes_of`, with background in place of void."""
    classes = classes_of(image_id)
    return np.where(classes == 255, 0, classes).astype(np.uint8)
