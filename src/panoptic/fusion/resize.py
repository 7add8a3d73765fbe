"""Bring a fused image to another size."""

from __future__ import annotations

import torch
from torch import Tensor

from panoptic.structures import FusionResult, PanopticMap, Segment


def resize_nearest(result: FusionResult, size: tuple[int, int] | None) -> FusionResult:
    """The panoptic and semantic maps at `size` = (H, W), nearest neighbour; segments that vanish leave the table.

    With None the result itself.

    Raises:
        ValueError: a result with instances; masks are resized before fusion, not after.
    """
    if result.instances is not None:
        raise ValueError("expected a result without instances; resize masks and logits before fusion instead")
    if size is None or result.panoptic_map.size == size:
        return result
    segment_ids = _nearest(result.panoptic_map.segment_ids, size)
    ids, areas = torch.unique(segment_ids, return_counts=True)
    area_of = dict(zip(ids.tolist(), areas.tolist(), strict=True))
    segments = [
        Segment(s.id, s.category_id, is_crowd=s.is_crowd, score=s.score, area=area_of[s.id])
        for s in result.panoptic_map.segments
        if s.id in area_of
    ]
    return FusionResult(PanopticMap(segment_ids, segments), _nearest(result.semantic_map, size))


def _nearest(ids: Tensor, size: tuple[int, int]) -> Tensor:
    """(h, w) to (H, W): the cell that holds the centre of each pixel. Index arithmetic keeps large ids exact."""
    rows, columns = (
        ((torch.arange(new, device=ids.device) + 0.5) * old / new).long()
        for new, old in zip(size, ids.shape, strict=True)
    )
    return ids[rows][:, columns]
