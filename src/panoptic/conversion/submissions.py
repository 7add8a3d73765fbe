"""Predictions in the forms that benchmarks take: Cityscapes, Mapillary Vistas, PASCAL VOC."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from panoptic.conversion.category_files import dataset_ids
from panoptic.conversion.cityscapes_ids import frame_of
from panoptic.conversion.contract import AnnotatedImage
from panoptic.conversion.mapillary_ids import check_labels
from panoptic.conversion.numbering import values_of_segments, write_grey_png
from panoptic.conversion.voc_pngs import write_voc_png
from panoptic.data.cityscapes import CATEGORIES
from panoptic.data.mapillary import evaluated_categories, read_labels
from panoptic.data.panoptic_writer import PanopticWriter
from panoptic.data.voc import CATEGORIES as VOC_CATEGORIES
from panoptic.data.voc import SEMANTIC_CATEGORIES
from panoptic.structures import Category, Segment

_BACKGROUND = 0
"""VOC's class of what is none of the others."""


class CityscapesPanopticTarget:
    """Cityscapes' panoptic submission: COCO's panoptic format with label ids as categories and frames as image ids.

    Writes `cityscapes_panoptic.json` and `cityscapes_panoptic/<frame>_gtFine_panoptic.png`.

    Args:
        folder: new.
        categories: of the maps, among the 19 evaluated labels.
        size: (H, W) of every image in pixels; None takes any.
    """

    def __init__(
        self, folder: Path, categories: Sequence[Category], *, size: Sequence[int] | None = (1024, 2048)
    ) -> None:
        check_labels(categories, CATEGORIES, "Cityscapes")
        self._writer = PanopticWriter(folder / "cityscapes_panoptic.json", categories)
        self._size = size

    def add(self, image: AnnotatedImage) -> None:
        """Write one image."""
        _check_size(image, self._size)
        _write_by_key(self._writer, image, frame_of(image.image_name), "_gtFine_panoptic.png")

    def close(self) -> list[str]:
        """Put the files in place."""
        self._writer.close()
        return []


class CityscapesInstancesTarget:
    """Cityscapes' instance submission: `<frame>.txt`, one line a thing, and `masks/<frame>_<number>.png`, 0 or 255.

    A line is the mask's path within the folder, the label id and the score, with blanks between them.

    Args:
        folder: new.
        categories: of the maps, among the 19 evaluated labels; only things are written.
        size: (H, W) of every image in pixels; None takes any.
        score: of things without one; None makes them an error.
    """

    def __init__(
        self,
        folder: Path,
        categories: Sequence[Category],
        *,
        size: Sequence[int] | None = (1024, 2048),
        score: float | None = None,
    ) -> None:
        check_labels(categories, CATEGORIES, "Cityscapes")
        self._folder = folder
        self._categories = categories
        self._labels = dataset_ids(categories)
        self._size = size
        self._score = score
        (folder / "masks").mkdir()

    def add(self, image: AnnotatedImage) -> None:
        """Write the text file and the masks of one image; a crowd is no instance and is left out."""
        _check_size(image, self._size)
        frame = frame_of(image.image_name)
        if len(frame.split()) != 1:
            raise ValueError(f"expected a name without blanks, which divide the lines of <frame>.txt, got {frame!r}")
        text = self._folder / f"{frame}.txt"
        if text.exists():
            raise ValueError(f"{text.name} would be written a second time; names of images must be unique")
        segment_ids = image.panoptic_map.segment_ids.numpy()
        lines: list[str] = []
        for segment in image.panoptic_map.segments:
            category = self._categories[segment.category_id]
            if not category.is_thing or segment.is_crowd:
                continue
            name = f"masks/{frame}_{len(lines)}.png"
            write_grey_png(self._folder / name, (segment_ids == segment.id).astype(np.uint8) * 255)
            lines.append(f"{name} {self._labels[category.id]} {self._score_of(segment, image):.6f}\n")
        text.write_text("".join(lines))

    def close(self) -> list[str]:
        """Nothing is left to write."""
        return []

    def _score_of(self, segment: Segment, image: AnnotatedImage) -> float:
        score = self._score if segment.score is None else segment.score
        if score is None:
            raise ValueError(
                f"segment {segment.id} of {image.image_name} has no score; predict with a fusion that gives scores, or "
                "give to.score=1 for all that lack one"
            )
        return float(score)


class MapillaryPanopticTarget:
    """Mapillary's panoptic submission: COCO's panoptic format with labels + 1 as categories and keys as image ids.

    Writes `panoptic.json` and `panoptic/<key>.png`.

    Args:
        folder: new.
        categories: of the maps, among the evaluated labels.
        config: Mapillary's `config.json` of the benchmark's version.
    """

    def __init__(self, folder: Path, categories: Sequence[Category], *, config: Path | str) -> None:
        path = Path(config).expanduser()
        check_labels(categories, evaluated_categories(path, read_labels(path)), path)
        self._writer = PanopticWriter(folder / "panoptic.json", categories)

    def add(self, image: AnnotatedImage) -> None:
        """Write one image."""
        _write_by_key(self._writer, image, Path(image.image_name).stem, ".png")

    def close(self) -> list[str]:
        """Put the files in place."""
        self._writer.close()
        return []


class VocTarget:
    """VOC's segmentation submission: `results/VOC2012/Segmentation/comp6_test_cls/<name>.png`.

    The PNGs have 8 bits and VOC's palette; values are classes 0..20. The benchmark has none for
    pixels without a prediction: they become background.

    Args:
        folder: new.
        categories: of the maps: VOC's 21, in the panoptic or in the semantic form.
        competition: "comp6", for training on any data but the test set; "comp5" for that of VOC alone.
        image_set: of the benchmark.
    """

    def __init__(
        self, folder: Path, categories: Sequence[Category], *, competition: str = "comp6", image_set: str = "test"
    ) -> None:
        if competition not in ("comp5", "comp6"):
            raise ValueError(f"expected to.competition=comp5 or comp6, got {competition!r}")
        is_semantic = not any(category.is_thing for category in categories)
        check_labels(categories, SEMANTIC_CATEGORIES if is_semantic else VOC_CATEGORIES, "PASCAL VOC")
        self._classes = dataset_ids(categories)
        self._folder = folder / "results" / "VOC2012" / "Segmentation" / f"{competition}_{image_set}_cls"
        self._folder.mkdir(parents=True)

    def add(self, image: AnnotatedImage) -> None:
        """Write the classes of one image."""
        classes = {segment.id: self._classes[segment.category_id] for segment in image.panoptic_map.segments}
        pixels = values_of_segments(image.panoptic_map, classes, void=_BACKGROUND, dtype=np.uint8)
        write_voc_png(self._folder / f"{Path(image.image_name).stem}.png", pixels)

    def close(self) -> list[str]:
        """Nothing is left to write."""
        return []


def _check_size(image: AnnotatedImage, size: Sequence[int] | None) -> None:
    """Raise ValueError unless the map has the benchmark's size (H, W)."""
    if size is not None and image.panoptic_map.size != tuple(size):
        raise ValueError(
            f"{image.image_name} has size {image.panoptic_map.size}, expected {tuple(size)} (height, width) as the "
            "benchmark's images; predict at the original size, or give to.size=null for other images"
        )


def _write_by_key(writer: PanopticWriter, image: AnnotatedImage, key: str, suffix: str) -> None:
    """Write an image under a benchmark's own name of it."""
    writer.add(image.panoptic_map, image_id=key, image_name=f"{key}{suffix}")
