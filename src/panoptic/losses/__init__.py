"""Prediction and target to scalar."""
