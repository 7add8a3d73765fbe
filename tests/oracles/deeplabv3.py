"""DeepLabv3 (Sec. 3) on one image, step by step, from weights; the arithmetic is written from the paper's text.

Batch norm is that of evaluation. Images are (D, h, w).
"""

import torch


def atrous_convolution(image, kernel, rate=1):
    """Equation 1: y[i] = sum over k of x[i + rate * k] w[k], zeros around the image; kernel (K, D, k, k)."""
    reach, (_, height, width) = kernel.shape[-1] // 2, image.shape
    result = image.new_zeros(kernel.shape[0], height, width)
    for y in range(height):
        for x in range(width):
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    row, column = y + rate * dy, x + rate * dx
                    if 0 <= row < height and 0 <= column < width:
                        result[:, y, x] += kernel[:, :, dy + reach, dx + reach] @ image[:, row, column]
    return result


def normalise(weights, name, image):
    """Running mean and variance out, gamma and beta in."""
    mean, variance, gamma, beta = (
        weights[f"{name}.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (image - mean) / (variance + 1e-5).sqrt() * gamma + beta


def convolution_norm_relu(weights, name, image, rate=1):
    """One layer of ASPP."""
    return normalise(weights, f"{name}.1", atrous_convolution(image, weights[f"{name}.0.weight"], rate)).clamp(min=0)


def aspp(weights, image, rates):
    """Fig. 5: 1x1, one 3x3 per rate, image-level features; concatenation and 1x1. Parts without weights are left out.

    Args:
        weights: of the decoder.
        image: (D, h, w) features of the backbone.
        rates: in cells.
    """
    branches = []
    if "pointwise.0.weight" in weights:
        branches.append(convolution_norm_relu(weights, "pointwise", image))
    for number, rate in enumerate(rates):
        branches.append(convolution_norm_relu(weights, f"atrous.{number}", image, rate))
    if "pooling.1.0.weight" in weights:
        mean = sum(image[:, y, x] for y in range(image.shape[1]) for x in range(image.shape[2])) / image[0].numel()
        pooled = convolution_norm_relu(weights, "pooling.1", mean[:, None, None])
        branches.append(pooled.expand(-1, *image.shape[1:]))  # what bilinear upsampling of one cell gives
    return convolution_norm_relu(weights, "project", torch.cat(branches))


def average_shortcut(image, stride):
    """2x2 means from each cell on, as timm's ResNet-D has them: at stride 1 cells beyond the border count as zeros."""
    _, height, width = image.shape
    result = image.new_zeros(image.shape[0], -(-height // stride), -(-width // stride))
    for y in range(result.shape[1]):
        for x in range(result.shape[2]):
            window = image[:, y * stride : y * stride + 2, x * stride : x * stride + 2].flatten(1)
            result[:, y, x] = window.sum(1) / (4 if stride == 1 else window.shape[1])
    return result


def residual_unit(weights, name, image, stride, rate):
    """A unit of two 3x3 convolutions, or of 1x1, 3x3, 1x1, whose first 3x3 strides: every cell, then every second."""
    features, shortcut, number = image, image, 1
    has_strided = False
    while f"{name}.conv{number}.weight" in weights:
        kernel = weights[f"{name}.conv{number}.weight"]
        is_wide = kernel.shape[-1] == 3
        features = atrous_convolution(features, kernel, rate if is_wide else 1)
        if is_wide and not has_strided:
            features, has_strided = features[:, ::stride, ::stride], True
        features = normalise(weights, f"{name}.bn{number}", features)
        number += 1
        if f"{name}.conv{number}.weight" in weights:
            features = features.clamp(min=0)
    if f"{name}.downsample.1.weight" in weights:
        shortcut = atrous_convolution(average_shortcut(image, stride), weights[f"{name}.downsample.1.weight"])
        shortcut = normalise(weights, f"{name}.downsample.2", shortcut)
    return (features + shortcut).clamp(min=0)
