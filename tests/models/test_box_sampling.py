"""Which boxes carry loss: what the sampler promises, and what crowds take away."""

import pytest
import torch
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from panoptic.models.heads.box_sampling import ignore_crowds, sample_balanced


def labels_of(num_positive, num_negative, num_ignored=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.full((num_positive,), 2), torch.zeros(num_negative), torch.full((num_ignored,), -1)])
    return labels[torch.randperm(len(labels), generator=generator)]


@pytest.mark.parametrize(
    ("num_positive", "num_negative"), [(0, 0), (0, 40), (3, 40), (40, 40), (40, 2), (3, 2), (5, 0)]
)
@pytest.mark.parametrize("share", [0.25, 0.5])
def test_as_many_of_each_as_torchvisions_sampler_draws(num_positive, num_negative, share):
    labels, numbers = labels_of(num_positive, num_negative), BalancedPositiveNegativeSampler(16, share)
    positive, negative = sample_balanced(labels, numbers, torch.Generator().manual_seed(1))
    theirs = [int(drawn[0].sum()) for drawn in numbers([labels])]
    assert [len(positive), len(negative)] == theirs
    assert (labels[positive] >= 1).all()
    assert (labels[negative] == 0).all()
    for drawn in (positive, negative):
        assert drawn.dtype == torch.int64
        assert drawn.tolist() == sorted(set(drawn.tolist()))


def test_every_box_has_the_same_chance():
    labels, numbers = labels_of(20, 30), BalancedPositiveNegativeSampler(20, 0.5)
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(len(labels))
    for _ in range(2000):
        for drawn in sample_balanced(labels, numbers, generator):
            counts[drawn] += 1
    positive, negative = counts[labels >= 1] / 2000, counts[labels == 0] / 2000
    assert (positive - 10 / 20).abs().max() < 0.05  # 4.5 standard deviations
    assert (negative - 10 / 30).abs().max() < 0.05
    assert counts[labels == -1].sum() == 0


def test_the_seed_decides_and_nothing_else():
    labels, numbers = labels_of(50, 500), BalancedPositiveNegativeSampler(64, 0.5)

    def draw(seed):
        return torch.cat(sample_balanced(labels, numbers, torch.Generator().manual_seed(seed))).tolist()

    first = draw(3)
    torch.manual_seed(99)
    assert draw(3) == first
    assert draw(4) != first
    assert draw(2**64 - 1) != first  # as large as seeds of samples are


@pytest.mark.parametrize(("right", "is_ignored"), [(4.9, False), (5.0, True), (5.1, True)])
def test_a_box_lies_on_a_crowd_from_half_of_its_area_on(right, is_ignored):
    box = torch.tensor([[0.0, 20.0, 10.0, 30.0]])
    crowd = torch.tensor([[-3.0, 0.0, right, 100.0]])
    for label in (0, 1, 7):
        assert ignore_crowds(torch.tensor([label]), box, crowd).tolist() == [-1 if is_ignored else label]


def test_halves_on_two_crowds_are_not_added():
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    crowds = torch.tensor([[0.0, 0.0, 4.0, 10.0], [6.0, 0.0, 10.0, 10.0]])
    assert ignore_crowds(torch.tensor([1]), box, crowds).tolist() == [1]
    assert ignore_crowds(torch.tensor([1]), box, torch.cat([crowds, box])).tolist() == [-1]


def test_without_crowds_labels_stay():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [2.0, 2.0, 3.0, 5.0]])
    assert ignore_crowds(torch.tensor([1, 0]), boxes, torch.zeros(0, 4)).tolist() == [1, 0]
