"""Multi-scale and flipped inference (DeepLabv3, Sec. 4.2), one image at a time, written from the text.

"We compute as the final result the average probabilities from each scale and flipped images": every scale of the image
is classified, and so is the mirror image of every scale; what each gives is brought back to the image and averaged.
"""

import torch
from oracles.pyramid_networks import half_pixel_upsample as resize


def mirror(image):
    """(D, h, w), its columns in reverse."""
    return torch.stack([image[:, :, x] for x in reversed(range(image.shape[2]))], dim=2)


def class_probabilities(logits):
    """(C, h, w): exponentials over their sum."""
    exponentials = (logits - logits.amax(0)).exp()
    return exponentials / exponentials.sum(0)


def average_probabilities(classify, image, scales, flip):
    """(C, H, W) mean class probabilities.

    Args:
        classify: (3, h, w) uint8 to logits (C, h, w).
        image: (3, H, W) uint8.
        scales: factors of both sides.
        flip: whether every scale is mirrored too.
    """
    _, height, width = image.shape
    found = []
    for scale in scales:
        size = max(1, round(scale * height)), max(1, round(scale * width))
        scaled = resize(image.double(), size).round().byte()
        found.append(resize(class_probabilities(classify(scaled)), (height, width)))
        if flip:
            found.append(mirror(resize(class_probabilities(classify(mirror(scaled))), (height, width))))
    return sum(found) / len(found)
