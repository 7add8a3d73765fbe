"""From a run folder to predictions."""
