"""Pure functions behind the metrics."""

from panoptic.metrics.functional.category_sums import CategorySums, mean_over_categories, sum_image
from panoptic.metrics.functional.overlaps import Overlaps, count_overlaps
from panoptic.metrics.functional.panoptic_quality import match_segments, panoptic_quality
from panoptic.metrics.functional.parsing_covering import cover_segments, parsing_covering
from panoptic.metrics.functional.semantic_iou import as_panoptic_map, count_pixels, semantic_iou

__all__ = [
    "CategorySums",
    "Overlaps",
    "as_panoptic_map",
    "count_overlaps",
    "count_pixels",
    "cover_segments",
    "match_segments",
    "mean_over_categories",
    "panoptic_quality",
    "parsing_covering",
    "semantic_iou",
    "sum_image",
]
