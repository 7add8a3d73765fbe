"""The joint histogram against pairs counted one pixel at a time, for ids that are hard on a table of ids."""

from collections import Counter

import pytest
import torch

from panoptic.metrics.functional import count_overlaps
from panoptic.structures import MAX_SEGMENT_ID, PanopticMap, Segment


def noise(ids, seed):
    """(5, 7) pixels of the ids and void; the table lists the ids in the order given."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.tensor([0, *ids])[torch.randint(0, len(ids) + 1, (5, 7), generator=generator)]
    return PanopticMap(chosen, [Segment(segment_id, 0) for segment_id in ids])


@pytest.mark.parametrize(
    "ids",
    [
        list(range(1, 401)),
        [65536 * blue for blue in range(1, 256)],  # only the blue channel of the PNG is used
        [256 * green for green in range(1, 256)],
        [MAX_SEGMENT_ID - number for number in range(150)],
        [MAX_SEGMENT_ID],
        [],
    ],
    ids=["sequential", "blue", "green", "largest", "one", "none"],
)
def test_histogram_counts_every_pair_of_ids(ids):
    target, prediction = noise(ids, seed=1), noise(ids[::-1], seed=2)
    pairs = Counter(zip(target.segment_ids.flatten().tolist(), prediction.segment_ids.flatten().tolist(), strict=True))
    pixels = count_overlaps(prediction, target, num_categories=1).pixels
    assert pixels.shape == (len(ids) + 1, len(ids) + 1)
    target_rows, prediction_rows = [0, *ids], [0, *ids[::-1]]
    found = {(target_rows[t], prediction_rows[p]): pixels[t, p] for t, p in zip(*pixels.nonzero(), strict=True)}
    assert found == pairs


@pytest.mark.parametrize("unlisted", [-1, 2, MAX_SEGMENT_ID + 1, 2**62])
def test_id_written_into_a_map_after_its_check_is_an_error(unlisted):
    target, prediction = noise([1], seed=1), noise([1], seed=2)
    prediction.segment_ids[3, 4] = unlisted
    with pytest.raises(ValueError, match="a map holds an id that its segment table lacks"):
        count_overlaps(prediction, target, num_categories=1)
