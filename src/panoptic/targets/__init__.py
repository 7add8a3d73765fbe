"""Panoptic map to what one head must predict."""
