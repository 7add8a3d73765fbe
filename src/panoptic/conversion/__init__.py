"""Annotations of other formats to panoptic maps and back: sources read, targets write, one image at a time."""
