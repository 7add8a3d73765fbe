import math

import numpy as np
import pytest
import torch
from oracles.deeperlab_fusion import hough_map, short_range_votes

from panoptic.fusion.hough_voting import hough_scores, hough_scores_torch

SIZE = (6, 9)


def scores_of(heatmap, short_range, located, *, implementation, radius=2.0, a=1.0, b=1.0, threshold=0.0):
    if implementation == "compiled":
        return hough_scores(
            heatmap,
            short_range,
            located,
            radius=radius,
            short_weight=a,
            long_weight=b,
            vote_threshold=threshold,
        )
    unit = 1 / (math.pi * radius**2)
    least = math.log(threshold / (1 - threshold)) if threshold > 0 else -math.inf
    return hough_scores_torch(heatmap, short_range, located, a * unit, b * unit, least)


IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["compiled", "torch"])


def nothing(num_kinds=1):
    return torch.full((num_kinds, *SIZE), -50.0), torch.zeros(num_kinds, 2, *SIZE), torch.zeros(num_kinds, 2, 0)


@IMPLEMENTATIONS
@pytest.mark.parametrize(("a", "b"), [(1.0, 0.0), (0.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("threshold", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_equals_a_sum_of_kernels_at_every_pixel(seed, threshold, a, b, implementation):
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    heatmap = 2 * torch.randn(2, *SIZE, generator=generator)
    short_range = 3 * torch.randn(2, 2, *SIZE, generator=generator)
    located = torch.rand(2, 2, 20, generator=generator) * torch.tensor([8.0, 12.0])[:, None] - 2  # some outside
    located[:, :, :5] = located[:, :, :5].round()
    scores = scores_of(heatmap, short_range, located, implementation=implementation, a=a, b=b, threshold=threshold)
    for kind in range(2):
        short = short_range_votes(heatmap[kind].sigmoid().numpy(), short_range[kind].numpy(), threshold)
        long = [(y, x, 1.0) for y, x in located[kind].T.tolist()]
        expected = a * hough_map(short, SIZE, 2.0) + b * hough_map(long, SIZE, 2.0)
        np.testing.assert_allclose(scores[kind].numpy(), expected, atol=1e-5)


@IMPLEMENTATIONS
def test_votes_outside_are_dropped_and_at_the_border_halved(implementation):
    heatmap, short_range, _ = nothing()
    # (y, x) of votes: half outside above, on the last pixel, just outside, far outside, not a number
    located = torch.tensor([[-0.5, 5.0, 6.0, 1e20, math.nan], [2.0, 8.0, 2.0, 2.0, 2.0]])[None]
    scores = scores_of(heatmap, short_range, located, implementation=implementation) * 4 * math.pi
    expected = torch.zeros(SIZE)
    expected[0, 2], expected[5, 8] = 0.5, 1.0
    torch.testing.assert_close(scores[0], expected)


@IMPLEMENTATIONS
@pytest.mark.parametrize(("threshold", "votes"), [(0.49, True), (0.5, True), (0.51, False)])
def test_a_pixel_votes_from_the_threshold_on(threshold, votes, implementation):
    heatmap, short_range, located = nothing()
    heatmap[0, 2, 3] = 0.0  # probability 0.5
    scores = scores_of(heatmap, short_range, located, implementation=implementation, threshold=threshold)
    assert bool(scores[0, 2, 3] > 0) is votes


@IMPLEMENTATIONS
def test_a_whole_disk_of_certain_votes_counts_about_one(implementation):
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(9.0), indexing="ij")
    heatmap, short_range, located = nothing()
    inside = (y - 2) ** 2 + (x - 4) ** 2 <= 4  # 13 pixels, pi R^2 = 12.57
    heatmap[0][inside] = 50.0
    short_range[0] = torch.stack([2 - y, 4 - x])
    scores = scores_of(heatmap, short_range, located, implementation=implementation)
    assert float(scores[0, 2, 4]) == pytest.approx(13 / (4 * math.pi), abs=1e-5)
    assert int((scores > 1e-6).sum()) == 1


@IMPLEMENTATIONS
def test_inputs_are_not_changed(implementation):
    inputs = [torch.ones(1, *SIZE), torch.ones(1, 2, *SIZE), torch.ones(1, 2, 3)]
    scores_of(*inputs, implementation=implementation)
    assert all(bool((tensor == 1).all()) for tensor in inputs)


@IMPLEMENTATIONS
@pytest.mark.parametrize(("heat", "offset", "name"), [(math.nan, 0.0, "heatmap"), (3.0, math.inf, "short_range")])
def test_votes_that_are_no_numbers_are_refused(heat, offset, name, implementation):
    heatmap, short_range, located = nothing()
    heatmap[0, 2, 3], short_range[0, 1, 2, 3] = heat, offset
    with pytest.raises(ValueError, match=f"expected finite values in {name}, got nan or infinity"):
        scores_of(heatmap, short_range, located, implementation=implementation, threshold=0.1)
