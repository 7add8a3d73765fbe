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


def average_shortcut(image, stride, apart):
    """ResNet-D's means of 2x2 cells `apart`, each from one that the stride leaves; none beyond the border."""
    _, height, width = image.shape
    result = image.new_zeros(image.shape[0], -(-height // stride), -(-width // stride))
    for y in range(result.shape[1]):
        for x in range(result.shape[2]):
            rows = [row for row in (y * stride, y * stride + apart) if row < height]
            columns = [column for column in (x * stride, x * stride + apart) if column < width]
            cells = [image[:, row, column] for row in rows for column in columns]
            result[:, y, x] = sum(cells) / len(cells)
    return result


def residual_unit(weights, name, image, stride, rate, unit_rate):
    """A unit of two 3x3 convolutions, or of 1x1, 3x3, 1x1, of every cell or of those that the stride leaves.

    Args:
        weights: of a network, by name.
        name: of the unit in it.
        image: (D, h, w).
        stride: of the block.
        rate: of the block.
        unit_rate: of the multi-grid.
    """
    features, shortcut, number = image[:, ::stride, ::stride], image, 1
    while f"{name}.conv{number}.weight" in weights:
        kernel = weights[f"{name}.conv{number}.weight"]
        features = atrous_convolution(features, kernel, rate * unit_rate if kernel.shape[-1] == 3 else 1)
        features = normalise(weights, f"{name}.bn{number}", features)
        number += 1
        if f"{name}.conv{number}.weight" in weights:
            features = features.clamp(min=0)
    if f"{name}.downsample.1.weight" in weights:
        means = average_shortcut(image, stride, apart=1 if stride > 1 else rate // 2)
        shortcut = atrous_convolution(means, weights[f"{name}.downsample.1.weight"])
        shortcut = normalise(weights, f"{name}.downsample.2", shortcut)
    return (features + shortcut).clamp(min=0)
