"""Pictures of panoptic maps: arrays in, arrays out; writing files is left to callers."""

from panoptic.drawing.overlay import overlay
from panoptic.drawing.panels import comparison

__all__ = ["comparison", "overlay"]
