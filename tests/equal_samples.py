"""Whether two samples have the same image, map and instances."""

import torch

from panoptic.structures import Sample


def assert_equal_samples(first: Sample, second: Sample) -> None:
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.panoptic_map.segment_ids, second.panoptic_map.segment_ids)
    assert first.panoptic_map.segments == second.panoptic_map.segments
    for name in ("category_ids", "masks", "boxes", "scores", "is_crowd"):
        assert torch.equal(getattr(first.instances, name), getattr(second.instances, name)), name
