"""Cross entropy over labelled pixels."""

import math

import pytest
import torch

from panoptic.losses.cross_entropy import bootstrapped_cross_entropy, pixel_cross_entropy
from panoptic.structures import IGNORE_INDEX


def noise():
    """Logits of two images of three categories, and a target of which two rows of the first image are void."""
    generator = torch.Generator().manual_seed(3)
    target = torch.randint(0, 3, (2, 5, 7), generator=generator, dtype=torch.uint8)
    target[0, :2] = IGNORE_INDEX
    return torch.randn(2, 3, 5, 7, generator=generator), target


def by_hand(logits, target):
    means = []
    for image in range(len(logits)):
        losses = []
        for y, x in (target[image] != IGNORE_INDEX).nonzero().tolist():
            exponentials = [math.exp(value) for value in logits[image, :, y, x].tolist()]
            losses.append(-math.log(exponentials[int(target[image, y, x])] / sum(exponentials)))
        means.append(sum(losses) / len(losses))
    return sum(means) / len(means)


def test_equals_loops_over_pixels():
    logits, target = noise()
    assert pixel_cross_entropy(logits, target).item() == pytest.approx(by_hand(logits, target), rel=1e-5)


def test_equals_bootstrapping_that_keeps_every_pixel():
    logits, target = noise()
    nothing_small = torch.zeros(2, 5, 7, dtype=torch.bool)
    expected = bootstrapped_cross_entropy(
        logits, target, nothing_small, hard_pixel_fraction=1.0, small_instance_weight=1.0
    )
    torch.testing.assert_close(pixel_cross_entropy(logits, target), expected)


def test_every_image_counts_the_same_whatever_its_labelled_pixels():
    logits, target = noise()
    alone = [pixel_cross_entropy(logits[i : i + 1], target[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(pixel_cross_entropy(logits, target), torch.stack(alone).mean())


def test_an_image_without_labels_adds_nothing_and_has_a_gradient_of_zero():
    logits, target = noise()
    target[0] = IGNORE_INDEX
    logits.requires_grad_()
    loss = pixel_cross_entropy(logits, target)
    loss.backward()
    torch.testing.assert_close(loss, pixel_cross_entropy(logits[1:], target[1:]) / 2)
    assert not logits.grad[0].any()
    assert logits.grad[1].any()


def test_half_precision_logits_are_summed_in_full():
    logits, target = noise()
    loss = pixel_cross_entropy(logits.bfloat16(), target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, pixel_cross_entropy(logits.bfloat16().float(), target))
