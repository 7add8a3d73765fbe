"""Fusion without instances: each category is one segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from panoptic.fusion.paste import paste_categories, predicted_categories
from panoptic.fusion.resize import resize_nearest
from panoptic.structures import Category, FusionResult, PanopticMap, check_categories


def fuse_semantic(
    outputs: Mapping[str, Tensor],
    categories: Sequence[Category],
    *,
    size: tuple[int, int] | None = None,
    min_area: int = 0,
) -> FusionResult:
    """Each category that is present becomes one segment, things too: what semantic segmentation alone gives.

    Args:
        outputs: of one image, {"semantic": (C, H, W) logits}; others are not read.
        categories: of the data set, C of them.
        size: (H, W) of the result in pixels, to which it is brought by nearest neighbour; None keeps the outputs'.
        min_area: stuff of fewer pixels than this becomes void; 0 keeps all.

    Returns:
        The map and the network's own semantic map; no instances and no scores.
    """
    check_categories(categories)
    semantic_map = predicted_categories(outputs, categories)
    segment_ids, segments = paste_categories(semantic_map, categories, min_area=min_area)
    return resize_nearest(FusionResult(PanopticMap(segment_ids, segments), semantic_map), size)
