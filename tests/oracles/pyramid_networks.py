"""The networks of OANet (Sec. 3.1) and the Fusion Scheme (Sec. III) on one image, step by step, from their weights.

Weights are {name: tensor} of the module under test; the arithmetic is written from the papers' text.
"""

import torch
import torch.nn.functional as F


def half_pixel_upsample(image, size):
    """(D, h, w) to (D, H, W), pixel by pixel: centres of cells lie at (i + 0.5) * scale, values beyond them stay."""
    _, h, w = image.shape
    result = image.new_zeros(image.shape[0], *size)
    for y in range(size[0]):
        for x in range(size[1]):
            row = min(max((y + 0.5) * h / size[0] - 0.5, 0), h - 1)
            column = min(max((x + 0.5) * w / size[1] - 0.5, 0), w - 1)
            top, left = int(row), int(column)
            bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
            down, along = row - top, column - left
            above = (1 - along) * image[:, top, left] + along * image[:, top, right]
            below = (1 - along) * image[:, bottom, left] + along * image[:, bottom, right]
            result[:, y, x] = (1 - down) * above + down * below
    return result


def convolve(image, kernel, rate=1):
    """(D, h, w) with (K, D, k, k) at an atrous rate; zeros around the image."""
    size, (_, height, width) = kernel.shape[-1], image.shape
    result = image.new_zeros(kernel.shape[0], height, width)
    reach = size // 2
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            moved = torch.zeros_like(image)
            for y in range(height):
                for x in range(width):
                    if 0 <= y + rate * dy < height and 0 <= x + rate * dx < width:
                        moved[:, y, x] = image[:, y + rate * dy, x + rate * dx]
            result += torch.einsum("kd,dyx->kyx", kernel[:, :, dy + reach, dx + reach], moved)
    return result


def conv_norm_relu(weights, name, image, num_groups, rate=1):
    """Convolution, normalisation of each group of channels over the image, ReLU."""
    features = convolve(image, weights[f"{name}.0.weight"], rate)
    groups = [
        (group - group.mean()) / (group.var(unbiased=False) + 1e-5).sqrt() for group in features.chunk(num_groups)
    ]
    scaled = torch.cat(groups) * weights[f"{name}.1.weight"][:, None, None] + weights[f"{name}.1.bias"][:, None, None]
    return scaled.clamp(min=0)


def two_convolutions(weights, name, image, num_groups):
    first = conv_norm_relu(weights, f"{name}.0", image, num_groups)
    return conv_norm_relu(weights, f"{name}.1", first, num_groups)


def classes(weights, image):
    return convolve(image, weights["predict.weight"]) + weights["predict.bias"][:, None, None]


def side_by_side(maps):
    """All at the size of the first."""
    size = tuple(maps[0].shape[-2:])
    return torch.cat([half_pixel_upsample(image, size) for image in maps])


def two_conv_head(weights, levels, num_groups):
    """Two 3x3 convolutions at each of four scales, upsampled, concatenated, 1x1."""
    maps = [two_convolutions(weights, f"levels.{i}", image, num_groups) for i, image in enumerate(levels)]
    return classes(weights, side_by_side(maps))


def stuff_branch(weights, levels, num_groups):
    """As `two_conv_head`, with one 3x3 before the 1x1."""
    maps = [two_convolutions(weights, f"levels.{i}", image, num_groups) for i, image in enumerate(levels)]
    return classes(weights, conv_norm_relu(weights, "join", side_by_side(maps), num_groups))


def asp_rp_head(weights, levels, num_groups, rates):
    """Two 3x3 at 1/4 and 1/8; 1x1 and three atrous 3x3 at 1/16 and 1/32; refinement pyramid; concatenated; 1x1."""
    fine, finer = (two_convolutions(weights, f"levels.{i}", levels[i], num_groups) for i in (1, 0))
    coarse = []
    for number in (2, 3):
        name = f"levels.{number}"
        parts = [conv_norm_relu(weights, f"{name}.branches.0", levels[number], num_groups)]
        for branch, rate in enumerate(rates, start=1):
            parts.append(conv_norm_relu(weights, f"{name}.branches.{branch}", levels[number], num_groups, rate))
        coarse.append(conv_norm_relu(weights, f"{name}.project", torch.cat(parts), num_groups))
    at_32 = coarse[1]
    at_16 = coarse[0] + half_pixel_upsample(at_32, tuple(coarse[0].shape[-2:]))
    at_8 = fine + half_pixel_upsample(at_16, tuple(fine.shape[-2:]))
    at_4 = finer + half_pixel_upsample(at_8, tuple(finer.shape[-2:]))
    return classes(weights, side_by_side([at_4, at_8, at_16, at_32]))


def feature_pyramid(weights, levels):
    """Lin et al., 2017: 1x1 on every level, plus the coarser sum at twice the size (nearest neighbour), 3x3 on each."""

    def plain(name, image):
        return convolve(image, weights[f"{name}.0.weight"]) + weights[f"{name}.0.bias"][:, None, None]

    merged = None
    pyramid = []
    for number in (3, 2, 1, 0):
        lateral = plain(f"pyramid.inner_blocks.{number}", levels[number])
        if merged is not None:
            _, height, width = lateral.shape
            for y in range(height):
                for x in range(width):
                    lateral[:, y, x] += merged[:, y // 2, x // 2]
        merged = lateral
        pyramid.insert(0, plain(f"pyramid.layer_blocks.{number}", merged))
    return [*pyramid, pyramid[-1][:, ::2, ::2]]


def rpn_features(weights, pyramid):
    """One 3x3 convolution with ReLU on every level."""
    kernel, bias = weights["rpn_features.0.weight"], weights["rpn_features.0.bias"]
    return [F.relu(convolve(image, kernel) + bias[:, None, None]) for image in pyramid]
