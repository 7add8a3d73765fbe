"""Image to features at several strides."""
