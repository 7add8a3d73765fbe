"""Metrics that equal the official ones."""

from panoptic.metrics.mask_average_precision import MaskAveragePrecision
from panoptic.metrics.panoptic_quality import PanopticQuality
from panoptic.metrics.parsing_covering import ParsingCovering
from panoptic.metrics.semantic_iou import SemanticIoU

__all__ = ["MaskAveragePrecision", "PanopticQuality", "ParsingCovering", "SemanticIoU"]
