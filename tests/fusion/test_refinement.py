import math

import numpy as np
import pytest
import torch
from oracles.deeperlab_fusion import bilinear, refine_long_range

from panoptic.fusion.refinement import locate_keypoints, locate_keypoints_torch, sample_bilinear

LOCATE = pytest.mark.parametrize("locate", [locate_keypoints, locate_keypoints_torch], ids=["compiled", "torch"])


def random_fields(seed, num_kinds=2, size=(7, 10)):
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    long_range, short_range = 3 * torch.randn(2, num_kinds, 2, *size, generator=generator)
    is_thing = torch.rand(size, generator=generator) < 0.7
    return long_range, short_range, is_thing


@LOCATE
@pytest.mark.parametrize("refinements", [0, 1, 2])
@pytest.mark.parametrize("longest", [2.5, math.inf])
@pytest.mark.parametrize("seed", range(3))
def test_equals_loops_over_pixels(seed, longest, refinements, locate):
    long_range, short_range, is_thing = random_fields(seed)
    pixels = is_thing.flatten().nonzero().flatten()
    located = locate(long_range, short_range, pixels, refinements=refinements, max_correction=longest)
    expected = refine_long_range(long_range.numpy(), short_range.numpy(), is_thing.numpy(), refinements, longest)
    expected = expected.reshape(2, -1, 2)[:, pixels].swapaxes(1, 2)
    np.testing.assert_allclose(located.numpy(), expected, atol=1e-3)  # random fields amplify rounding


@LOCATE
@pytest.mark.parametrize(("longest", "believed"), [(4.99, False), (5.0, True), (5.01, True)])
def test_a_correction_is_believed_up_to_the_longest(longest, believed, locate):
    long_range, short_range = torch.zeros(1, 2, 1, 9), torch.zeros(1, 2, 1, 9)
    short_range[0, :, 0, 2] = torch.tensor([3.0, 4.0])  # length 5
    located = locate(long_range, short_range, torch.tensor([2]), refinements=1, max_correction=longest)
    assert located[0, :, 0].tolist() == ([3.0, 6.0] if believed else [0.0, 2.0])


@LOCATE
def test_offsets_outside_of_things_correct_nothing(locate):
    long_range = torch.full((1, 2, 5, 9), 1.0)  # believed, were it on a thing
    located = locate(long_range, torch.zeros(1, 2, 5, 9), torch.tensor([0]), refinements=2, max_correction=9)
    assert located[0, :, 0].tolist() == [1.0, 1.0]


@LOCATE
def test_perfect_offsets_stay(locate):
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(8.0), indexing="ij")
    long_range = torch.stack([2.25 - y, 6.5 - x])[None]  # all of them see (2.25, 6.5)
    located = locate(long_range, torch.zeros(1, 2, 5, 8), torch.arange(40), refinements=2, max_correction=9)
    torch.testing.assert_close(located, torch.tensor([2.25, 6.5])[None, :, None].expand(1, 2, 40))


@LOCATE
def test_no_pixels_and_inputs_that_stay(locate):
    long_range, short_range, _ = random_fields(0)
    before = long_range.clone(), short_range.clone()
    located = locate(long_range, short_range, torch.zeros(0).long(), refinements=2, max_correction=9)
    locate(long_range, short_range, torch.arange(70), refinements=2, max_correction=9)
    assert located.shape == (2, 2, 0)
    assert torch.equal(long_range, before[0])
    assert torch.equal(short_range, before[1])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_offsets_do_not_leave_the_array_and_are_refused(value):
    fields = torch.full((1, 2, 3, 4), value)
    with pytest.raises(ValueError, match="expected finite values in long_range, got nan or infinity"):
        locate_keypoints(fields, fields, torch.arange(12), refinements=2, max_correction=math.inf)


@LOCATE
def test_positions_far_away_do_not_leave_the_array(locate):
    fields = torch.full((1, 2, 3, 4), 1e30)
    located = locate(fields, fields, torch.arange(12), refinements=2, max_correction=9.0)
    torch.testing.assert_close(located, torch.full((1, 2, 12), 1e30))


@LOCATE
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (6, 1)])
def test_a_single_row_or_column_equals_loops_over_pixels(size, locate):
    long_range, short_range, _ = random_fields(1, size=size)
    pixels = torch.arange(size[0] * size[1])
    located = locate(long_range, short_range, pixels, refinements=2, max_correction=4.0)
    everywhere = np.ones(size, dtype=bool)
    expected = refine_long_range(long_range.numpy(), short_range.numpy(), everywhere, 2, 4.0)
    np.testing.assert_allclose(located.numpy(), expected.reshape(2, -1, 2).swapaxes(1, 2), atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_sampling_equals_a_sum_of_hat_functions(seed):
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    fields = torch.randn(3, 2, 5, 7, generator=generator)
    positions = torch.rand(30, 2, generator=generator) * torch.tensor([8.0, 10.0]) - 2  # some outside
    positions[:10] = positions[:10].round()
    which = torch.randint(3, (30,), generator=generator)
    sampled = sample_bilinear(fields, which, positions)
    expected = [bilinear(fields[w].numpy(), *p) for w, p in zip(which.tolist(), positions.tolist(), strict=True)]
    np.testing.assert_allclose(sampled.numpy(), expected, atol=1e-5)
