import math

import pytest
import torch

from panoptic.losses.keypoints import heatmap_loss, offset_loss


def test_heatmap_loss_is_the_mean_over_valid_pixels_and_kinds():
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 5, 7, generator=generator)
    target = (torch.rand(2, 5, 7, generator=generator) > 0.5).float()
    valid = torch.rand(5, 7, generator=generator) > 0.3
    terms = []
    for kind in range(2):
        for y in range(5):
            for x in range(7):
                if valid[y, x]:
                    probability = 1 / (1 + math.exp(-logits[kind, y, x].item()))
                    terms.append(-math.log(probability if target[kind, y, x] else 1 - probability))
    assert heatmap_loss(logits, target, valid).item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_offset_loss_is_the_mean_l1_over_active_pairs():
    generator = torch.Generator().manual_seed(6)
    offsets, target = torch.randn(2, 3, 2, 5, 7, generator=generator)
    active = torch.rand(3, 5, 7, generator=generator) > 0.5
    terms = [
        abs(float(offsets[k, 0, y, x] - target[k, 0, y, x])) + abs(float(offsets[k, 1, y, x] - target[k, 1, y, x]))
        for k in range(3)
        for y in range(5)
        for x in range(7)
        if active[k, y, x]
    ]
    assert offset_loss(offsets, target, active).item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_a_map_of_active_pixels_serves_every_kind():
    offsets = torch.ones(3, 2, 5, 7)
    active = torch.zeros(5, 7, dtype=torch.bool)
    active[2, 3] = True
    # |dy| + |dx| = 2 at the one active pixel, for each of 3 kinds: mean 2
    assert offset_loss(offsets, torch.zeros_like(offsets), active).item() == 2


@pytest.mark.parametrize("loss", ["heatmap", "offsets"])
def test_nothing_active_gives_zero_and_finite_gradients(loss):
    prediction = torch.randn(3, 2, 5, 7, requires_grad=True)
    nowhere = torch.zeros(5, 7, dtype=torch.bool)
    value = (
        heatmap_loss(prediction[:, 0], torch.zeros(3, 5, 7), nowhere)
        if loss == "heatmap"
        else offset_loss(prediction, torch.zeros(3, 2, 5, 7), nowhere)
    )
    value.backward()
    assert value.item() == 0
    assert torch.isfinite(prediction.grad).all()
