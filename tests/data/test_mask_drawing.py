import numpy as np
import pytest
import torch
from faster_coco_eval.core import mask as coco_mask

from panoptic.data.masks import draw_runs, stack_masks


@pytest.mark.parametrize(
    ("counts", "rows"),
    [
        ([15], ["...", "...", "...", "...", "..."]),
        ([0, 15], ["###", "###", "###", "###", "###"]),
        # down the columns of five: 3 off, 4 on (2 in the first column, 2 in the second), 6 off, 1 on, 1 off
        ([3, 4, 6, 1, 1], [".#.", ".#.", "...", "#.#", "#.."]),
        ([0, 5, 5, 0, 2, 3], ["#..", "#..", "#.#", "#.#", "#.#"]),
    ],
)
def test_run_lengths_go_down_the_columns_in_turn_off_and_on(counts, rows):
    expected = [[pixel == "#" for pixel in row] for row in rows]
    assert draw_runs(np.array(counts), 5, 3).tolist() == expected


def test_run_lengths_are_drawn_as_by_cocos_decoder():
    rng = np.random.default_rng(5)
    for _ in range(20):
        cuts = np.sort(rng.integers(0, 7 * 11 + 1, rng.integers(0, 12)))
        counts = np.diff(cuts, prepend=0, append=7 * 11)
        runs = coco_mask.frPyObjects({"size": [7, 11], "counts": counts.tolist()}, 7, 11)
        assert np.array_equal(draw_runs(counts, 7, 11), coco_mask.decode(runs)), counts


def test_masks_are_stacked_as_bool_whatever_stands_for_on():
    masks = [np.array([[0, 1, 0], [0, 0, 255]], dtype=np.uint8), np.array([[2, 0, 0], [0, 0, 0]], dtype=np.uint8)]
    stacked = stack_masks(masks, (2, 3))
    assert stacked.dtype == torch.bool
    assert stacked.int().tolist() == [[[0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 0]]]
    assert stack_masks([], (2, 3)).shape == (0, 2, 3)
