import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles.merging import paste
from torchvision.models.detection.roi_heads import paste_masks_in_image

from panoptic.fusion.masks import full_masks, paste_masks, scaled_boxes
from panoptic.structures import Detections

SIZE = (23, 31)


def detections(boxes, masks, image_size=SIZE):
    count = len(boxes)
    return Detections(
        torch.ones(count, dtype=torch.int64),
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.ones(count),
        masks,
        image_size,
    )


def random_grids(seed, count, shape):
    print("seed", seed)
    return torch.rand((count, *shape), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("side", "cell_width", "cell_height"), [(4, 2, 3), (5, 3, 1), (14, 1, 2), (28, 2, 4)])
def test_equals_torchvision_where_both_mean_the_same_box(side, cell_width, cell_height):
    height, width = side * cell_height, side * cell_width
    size = (height + 11, width + 9)
    masks = random_grids(0, 3, (side, side))
    boxes = [[x, y, x + width, y + height] for x, y in ((5, 6), (13, 7), (4, 12))]  # two of them leave the image
    # Torchvision's boxes are whole pixels, the last one included: it rounds down and adds a pixel. Half a pixel less
    # makes that the same box.
    whole = torch.tensor(boxes, dtype=torch.float32) - torch.tensor([0, 0, 0.5, 0.5])
    expected = paste_masks_in_image(masks[:, None], whole, size)[:, 0]
    pasted = full_masks(paste_masks(detections(boxes, masks, size), size))
    certain = (expected - 0.5).abs() > 1e-4
    assert certain.float().mean() > 0.99
    assert 0.02 < pasted.float().mean() < 0.9
    assert torch.equal(pasted[certain], (expected >= 0.5)[certain])


@pytest.mark.parametrize("seed", range(6))
def test_equals_a_sum_of_hat_functions_for_boxes_between_pixels(seed):
    masks = random_grids(seed, 4, (2 + seed, 7 - seed))
    generator = np.random.default_rng(seed)
    corners, sides = generator.uniform(-9, 25, (4, 2)), generator.uniform(0.3, 30, (4, 2))
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    pasted = full_masks(paste_masks(detections(boxes, masks), SIZE)).numpy()
    for box, mask, found in zip(boxes.astype(np.float64), masks.double().numpy(), pasted, strict=True):
        expected = paste(mask, tuple(box), SIZE)
        certain = abs(expected - 0.5) > 1e-5
        assert np.array_equal(found[certain], (expected >= 0.5)[certain])


def test_boxes_are_scaled_from_the_image_of_the_detections():
    masks = random_grids(1, 2, (5, 3))
    boxes = [[1.5, 2.0, 9.0, 10.5], [4.0, 0.5, 11.0, 8.0]]
    size = (36, 18)  # three times as high and one and a half times as wide as 12 x 12
    found = paste_masks(detections(boxes, masks, (12, 12)), size)
    scaled = torch.tensor(boxes) * torch.tensor([1.5, 3.0, 1.5, 3.0])
    assert torch.equal(scaled_boxes(detections(boxes, masks, (12, 12)), size), scaled.double())
    assert torch.equal(full_masks(found), full_masks(paste_masks(detections(scaled.tolist(), masks, size), size)))
    assert int(found.areas.min()) > 0


@pytest.mark.parametrize("corner", [(3, 5), (0, 0), (-4, -2), (26, 19), (-3, 20)])
def test_a_grid_of_the_boxs_own_size_comes_back_exactly(corner):
    height, width = 8, 11
    mask = random_grids(2, 1, (height, width))[0] >= 0.5
    left, top = corner
    everywhere = torch.zeros(SIZE[0] + 20, SIZE[1] + 20, dtype=torch.bool)  # with 10 pixels around the image
    everywhere[top + 10 : top + 10 + height, left + 10 : left + 10 + width] = mask
    expected = everywhere[10:-10, 10:-10]
    pasted = paste_masks(detections([[left, top, left + width, top + height]], [mask.float()]), SIZE)
    assert torch.equal(full_masks(pasted)[0], expected)
    assert pasted.areas.tolist() == [int(expected.sum())]


@pytest.mark.parametrize(("probability", "area"), [(0.4999, 0), (0.5, 20), (0.5001, 20)])
def test_a_probability_of_one_half_is_inside(probability, area):
    pasted = paste_masks(detections([[3, 2, 8, 6]], [torch.full((4, 5), probability)]), SIZE)
    assert pasted.areas.tolist() == [area]


def test_masks_may_have_grids_of_different_sizes():
    masks = [torch.ones(3, 2), torch.ones(1, 1), torch.ones(6, 5)]
    boxes = [[0, 0, 4, 3], [6, 1, 9, 2], [10, 4, 20, 7]]
    assert paste_masks(detections(boxes, masks), SIZE).areas.tolist() == [12, 3, 30]


