"""What a format gives and what a format takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from panoptic.data.panoptic_entries import ImageId
from panoptic.structures import Category, PanopticMap


@dataclass(frozen=True, eq=False)
class ObjectMask:
    """One object as it was drawn, whole even where others lie on it.

    Args:
        category_id: contiguous.
        runs: COCO's compressed run lengths, {"size": [H, W], "counts": bytes}.
        is_crowd: a group that was not separated.
    """

    category_id: int
    runs: Mapping[str, Any]
    is_crowd: bool = False


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """The annotation of one image.

    Args:
        image_id: unique in its source.
        image_name: of the photograph, relative to the source's `image_folder`.
        panoptic_map: at the size of the photograph.
        objects: the masks that the map was painted from; None where the format has only a map.
        notes: what was done about oddities that are no faults, each a sentence without the file's name.
    """

    image_id: ImageId
    image_name: str
    panoptic_map: PanopticMap
    objects: Sequence[ObjectMask] | None = None
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """A format to read, by index.

    Its constructor raises ValueError or OSError with every fault that can be seen without decoding a map.
    """

    @property
    def categories(self) -> Sequence[Category]:
        """Of the maps."""

    @property
    def image_folder(self) -> Path | None:
        """What image names are relative to; None where the photographs are not known."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> AnnotatedImage:
        """The annotation of one image; ValueError or OSError where it has a fault, with the file's name."""


class Target(Protocol):
    """A format to write; made of a new, empty folder and the categories of the maps."""

    def add(self, image: AnnotatedImage) -> None:
        """Write one image; ValueError where it does not fit the format."""

    def close(self) -> list[str]:
        """Write what belongs to all images together; returns what the user should know, each a sentence."""
