"""COCO's average precision of masks, pixel by pixel and detection by detection, from its definition.

At one IoU threshold and for one category: detections of all images in order of their scores; each takes the free truth
of its image with the highest IoU that reaches the threshold, and is right; else, if a crowd covers that share of it, it
is left out; else it is wrong. Precision at a recall is the highest precision at this or a higher recall; AP is its mean
at the recalls 0, 0.01, .. 1.
"""

from __future__ import annotations

import numpy as np

THRESHOLDS = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


def overlap(detection, truth, is_crowd):
    """IoU of two sets of pixels; the share of the detection that lies inside, for a crowd."""
    both = len(detection & truth)
    return both / len(detection) if is_crowd else both / len(detection | truth)


def average_precision(images, threshold):
    """AP of one category; nan without truth.

    Args:
        images: [(detections [(score, pixels)], truths [(pixels, is_crowd)])], pixels as sets.
        threshold: of the IoU.
    """
    number_of_truths = sum(not is_crowd for _, truths in images for _, is_crowd in truths)
    if number_of_truths == 0:
        return float("nan")
    judged = []
    for detections, truths in images:
        free = [number for number, (_, is_crowd) in enumerate(truths) if not is_crowd]
        for score, pixels in sorted(detections, key=lambda detection: -detection[0])[:100]:
            found = {number: overlap(pixels, truths[number][0], False) for number in free}
            good = {number: iou for number, iou in found.items() if iou >= threshold}
            if good:
                free.remove(max(good, key=good.get))
                judged.append((score, True))
            elif not any(crowd and overlap(pixels, mask, True) >= threshold for mask, crowd in truths):
                judged.append((score, False))
    judged.sort(key=lambda detection: -detection[0])
    recalls, precisions, right = [], [], 0
    for number, (_, is_right) in enumerate(judged, start=1):
        right += is_right
        recalls.append(right / number_of_truths)
        precisions.append(right / number)
    at = []
    for recall in np.linspace(0, 1, 101):
        reached = [precision for r, precision in zip(recalls, precisions, strict=True) if r >= recall]
        at.append(max(reached, default=0.0))
    return sum(at) / 101