@pytest.mark.parametrize(
    "box",
    [
        [4, 3, 4, 9],  # no width
        [4, 3, 9, 3],  # no height
        [9, 9, 4, 3],  # corners swapped
        [4.6, 3, 5.4, 9],  # between two columns of centres
        [-20, -20, -3, -3],
        [31, 0, 50, 9],
        [5, 23, 9, 1e9],
    ],
)
def test_a_box_without_a_pixel_of_the_image_makes_an_empty_mask(box):
    pasted = paste_masks(detections([box, [1, 1, 4, 3]], torch.ones(2, 3, 3)), SIZE)
    assert pasted.areas.tolist() == [0, 6]
    assert pasted.patch(0).numel() == 0
    assert full_masks(pasted).sum((1, 2)).tolist() == [0, 6]


def test_a_box_far_larger_than_the_image_covers_it():
    pasted = paste_masks(detections([[-1e6, -1e6, 1e6, 1e6]], torch.ones(1, 3, 3)), SIZE)
    assert pasted.areas.tolist() == [SIZE[0] * SIZE[1]]


def test_no_detections_make_no_masks():
    pasted = paste_masks(detections([], torch.empty(0, 28, 28)), SIZE)
    assert len(pasted) == 0
    assert full_masks(pasted).shape == (0, *SIZE)


def test_selected_masks_are_those_of_their_rows():
    pasted = paste_masks(detections([[0, 0, 4, 3], [6, 1, 9, 2], [10, 4, 20, 7]], torch.ones(3, 2, 2)), SIZE)
    assert torch.equal(full_masks(pasted.select(np.array([2, 0]))), full_masks(pasted)[[2, 0]])


def test_a_thousand_masks_are_held_at_the_size_of_their_boxes():
    boxes = [[x % 200, x // 200, x % 200 + 7, x // 200 + 5] for x in range(1000)]
    pasted = paste_masks(detections(boxes, torch.ones(1000, 28, 28), (100, 300)), (100, 300))
    assert len(pasted.pixels) == 1000 * 7 * 5
    assert (pasted.areas == 35).all()


@pytest.mark.parametrize("num_threads", [2, 3])
def test_the_number_of_threads_changes_no_mask(num_threads):
    masks, before, pasted = random_grids(3, 7, (6, 4)), torch.get_num_threads(), []
    boxes = [[n, 2 * n, 3 * n + 5, 2 * n + 9] for n in range(7)]
    try:
        for threads in (1, num_threads):
            torch.set_num_threads(threads)
            pasted.append(full_masks(paste_masks(detections(boxes, masks), SIZE)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(pasted[0], pasted[1])
    assert pasted[0].any()


@pytest.mark.parametrize("field", ["boxes", "scores", "masks"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(field, value):
    found = detections([[1, 2, 9, 8], [3, 4, 7, 9]], torch.rand(2, 5, 4))
    getattr(found, field)[1] = value
    with pytest.raises(ValueError, match="expected finite values in instances, got nan or infinity; the network has d"):
        paste_masks(found, SIZE)


@pytest.mark.parametrize("shape", [(1, 1, 5, 4), (1, 0, 4), (1, 4)])
def test_masks_that_are_no_grids_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected masks of shape \(m, n\) with at least one cell, got \("):
        paste_masks(detections([[1, 2, 9, 8]], torch.rand(shape)), SIZE)


def test_differs_from_torchvision_by_at_most_a_pixel_along_the_border():
    print("seed", 4)
    generator = torch.Generator().manual_seed(4)
    corners, sides = 20 + 60 * torch.rand(8, 2, generator=generator), 25 + 70 * torch.rand(8, 2, generator=generator)
    boxes = torch.cat([corners, corners + sides], dim=1)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 28), torch.linspace(-1, 1, 28), indexing="ij")
    masks = torch.sigmoid(6 * (0.8 - y**2 - x**2 + 0.4 * x * y)).expand(8, -1, -1)
    size = (190, 210)
    ours = full_masks(paste_masks(detections(boxes.tolist(), masks, size), size))
    theirs = paste_masks_in_image(masks[:, None], boxes, size)[:, 0] > 0.5
    assert int(ours.sum((1, 2)).min()) > 300
    assert not torch.equal(ours, theirs)
    for one, other in ((ours, theirs), (theirs, ours)):
        around = F.max_pool2d(other[:, None].float(), 3, stride=1, padding=1)[:, 0] > 0
        assert not (one & ~around).any()


def test_masks_for_another_device_are_made_there():
    masks = full_masks(paste_masks(detections([[1, 2, 9, 8], [3, 4, 7, 9]], torch.ones(2, 3, 4)), SIZE), "meta")
    assert (masks.shape, masks.device.type, masks.dtype) == ((2, *SIZE), "meta", torch.bool)
