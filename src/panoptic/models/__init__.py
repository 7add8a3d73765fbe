"""Networks, part by part."""
