"""What is scored beside panoptic quality where a fusion returns instances: mask AP, and the IoU of its semantic map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from panoptic.metrics import MaskAveragePrecision, SemanticIoU
from panoptic.metrics.functional import as_panoptic_map
from panoptic.structures import Category, FusionResult, Instances, PanopticMap
from panoptic.training.processes import sum_over_processes


class InstanceScores(nn.Module):
    """Mask AP of a fusion's instances and the IoU of its semantic map, before or after refinement as it returns them.

    With several processes, `compute` and `joined` are collective: all of them must call, also one without an image.

    Args:
        categories: of the data set.
    """

    def __init__(self, categories: Sequence[Category]) -> None:
        super().__init__()
        self.categories = tuple(categories)
        self.mask_ap = MaskAveragePrecision(self.categories)
        self.semantic_map_iou = SemanticIoU(self.categories)
        self.semantic_map_iou.persistent(False)

    def reset(self) -> None:
        """Forget all images."""
        self.mask_ap.reset()
        self.semantic_map_iou.reset()

    def update(self, result: FusionResult, truth: PanopticMap, instances: Instances | None) -> None:
        """Add one image, if the fusion returned instances.

        Args:
            result: of the fusion.
            truth: of the same size.
            instances: the data set's own, which may overlap; None takes those of `truth`.
        """
        if result.instances is None:
            return
        self.mask_ap.update(result.instances, truth if instances is None else instances)
        semantic_map = as_panoptic_map(result.semantic_map, num_categories=len(self.categories))
        self.semantic_map_iou.update(semantic_map, truth.to(result.semantic_map.device))

    def compute(self) -> dict[str, float]:
        """`mask_ap`, `mask_ap50` and `semantic_map_miou` as fractions; nothing if no image had instances to score."""
        if not self._has_images():
            return {}
        return {**self.mask_ap.compute(), "semantic_map_miou": float(self.semantic_map_iou.compute()["miou"])}

    def joined(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Rows of the same categories with `mask_ap`, `mask_ap50` and `semantic_map_iou`, if there is what to score."""
        if not self._has_images():
            return [dict(row) for row in rows]
        of_masks, of_pixels = self.mask_ap.per_category(), self.semantic_map_iou.per_category()
        return [
            {**row, **{name: ap[name] for name in ("mask_ap", "mask_ap50")}, "semantic_map_iou": iou["iou"]}
            for row, ap, iou in zip(rows, of_masks, of_pixels, strict=True)
        ]

    def _has_images(self) -> bool:
        """Whether any process has an image with instances."""
        count = torch.tensor(float(self.mask_ap.num_images), device=self.semantic_map_iou.device)
        return bool(sum_over_processes(count) > 0)
