"""Outputs of one image to a panoptic map."""
