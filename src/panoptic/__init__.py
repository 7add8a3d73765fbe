"""Panoptic segmentation experiments: backbones, decoders, heads, fusions and metrics that can be crossed freely."""

__version__ = "0.1.0"
