import numpy as np
import pytest
import torch
from oracles.deeperlab_fusion import nearest_instance

from panoptic.fusion.assignment import assign_pixels, assign_pixels_torch

ASSIGN = pytest.mark.parametrize("assign", [assign_pixels, assign_pixels_torch], ids=["compiled", "torch"])


@ASSIGN
@pytest.mark.parametrize("num_instances", [1, 2, 9])
@pytest.mark.parametrize("noise", [0.5, 5.0, 100.0])
def test_equals_a_loop_over_instances(noise, num_instances, assign):
    print("seed", 5)
    generator = torch.Generator().manual_seed(5)
    keypoints = 100 * torch.rand(num_instances, 3, 2, generator=generator)
    seen = torch.randint(num_instances, (40,), generator=generator).repeat_interleave(10)  # runs, as along a row
    located = keypoints[seen] + noise * torch.randn(400, 3, 2, generator=generator)
    owners = assign(located.movedim(0, 2), keypoints)
    nearest = [nearest_instance(points, keypoints.numpy()) for points in located.numpy()]
    clear = np.array([gap > 1e-3 for _, gap in nearest])
    assert clear.mean() > 0.98
    np.testing.assert_array_equal(owners.numpy()[clear], np.array([owner for owner, _ in nearest])[clear])


def test_equal_distance_goes_to_the_lower():
    keypoints = torch.tensor([[[0.0, 4.0]], [[0.0, 0.0]]])
    located = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [3.0, 2.0, 1.0, 2.0]]])
    assert assign_pixels(located, keypoints).tolist() == [0, 0, 1, 0]


@ASSIGN
def test_no_pixels(assign):
    assert assign(torch.zeros(5, 2, 0), torch.zeros(2, 5, 2)).shape == (0,)
