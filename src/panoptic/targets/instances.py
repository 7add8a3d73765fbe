"""What an instance head must predict: boxes, categories and masks, and where crowds are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from panoptic.structures import VOID, Category, Instances, Sample
from panoptic.targets.segment_table import ground_truth, run_end, segment_table

SOURCES = ("own", "panoptic")
"""Where instances come from: the data set's own masks, which may overlap, or the things of the panoptic map."""


@dataclass(frozen=True, eq=False)
class InstanceTargets:
    """Instances of one image, their masks cut out at their boxes.

    Args:
        boxes: (N, 4), x1 y1 x2 y2 in pixels, whole numbers, x2 and y2 exclusive: the tight boxes of the masks.
        category_ids: (N,) int64, contiguous ids of things.
        pixels: (P,) bool, the masks within their boxes, row by row, one after another.
        crowd_boxes: (M, 4) of crowd regions, which are neither instances nor background.
        seed: of what a loss samples, of the sample.
    """

    boxes: Tensor
    category_ids: Tensor
    pixels: Tensor
    crowd_boxes: Tensor
    seed: int

    @property
    def masks(self) -> list[Tensor]:
        """N masks (h, w) bool, each of the size of its box; views of `pixels`."""
        sizes = (self.boxes[:, 2:] - self.boxes[:, :2]).long().tolist()  # device sync: once per call
        patches = torch.split(self.pixels, [width * height for width, height in sizes]) if sizes else ()
        return [patch.view(height, width) for patch, (width, height) in zip(patches, sizes, strict=True)]

    def full_masks(self, size: tuple[int, int], rows: Tensor | None = None) -> Tensor:
        """Masks of a whole image.

        Args:
            size: (H, W) in pixels, at least that of the image.
            rows: (R,) int64, which instances, each any number of times; None means all N in their order.

        Returns:
            (R, H, W) bool, on the device of the targets.
        """
        masks, corners = self.masks, self.boxes.long().tolist()
        chosen = range(len(masks)) if rows is None else rows.tolist()
        full = torch.zeros(len(chosen), *size, dtype=torch.bool, device=self.pixels.device)
        for image, row in zip(full, chosen, strict=True):
            x1, y1, x2, y2 = corners[row]
            image[y1:y2, x1:x2] = masks[row]
        return full


def encode_instances(sample: Sample, *, categories: Sequence[Category], instances_from: str) -> InstanceTargets:
    """Instances and crowds of a sample (OANet, Sec. 4.2 and Table 3).

    Masks decide: boxes are measured around them, an instance without pixels is none, and so no box has zero width.

    Args:
        sample: an image with its ground truth.
        categories: of the data set, category ids are indices into them.
        instances_from: "own" takes the data set's masks, which may overlap; "panoptic" the things of the panoptic map.

    Raises:
        ValueError: ground truth of that kind is missing, an instance is of stuff or of an unknown category, or an
            unknown `instances_from`.
    """
    if instances_from not in SOURCES:
        raise ValueError(f"expected instances_from to be one of {', '.join(SOURCES)}, got {instances_from!r}")
    if instances_from == "panoptic":
        return _from_panoptic_map(sample, categories)
    if sample.instances is None:
        raise ValueError(
            f"expected instance masks of its own with {sample.file_name!r}, got none; give the data set its instances, "
            "or choose instances_from=panoptic"
        )
    return _from_own_masks(sample, sample.instances, categories)


def _from_own_masks(sample: Sample, instances: Instances, categories: Sequence[Category]) -> InstanceTargets:
    things = {category.id for category in categories if category.is_thing}
    others = sorted(set(instances.category_ids.tolist()) - things)
    if others:
        raise ValueError(
            f"expected instances of things in {sample.file_name!r}, whose category ids are {sorted(things)}, got "
            f"{others}; pass the categories of the data set that the instances come from"
        )
    masks = instances.masks.cpu().numpy()
    boxes = np.array([_mask_box(mask) for mask in masks], dtype=np.int64).reshape(-1, 4)
    rows = np.flatnonzero(boxes[:, 2] > boxes[:, 0])
    return _targets(
        sample,
        boxes[rows],
        [masks[row, y1:y2, x1:x2] for row, (x1, y1, x2, y2) in zip(rows, boxes[rows], strict=True)],
        instances.category_ids.cpu().numpy()[rows],
        instances.is_crowd.cpu().numpy()[rows],
    )


def _from_panoptic_map(sample: Sample, categories: Sequence[Category]) -> InstanceTargets:
    panoptic_map = ground_truth(sample)
    table = segment_table(panoptic_map, categories)
    segment_ids = panoptic_map.segment_ids.cpu().contiguous().numpy()
    boxes = _segment_boxes(segment_ids, table.ids)
    is_thing = np.array([categories[category_id].is_thing for category_id in table.category_ids], dtype=bool)
    rows = np.flatnonzero(is_thing & (boxes[:, 2] > boxes[:, 0]))
    return _targets(
        sample,
        boxes[rows],
        [segment_ids[y1:y2, x1:x2] == table.ids[row] for row, (x1, y1, x2, y2) in zip(rows, boxes[rows], strict=True)],
        table.category_ids[rows],
        table.is_crowd[rows],
    )


def _targets(
    sample: Sample,
    boxes: NDArray[np.int64],
    masks: Sequence[NDArray[np.bool_]],
    category_ids: NDArray[np.int64],
    is_crowd: NDArray[np.bool_],
) -> InstanceTargets:
    """Targets of boxes (N, 4) none of which is empty, masks of the size of their boxes, categories and crowds (N,)."""
    device = sample.image.device
    patches = [mask.ravel() for mask, crowd in zip(masks, is_crowd, strict=True) if not crowd]
    pixels = np.concatenate([np.zeros(0, dtype=np.bool_), *patches])
    return InstanceTargets(
        boxes=torch.from_numpy(boxes[~is_crowd].astype(np.float32)).to(device),
        category_ids=torch.from_numpy(category_ids[~is_crowd]).to(device),
        pixels=torch.from_numpy(pixels).to(device),
        crowd_boxes=torch.from_numpy(boxes[is_crowd].astype(np.float32)).to(device),
        seed=sample.seed,
    )


def _mask_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The box of a mask (H, W), x1 y1 x2 y2 in pixels, x2 and y2 exclusive; zeros without pixels."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return 0, 0, 0, 0
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@njit(cache=True, nogil=True)
def _segment_boxes(segment_ids: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Boxes (S, 4) int64 of the ids in `table` (S,), which is sorted, as `_mask_box` gives them."""
    height, width = segment_ids.shape
    boxes = np.zeros((table.size, 4), dtype=np.int64)
    for y in range(height):
        start = 0
        while start < width:
            end = run_end(segment_ids[y], start)
            if segment_ids[y, start] != VOID:
                box = boxes[np.searchsorted(table, segment_ids[y, start])]
                if box[3] == 0:
                    box[:3] = np.array([start, y, end])
                box[0] = min(box[0], start)
                box[2] = max(box[2], end)
                box[3] = y + 1  # rows come in ascending order
            start = end
    return boxes
