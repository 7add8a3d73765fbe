"""Images that contain hard categories, seen more often in training."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

from pytorch_lightning.utilities import rank_zero_only
from rich.progress import track

from panoptic.data.loading import SampleDataset
from panoptic.structures import Category, Sample
from panoptic.targets.segment_table import ground_truth


@runtime_checkable
class KnowsCategories(Protocol):
    """A data set that can tell what an image contains without reading the photograph."""

    def category_ids(self, index: int) -> set[int]:
        """Categories of an image's ground truth."""


class RepeatedImages:
    """A data set of which images that contain certain categories come again, after all others (DeepLabv3, Sec. 4.3).

    An image that comes again has an index of its own, and so an augmentation of its own in every epoch. Which images
    these are is read from the ground truth when the data set is opened, with a progress bar.

    Args:
        dataset: any data set with ground truth.
        categories: names; an image is repeated if it contains a pixel of any of them.
        times: how often it comes again: 1 has it twice in all (the paper: "we duplicate the images that contain hard
            classes"), 0 repeats nothing.

    Raises:
        ValueError: names that the data set does not have, no image to repeat, or a negative number of times.
    """

    def __init__(self, dataset: SampleDataset, categories: Sequence[str], times: int = 1) -> None:
        names = [category.name for category in dataset.categories]
        unknown = sorted(set(categories) - set(names))
        if unknown or not categories:
            raise ValueError(
                f"expected names of categories to repeat, got {unknown or 'none'}; the data set has {names}"
            )
        if times < 0:
            raise ValueError(f"expected times of 0 or more, got {times}")
        self.dataset = dataset
        self.categories: list[Category] = list(dataset.categories)
        self.image_statistics = dataset.image_statistics
        self.times = times
        wanted = {names.index(name) for name in categories}
        self.repeated = images_with(dataset, wanted) if times else []
        if times and not self.repeated:
            raise ValueError(
                f"none of the {len(dataset)} images contains any of {list(categories)}; train on the data set itself"
            )

    def __len__(self) -> int:
        return len(self.dataset) + self.times * len(self.repeated)

    def __getitem__(self, index: int) -> Sample:
        """The sample of an index; from the data set's own length on they are those that come again."""
        again = index - len(self.dataset)
        return self.dataset[index if again < 0 else self.repeated[again % len(self.repeated)]]


def images_with(dataset: SampleDataset, category_ids: set[int]) -> list[int]:
    """Indices, in their order, of images that contain any of the categories. Shows a progress bar."""

    def contains(index: int) -> bool:
        return not category_ids.isdisjoint(_categories_of(dataset, index))

    indices = range(len(dataset))
    with ThreadPoolExecutor() as readers:  # decoding leaves Python's lock
        answers = track(
            readers.map(contains, indices),
            "reading which images to repeat",
            total=len(dataset),
            transient=True,
            disable=rank_zero_only.rank != 0,  # type: ignore[attr-defined]
        )
        return [index for index, answer in zip(indices, answers, strict=True) if answer]


def _categories_of(dataset: SampleDataset, index: int) -> set[int]:
    """Categories of an image's ground truth, by the shortest way that the data set has."""
    if isinstance(dataset, KnowsCategories):
        return dataset.category_ids(index)
    return {segment.category_id for segment in ground_truth(dataset[index]).segments}
