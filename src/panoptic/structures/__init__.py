"""The vocabulary of the package: categories, segments, panoptic maps, samples, batches, features, keypoint graphs."""

from panoptic.structures.fusion_result import FusionResult
from panoptic.structures.instances import Detections, Instances
from panoptic.structures.keypoint_graphs import RECTANGLE, STAR, KeypointGraph
from panoptic.structures.panoptic_map import (
    IGNORE_INDEX,
    MAX_SEGMENT_ID,
    VOID,
    Category,
    PanopticMap,
    Segment,
    check_categories,
)
from panoptic.structures.samples import Batch, Features, ImageStatistics, Sample, SizeRule

__all__ = [
    "IGNORE_INDEX",
    "MAX_SEGMENT_ID",
    "RECTANGLE",
    "STAR",
    "VOID",
    "Batch",
    "Category",
    "Detections",
    "Features",
    "FusionResult",
    "ImageStatistics",
    "Instances",
    "KeypointGraph",
    "PanopticMap",
    "Sample",
    "Segment",
    "SizeRule",
    "check_categories",
]
