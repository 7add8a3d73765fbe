"""Average precision of instance masks as a metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from panoptic.metrics.functional.mask_average_precision import (
    EncodedInstances,
    encode_masks,
    encode_things,
    mask_average_precision,
)
from panoptic.metrics.rows import category_rows
from panoptic.structures import Category, Instances, PanopticMap, check_categories


class MaskAveragePrecision:
    """COCO's mask AP: the mean over IoU thresholds 0.5, 0.55 .. 0.95, at most 100 detections per category and image.

    Images are kept as run lengths. Detections of equal scores are judged in the order of the images. With several
    processes, whose images must follow each other by rank, `compute` and `per_category` are collective: all
    of them must call. Not a `torchmetrics.Metric`, whose states are tensors and whose lists must be equally long in all
    processes.

    Cityscapes' own AP has the same ten thresholds. Its script also ignores detections of which a larger share than the
    threshold lies on void (here void counts as wrong; groups of things are ignored alike), ignores truths below 100
    pixels, limits no numbers, and integrates precision over the recalls that occur instead of reading it at 101.

    Args:
        categories: C of them; the same list for predictions and targets.

    Raises:
        ValueError: category ids are not 0..C-1 in order, or a name occurs twice.
    """

    def __init__(self, categories: Sequence[Category]) -> None:
        check_categories(categories)
        self.categories = tuple(categories)
        self._predictions: list[EncodedInstances] = []
        self._targets: list[EncodedInstances] = []
        self._table: NDArray[np.float64] | None = None

    @property
    def num_images(self) -> int:
        """Of this process."""
        return len(self._targets)

    def update(self, prediction: Instances, target: Instances | PanopticMap) -> None:
        """Add one image.

        Args:
            prediction: with scores; on any device.
            target: of the same size; of a panoptic map the things are taken. `is_crowd` marks groups.

        Raises:
            ValueError: sizes that differ, or an instance whose category is no thing.
        """
        of_target = encode_things(target, self.categories) if isinstance(target, PanopticMap) else encode_masks(target)
        of_prediction = encode_masks(prediction)
        if of_prediction.size != of_target.size:
            raise ValueError(f"expected masks of the target's size {of_target.size}, got {of_prediction.size}")
        for role, instances in (("predicted", of_prediction), ("target", of_target)):
            things = [category.id for category in self.categories if category.is_thing]
            others = sorted(set(instances.category_ids) - set(things))
            if others:
                raise ValueError(f"expected {role} instances of things, {things}, got category ids {others}")
        self._predictions.append(of_prediction)
        self._targets.append(of_target)
        self._table = None

    def compute(self) -> dict[str, float]:
        """`mask_ap`, and `mask_ap50` at IoU 0.5: means over categories with a target, in [0, 1]; nan without any."""
        table = self._computed()
        return {"mask_ap": _mean(table), "mask_ap50": _mean(table[:1])}

    def per_category(self) -> list[dict[str, Any]]:
        """One row per category: `mask_ap` and `mask_ap50`, nan without a target."""
        table = torch.from_numpy(self._computed())  # (10, C)
        return category_rows(self.categories, {"mask_ap": table.mean(dim=0), "mask_ap50": table[0]})

    def reset(self) -> None:
        """Forget all images."""
        self._predictions, self._targets, self._table = [], [], None

    def _computed(self) -> NDArray[np.float64]:
        """AP (10, C) over the images of all processes, kept until there are others."""
        if self._table is None:
            predictions, targets = _over_processes(self._predictions), _over_processes(self._targets)
            self._table = mask_average_precision(predictions, targets, num_categories=len(self.categories))
        return self._table


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of the numbers among the values; nan where there is none."""
    numbers = values[~np.isnan(values)]
    return float(numbers.mean()) if numbers.size else float("nan")


def _over_processes(images: list[EncodedInstances]) -> list[EncodedInstances]:
    """Those of all processes in the order of their ranks; the images themselves in a single one."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return images
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, images)
    return [image for share in gathered for image in share]
