"""OANet's spatial ranking (Sec. 3.2) pixel by pixel, from the paper's text."""

import math


def instance_tensor(masks, classes, num_classes):
    """Fig. 4: a tensor of zeros, one channel per class; a pixel of an instance is one in the channel of its class.

    Args:
        masks: N nested lists (H, W) of 0 and 1.
        classes: their N channels.
        num_classes: T.

    Returns:
        nested list (T, H, W).
    """
    height, width = len(masks[0]), len(masks[0][0])
    tensor = [[[0] * width for _ in range(height)] for _ in range(num_classes)]
    for mask, channel in zip(masks, classes, strict=True):
        for y in range(height):
            for x in range(width):
                if mask[y][x]:
                    tensor[channel][y][x] = 1
    return tensor


def equation_2(scores, tensor, labels):
    """Mean cross entropy of the pixels where at least two channels are set and a thing is seen; 0 without any.

    Args:
        scores: (T, H, W) nested list of logits.
        tensor: (T, H, W) nested list, as `instance_tensor`.
        labels: (H, W) nested list of channels of what is seen, None where it is no thing.
    """
    losses = []
    for y, row in enumerate(labels):
        for x, label in enumerate(row):
            set_channels = sum(channel[y][x] for channel in tensor)
            if set_channels < 2 or label is None:
                continue
            exponentials = [math.exp(channel[y][x]) for channel in scores]
            losses.append(-math.log(exponentials[label] / sum(exponentials)))
    return sum(losses) / len(losses) if losses else 0.0
