"""Mapillary Vistas in its official layouts.

v1.2 is `config.json` and `<split>/{images,labels,instances,panoptic}`; v2.0 is `config_v2.0.json`, `<split>/images` and
`<split>/v2.0/{labels,instances,panoptic,polygons}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from panoptic.data.faults import DataError, Kind, MissingFileError
from panoptic.data.images import read_grey16_png
from panoptic.data.pairing import paired, read_sample
from panoptic.data.panoptic_entries import text_of
from panoptic.data.panoptic_format import check_files, read_panoptic_json, read_panoptic_map
from panoptic.data.value_maps import look_up
from panoptic.structures import (
    IGNORE_INDEX,
    VOID,
    Category,
    ImageStatistics,
    PanopticMap,
    Sample,
    Segment,
    check_categories,
)

_NUMBERS = 256
"""Instance numbers per label: a value of `instances/*.png` is label * 256 + number."""


class MapillaryVistas:
    """A split by index, in the order of its files' names. That no file is missing is checked on opening.

    The ground truth is the panoptic JSON with its PNGs where that is there, else `instances/*.png`.

    Args:
        root: the folder with the configuration; "~" is the home folder.
        split: "training" or "validation".
        image_statistics: mean and standard deviation of the images.
        config: name of the configuration, the list of labels; "config_v2.0.json" of v2.0.
        annotations: folder of a split with `instances` and `panoptic`, "v2.0" of v2.0; None means the split's own.
        panoptic_json: name of the JSON in `panoptic`; "panoptic_2020.json" of v2.0.

    Raises:
        FileNotFoundError: the configuration, a folder, an image or a PNG is missing.
        ValueError: the split has no images, or the files do not belong together.
    """

    def __init__(
        self,
        root: Path | str,
        split: str,
        image_statistics: ImageStatistics | None = None,
        *,
        config: str = "config.json",
        annotations: str | None = None,
        panoptic_json: str = "panoptic_2018.json",
    ) -> None:
        root = Path(root).expanduser()
        labels = read_labels(root / config)
        self.categories = evaluated_categories(root / config, labels)
        self.image_statistics = image_statistics or ImageStatistics()
        self._images = _images(root / split / "images")
        folder = root / split if annotations is None else root / split / annotations
        files = (folder / "panoptic" / panoptic_json, folder / "instances")
        self._truth = _open_truth(*files, root / config, self.categories, len(labels))
        self._keys = self._truth.check(list(self._images))

    @property
    def image_ids(self) -> list[str]:
        """Mapillary's keys, the names of the files without suffix, in the order of the indices."""
        return list(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Sample:
        key = self._keys[index]
        path = self._images[key]
        return read_sample(path, key, path.name, partial(self._truth.read, key))


class _Truth(Protocol):
    """Where panoptic maps come from."""

    def check(self, keys: Sequence[str]) -> list[str]:
        """The keys; raises unless there is ground truth for exactly these, recorded faults leave some out."""

    def read(self, key: str) -> PanopticMap:
        """The map of one image."""


class _PanopticTruth:
    """A JSON in COCO's panoptic format; its category ids are labels + 1.

    Args:
        path: the JSON; its PNGs are beside it.
        config: the configuration, for errors.
        categories: of the configuration, which the JSON's own must agree with.
    """

    def __init__(self, path: Path, config: Path, categories: Sequence[Category]) -> None:
        file = read_panoptic_json(path, path.parent)
        ours, theirs = ({_identity(category) for category in side} for side in (categories, file.categories))
        if theirs != ours:
            message = (
                f"expected categories (id, name, thing) of {path} as in {config.name}, got {sorted(theirs - ours)} "
                f"instead of {sorted(ours - theirs)}; use files of one version"
            )
            raise DataError(message, kind=Kind.CATEGORIES_DIFFER, file=path)
        self._file = replace(file, categories=list(categories))  # numbered alike, by the same ids
        self._by_key = {Path(entry.png_name).stem: entry for entry in self._file.annotations.values()}

    def check(self, keys: Sequence[str]) -> list[str]:
        check_files(self._file)
        return paired(keys, list(self._by_key), f"entries of {self._file.path}")

    def read(self, key: str) -> PanopticMap:
        return read_panoptic_map(self._file, self._by_key[key])


class _InstancesTruth:
    """`instances/*.png`: things by label and number, each label of stuff one segment; ids are value + 256.

    Args:
        folder: of the PNGs.
        config: the configuration, for errors.
        categories: of the configuration.
        num_labels: those that are no category are void.
    """

    def __init__(self, folder: Path, config: Path, categories: Sequence[Category], num_labels: int) -> None:
        self._folder = folder
        self._config = config
        self._num_labels = num_labels
        # label + 1, as in the panoptic files, so that number 0 of label 0 is not void
        values = np.arange(_NUMBERS * num_labels)
        self._category_ids = np.full(num_labels, IGNORE_INDEX)
        for category in categories:
            self._category_ids[_label(category)] = category.id
        is_thing = np.isin(np.arange(num_labels), [_label(category) for category in categories if category.is_thing])
        numbers = np.where(np.repeat(is_thing, _NUMBERS), values % _NUMBERS, 0)
        ids = (values // _NUMBERS + 1) * _NUMBERS + numbers
        self._segment_ids = np.where(np.repeat(self._category_ids, _NUMBERS) == IGNORE_INDEX, VOID, ids)

    def check(self, keys: Sequence[str]) -> list[str]:
        return paired(keys, [path.stem for path in self._folder.glob("*.png")], f"PNGs in {self._folder}")

    def read(self, key: str) -> PanopticMap:
        path = self._folder / f"{key}.png"
        values = read_grey16_png(path)
        if values.max() >= len(self._segment_ids):
            label = int(values.max()) // _NUMBERS
            message = f"expected labels 0..{self._num_labels - 1} of {self._config.name} in {path}, got {label}"
            raise DataError(message, kind=Kind.UNKNOWN_CATEGORY, file=path)
        segment_ids, counts = look_up(values, self._segment_ids)
        areas = np.zeros(_NUMBERS * (self._num_labels + 1), dtype=np.int64)  # of each segment id
        present = counts.nonzero()[0]
        np.add.at(areas, self._segment_ids[present], counts[present])
        areas[VOID] = 0
        segments = [
            Segment(int(i), int(self._category_ids[i // _NUMBERS - 1]), area=int(areas[i])) for i in areas.nonzero()[0]
        ]
        return PanopticMap(torch.from_numpy(segment_ids), segments)


def _open_truth(
    panoptic_json: Path, instances: Path, config: Path, categories: Sequence[Category], num_labels: int
) -> _Truth:
    """The panoptic files of a split, or its instances."""
    if panoptic_json.is_file():
        return _PanopticTruth(panoptic_json, config, categories)
    if instances.is_dir():
        return _InstancesTruth(instances, config, categories, num_labels)
    message = (
        f"expected ground truth, {panoptic_json} or {instances}, found neither; "
        "images without it are for panoptic predict"
    )
    raise MissingFileError(message, kind=Kind.MISSING_FILE, file=panoptic_json)


def read_labels(path: Path) -> list[Mapping[str, Any]]:
    """The list `labels` of a configuration; the place in it is the value in `labels/*.png`."""
    if not path.is_file():
        message = f"no file {path}; expected the folder of Mapillary Vistas, which has it"
        raise MissingFileError(message, kind=Kind.MISSING_FILE, file=path)
    try:
        labels = json.loads(path.read_bytes())["labels"]
    except (ValueError, KeyError, TypeError) as error:
        message = f"expected JSON with a list `labels` in {path}, got: {error!r}"
        raise DataError(message, kind=Kind.FORMAT, file=path) from error
    if not isinstance(labels, list):
        message = f"expected JSON with a list `labels` in {path}, got {type(labels).__name__}"
        raise DataError(message, kind=Kind.FORMAT, file=path)
    return labels


def evaluated_categories(path: Path, labels: Sequence[Mapping[str, Any]]) -> list[Category]:
    """The labels that are evaluated; the others, in v1.2 `void--unlabeled` alone, are void."""
    evaluated: list[Category] = []
    try:
        for label, entry in enumerate(labels):
            if entry["evaluate"]:
                red, green, blue = entry["color"]
                evaluated.append(
                    Category(
                        id=len(evaluated),
                        name=text_of(entry, "readable"),
                        is_thing=bool(entry["instances"]),
                        group=entry["name"].rpartition("--")[0] or None,
                        colour=(red, green, blue),
                        dataset_category_id=label + 1,  # as in the panoptic JSON
                    )
                )
        check_categories(evaluated)
    except KeyError as error:
        raise DataError(f"a label of {path} lacks the key {error}", kind=Kind.FORMAT, file=path) from error
    except (TypeError, AttributeError, ValueError) as error:
        message = f"the labels of {path} are not as in Mapillary Vistas: {error}"
        raise DataError(message, kind=Kind.FORMAT, file=path) from error
    return evaluated


def _images(folder: Path) -> dict[str, Path]:
    """{key: photograph}, in the order of the keys."""
    if not folder.is_dir():
        message = f"no folder {folder}; expected the photographs of a split of Mapillary Vistas"
        raise MissingFileError(message, kind=Kind.MISSING_FILE, file=folder)
    images = {path.stem: path for path in sorted(folder.glob("*.jpg"))}
    if not images:
        message = f"no .jpg in {folder}; expected the photographs of a split of Mapillary Vistas"
        raise MissingFileError(message, kind=Kind.MISSING_FILE, file=folder)
    return images


def _label(category: Category) -> int:
    assert category.dataset_category_id is not None, "set by evaluated_categories"
    return category.dataset_category_id - 1


def _identity(category: Category) -> tuple[int | None, str, bool]:
    """What two files must agree in; spelling, such as "Ground_Animal", is no difference."""
    name = "".join(letter for letter in category.name.lower() if letter.isalnum())
    return category.dataset_category_id, name, category.is_thing
