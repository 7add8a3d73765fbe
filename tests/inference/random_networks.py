"""Networks of random weights whose probabilities differ everywhere, images for them, and the paper's mean of them."""

import torch
from batch_norms import norms
from contracts.composed import compose, network_of
from oracles.multi_scale import average_probabilities
from torch.nn import functional as F

SIZES = [(8, 12), (4, 16)]  # at every scale of the tests both need the same padding
PYRAMID = ["decoder=fpn_small", "backbone.output_stride=32"]
SCALES = (0.5, 0.75, 1.0, 1.5)


def random_network(*overrides, seed=0):
    """In eval mode, with probabilities that differ everywhere."""
    network = network_of(compose(*overrides), seed)
    for part in norms(network):
        torch.nn.init.uniform_(part.weight, 0.5, 2.0)
        torch.nn.init.normal_(part.bias)
    if "semantic" in network.heads:
        last = [part for part in network.heads["semantic"].modules() if isinstance(part, torch.nn.Conv2d)][-1]
        torch.nn.init.normal_(last.weight, std=0.5)
    return network.eval()


def images_of(network, sizes=SIZES, seed=0):
    """Padded as the network needs: values of which bilinear interpolation at halves and sixths gives whole ones."""
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    height, width = network.size_rule.pad(max(h for h, _ in sizes), max(w for _, w in sizes))
    images = torch.full((len(sizes), 3, height, width), 99, dtype=torch.uint8)
    for image, (h, w) in zip(images, sizes, strict=True):
        image[:, :h, :w] = 36 * torch.randint(0, 8, (3, h, w), generator=generator)
    return images


def classify_with(network):
    """One image to its logits, by the network alone."""

    def classify(image):
        height, width = image.shape[-2:]
        padded = network.size_rule.pad(height, width)
        batch = F.pad(image, (0, padded[1] - width, 0, padded[0] - height))[None]
        return network(batch, [(height, width)])[0]["semantic"].image(0, (height, width))

    return classify


def expected_probabilities(network, images, sizes, scales, flip):
    classify = classify_with(network)
    return [
        average_probabilities(classify, image[:, :h, :w], scales, flip)
        for image, (h, w) in zip(images, sizes, strict=True)
    ]


def pad_to_rule(network, images):
    height, width = images.shape[-2:]
    padded = network.size_rule.pad(height, width)
    return F.pad(images, (0, padded[1] - width, 0, padded[0] - height))
