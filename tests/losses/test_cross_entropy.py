import math

import pytest
import torch

from panoptic.losses.cross_entropy import bootstrapped_cross_entropy
from panoptic.structures import IGNORE_INDEX


def equation_1(logits, target, small, fraction, weight):
    """Eq. 1 with loops over pixels: sort the losses of an image, keep the K highest, weigh, divide by K."""
    means = []
    for image in range(logits.shape[0]):
        pixels = []
        for y in range(target.shape[1]):
            for x in range(target.shape[2]):
                label = int(target[image, y, x])
                if label != IGNORE_INDEX:
                    exponentials = [math.exp(v) for v in logits[image, :, y, x].tolist()]
                    loss = -math.log(exponentials[label] / sum(exponentials))
                    pixels.append((loss, weight if small[image, y, x] else 1.0))
        count = max(1, int(fraction * len(pixels)))
        hardest = sorted(pixels, reverse=True)[:count]
        means.append(sum(w * loss for loss, w in hardest) / count)
    return sum(means) / len(means)


@pytest.mark.parametrize("fraction", [0.15, 0.5, 1.0, 0.001])
@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_equals_equation_1(fraction, weight):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 5, 7, generator=generator)
    target = torch.randint(0, 3, (2, 5, 7), generator=generator)
    target[0, :2] = IGNORE_INDEX
    small = torch.rand(2, 5, 7, generator=generator) > 0.5
    loss = bootstrapped_cross_entropy(logits, target, small, hard_pixel_fraction=fraction, small_instance_weight=weight)
    assert loss.item() == pytest.approx(equation_1(logits, target, small, fraction, weight), rel=1e-5)


def test_an_image_without_labels_has_no_loss_and_finite_gradients():
    logits = torch.randn(1, 3, 5, 7, requires_grad=True)
    target = torch.full((1, 5, 7), IGNORE_INDEX)
    loss = bootstrapped_cross_entropy(
        logits, target, torch.zeros(1, 5, 7, dtype=torch.bool), hard_pixel_fraction=0.15, small_instance_weight=3.0
    )
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01])
def test_a_fraction_outside_its_range_is_an_error(fraction):
    with pytest.raises(ValueError, match="expected hard_pixel_fraction in \\(0, 1\\]"):
        bootstrapped_cross_entropy(
            torch.zeros(1, 3, 5, 7),
            torch.zeros(1, 5, 7),
            torch.zeros(1, 5, 7, dtype=torch.bool),
            hard_pixel_fraction=fraction,
            small_instance_weight=1.0,
        )
