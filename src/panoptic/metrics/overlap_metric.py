"""The state that all metrics of panoptic maps share."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor
from torchmetrics import Metric

from panoptic.metrics.functional import CategorySums, sum_image
from panoptic.structures import Category, PanopticMap, check_categories


class OverlapMetric(Metric, ABC):
    """Sums per category over images, from one joint histogram per image.

    Every subclass has the same states and the same `update`, so that a `MetricCollection` of them forms one compute
    group, which counts each image once. The states are in checkpoints: `reset` before a new epoch begins.

    Args:
        categories: C of them; the same list for predictions and targets.

    Raises:
        ValueError: category ids are not 0..C-1 in order, or a name occurs twice.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    counts: Tensor
    sums: Tensor

    def __init__(self, categories: Sequence[Category]) -> None:
        super().__init__()
        check_categories(categories)
        self.categories = tuple(categories)
        zeros = CategorySums.zeros(len(self.categories))
        self.add_state("counts", default=zeros.counts, dist_reduce_fx="sum", persistent=True)
        self.add_state("sums", default=zeros.sums, dist_reduce_fx="sum", persistent=True)

    def update(
        self, prediction: PanopticMap | Sequence[PanopticMap], target: PanopticMap | Sequence[PanopticMap]
    ) -> None:
        """Add one image or several; either all of them are added or, on an error, none.

        Args:
            prediction: one map or a sequence of maps.
            target: as many maps, each of its prediction's size and on its device.

        Raises:
            ValueError: unequal numbers of maps, sizes or devices that differ, an unknown category id.
            TypeError: something else than panoptic maps.
        """
        predictions, targets = _as_sequence("prediction", prediction), _as_sequence("target", target)
        if len(predictions) != len(targets):
            raise ValueError(f"expected as many predictions as targets, got {len(predictions)} and {len(targets)}")
        total = self.total
        for one_prediction, one_target in zip(predictions, targets, strict=True):
            image = sum_image(one_prediction, one_target, num_categories=len(self.categories))
            total = total + image.to(self.counts.device)
        self.counts, self.sums = total.counts, total.sums

    @property
    def total(self) -> CategorySums:
        """The sums over the images of this process; within `compute`, of all processes."""
        return CategorySums(self.counts, self.sums)

    @contextmanager
    def synced_total(self) -> Iterator[CategorySums]:
        """The sums over all processes; every process must enter."""
        should_sync = self.sync_on_compute and not self._is_synced
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=should_sync, should_unsync=should_sync):
            yield self.total

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> OverlapMetric:
        """Follow a module to another device, but keep float64 and int64 when it is converted to half precision."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device=fn(tensor.new_empty(0)).device)

        return super()._apply(move, exclude_state)  # type: ignore[return-value]


def _as_sequence(role: str, maps: PanopticMap | Sequence[PanopticMap]) -> Sequence[PanopticMap]:
    """One map as a sequence of one."""
    sequence = [maps] if isinstance(maps, PanopticMap) else maps
    if isinstance(sequence, Tensor) or not isinstance(sequence, Sequence):
        raise TypeError(f"expected {role} as a PanopticMap or a sequence of them, got {type(maps).__name__}")
    for one in sequence:
        if not isinstance(one, PanopticMap):
            raise TypeError(f"expected {role} as a PanopticMap or a sequence of them, got a {type(one).__name__} in it")
    return sequence
