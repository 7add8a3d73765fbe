"""What fusions return."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from panoptic.structures.instances import Instances
from panoptic.structures.panoptic_map import PanopticMap


@dataclass(frozen=True, eq=False)
class FusionResult:
    """What a fusion makes of one image's outputs.

    Args:
        panoptic_map: the prediction.
        semantic_map: (H, W) int64 category ids; the network's own, or refined by the fusion; `IGNORE_INDEX` where
            neither says anything.
        instances: detections or refined masks that may overlap; None for fusions that make none.
    """

    panoptic_map: PanopticMap
    semantic_map: Tensor
    instances: Instances | None = field(default=None)
