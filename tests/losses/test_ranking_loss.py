"""Equation 2 of OANet."""

import pytest
import torch
from oracles.spatial_ranking import equation_2

from panoptic.losses.ranking import ranking_loss
from panoptic.structures import IGNORE_INDEX


def noise(num_classes=3):
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(num_classes, 5, 7, generator=generator)
    class_masks = torch.rand(num_classes, 5, 7, generator=generator) < 0.6
    target = torch.randint(0, num_classes, (5, 7), generator=generator)
    target[3] = IGNORE_INDEX
    return logits, class_masks, target


@pytest.mark.parametrize("num_classes", [2, 3, 6])
def test_equals_equation_2_one_pixel_at_a_time(num_classes):
    logits, class_masks, target = noise(num_classes)
    labels = [[None if label == IGNORE_INDEX else label for label in row] for row in target.tolist()]
    expected = equation_2(logits.tolist(), class_masks.int().tolist(), labels)
    assert expected > 0
    assert ranking_loss(logits, class_masks, target).item() == pytest.approx(expected, rel=1e-5)


def test_pixels_of_one_class_or_of_none_are_left_out_and_those_of_two_are_not():
    target = torch.zeros(1, 3, dtype=torch.long)
    # pixels of no class, of class 0, of classes 0 and 1
    class_masks = torch.tensor([[[False, True, True]], [[False, False, True]]])
    logits = torch.zeros(2, 1, 3, requires_grad=True)
    ranking_loss(logits, class_masks, target).backward()
    assert logits.grad.abs().sum(0).gt(0).tolist() == [[False, False, True]]


def test_pixels_on_which_no_thing_is_seen_are_left_out():
    class_masks = torch.ones(2, 1, 3, dtype=torch.bool)
    target = torch.tensor([[IGNORE_INDEX, 1, IGNORE_INDEX]])
    logits = torch.zeros(2, 1, 3, requires_grad=True)
    loss = ranking_loss(logits, class_masks, target)
    loss.backward()
    assert loss.item() == pytest.approx(0.6931472, rel=1e-6)  # ln 2: two classes, equal scores
    assert logits.grad.abs().sum(0).gt(0).tolist() == [[False, True, False]]


@pytest.mark.parametrize("num_set", [0, 1])
def test_without_conflict_the_loss_is_zero_and_so_is_its_gradient(num_set):
    logits, class_masks, target = noise()
    class_masks[num_set:] = False
    logits.requires_grad_()
    loss = ranking_loss(logits, class_masks, target)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()
