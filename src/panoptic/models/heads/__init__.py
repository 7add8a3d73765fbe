"""Features to outputs, outputs to losses."""
