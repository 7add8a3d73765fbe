"""Counts by hand of layers small enough to count."""

import io

import pytest
import torch
from rich.console import Console
from torch import nn

from panoptic.analysis.model_summary import PartSummary, model_table, summarize_parts


class TwoHeads(nn.Module):
    """A convolution that two heads read; the heads share a 1x1 convolution if asked to."""

    def __init__(self, *, shared: bool):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        layer = nn.Conv2d(4, 2, 1)
        self.first = nn.Sequential(layer, nn.ReLU())
        self.second = nn.Sequential(layer if shared else nn.Conv2d(4, 2, 1), nn.Sigmoid())

    @property
    def parts(self):
        return {"backbone": self.backbone, "first": self.first, "second": self.second}

    def forward(self, images):
        features = self.backbone(images)
        return self.first(features), self.second(features)


IMAGES = torch.zeros(1, 3, 5, 7, device="meta")
# Backbone: 3x3x3x4 = 108 weights at each of 5x7 pixels, 3780 multiply-adds; batch norm has 2x4 parameters.
BACKBONE = PartSummary("backbone", 108 + 8, 108 + 8, 108 * 35)
# A head: 4x2 weights and 2 biases; 8 multiply-adds per pixel.
FIRST = PartSummary("first", 10, 10, 8 * 35)


def test_a_convolution_is_counted_as_by_hand():
    network = TwoHeads(shared=False)
    rows, reason = summarize_parts(network, network.parts, IMAGES)
    second = PartSummary("second", 10, 10, 8 * 35)
    assert reason is None
    assert rows == [BACKBONE, FIRST, second, PartSummary("total", 136, 136, (108 + 16) * 35)]


def test_parameters_of_two_heads_count_once_and_their_operations_as_often_as_they_run():
    network = TwoHeads(shared=True)
    rows, _ = summarize_parts(network, network.parts, IMAGES)
    second = PartSummary("second", 0, 0, 8 * 35)
    assert rows == [BACKBONE, FIRST, second, PartSummary("total", 126, 126, (108 + 16) * 35)]


def test_frozen_parameters_are_not_trainable():
    network = TwoHeads(shared=False)
    network.backbone.requires_grad_(False)
    rows, _ = summarize_parts(network, network.parts, IMAGES)
    assert (rows[0].parameters, rows[0].trainable, rows[-1].trainable) == (116, 0, 20)


def test_what_belongs_to_no_part_is_the_rest():
    network = TwoHeads(shared=False)
    parts = {"first": network.first, "second": network.second}
    rows, _ = summarize_parts(network, parts, IMAGES)
    assert rows[2:] == [PartSummary("rest", 116, 116, 108 * 35), PartSummary("total", 136, 136, 124 * 35)]


def test_the_network_is_left_as_it_was():
    network = TwoHeads(shared=True)
    network.backbone[1].eval()
    modes = [module.training for module in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    summarize_parts(network, network.parts, IMAGES)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


class AsksForValues(TwoHeads):
    def forward(self, images):
        features = self.backbone(images)
        return features[features > 0], self.first(features), self.second(features)


def test_operations_that_depend_on_values_are_said_to_be_uncountable():
    network = AsksForValues(shared=False)
    rows, reason = summarize_parts(network, network.parts, IMAGES)
    assert "nonzero" in reason
    assert [row.multiply_adds for row in rows] == [None] * 4
    assert rows[-1].parameters == 136
    assert "multiply-adds cannot be counted" in shown(model_table(rows, (5, 7), reason))


def shown(table):
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("count", "expected"),
    [(999, "999"), (1000, "1.00 K"), (1234, "1.23 K"), (43_012_345_678, "43.0 G"), (999_600, "1.00 M"), (0, "0")],
)
def test_the_table_shows_parts_exactly_and_operations_in_three_digits(count, expected):
    text = shown(model_table([PartSummary("head", 1_234_567, 8, count), PartSummary("total", 1, 1, 1)], (5, 7)))
    line = next(line for line in text.splitlines() if "head" in line)
    assert [cell.strip() for cell in line.split("│")[1:-1]] == ["head", "1,234,567", "8", expected]
    assert "5x7" in text
