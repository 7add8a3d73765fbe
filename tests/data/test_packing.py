import gc
import pickle

import pytest
import torch
from noise_data import datamodule

from panoptic.data.packing import pack, unpack
from panoptic.structures import PanopticMap, Segment


def there_and_back(content):
    values, structure, places = pickle.loads(pickle.dumps(pack(content)))
    return unpack(values, structure, places)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(24).reshape(2, 3, 4),
        torch.arange(24).reshape(2, 3, 4).permute(2, 0, 1),
        torch.arange(24.0)[5:17:3],
        torch.randn(3, 5)[:, 2:4],
        torch.tensor(True),
        torch.zeros(0, 3, dtype=torch.int32),
        torch.tensor([1.5], dtype=torch.float16).expand(4),
    ],
    ids=["plain", "permuted", "strided", "slice", "scalar", "empty", "expanded"],
)
def test_tensors_of_any_layout(tensor):
    found = there_and_back(tensor)
    assert found.dtype == tensor.dtype
    assert found.stride() == tensor.stride()
    assert torch.equal(found, tensor)


def test_what_shared_memory_shares_it_again_and_is_sent_once():
    images = torch.arange(1000).reshape(2, 500)
    values, structure, places = pack({"images": images, "first": images[0], "again": images})
    assert len(places) == 1
    assert values.numel() == 8000
    found = unpack(values, structure, places)
    found["images"][0, 0] = 7
    assert found["first"][0] == 7
    assert found["again"] is found["images"]


def test_empty_tensors_keep_their_kinds():
    found = there_and_back([torch.zeros(0, dtype=torch.int32), torch.zeros(2, 0, dtype=torch.bool)])
    assert [(tuple(one.shape), one.dtype) for one in found] == [((0,), torch.int32), ((2, 0), torch.bool)]


def test_tensors_outlive_the_pack():
    found = there_and_back([torch.arange(1000), torch.randn(50)])
    gc.collect()
    others = [torch.zeros(1000, dtype=torch.int64) for _ in range(100)]
    assert torch.equal(found[0], torch.arange(1000))
    assert len(others) == 100


def test_maps_and_what_is_no_tensor():
    panoptic_map = PanopticMap(torch.tensor([[1, 0], [5, 5]]), [Segment(1, 0), Segment(5, 2)])
    found = there_and_back((panoptic_map, "name", None, {"sizes": [(2, 3)]}))
    assert torch.equal(found[0].segment_ids, panoptic_map.segment_ids)
    assert list(found[0].segments) == list(panoptic_map.segments)
    assert found[1:] == ("name", None, {"sizes": [(2, 3)]})


def test_batches_of_workers_are_those_of_the_training_process():
    here, there = (next(iter(datamodule(num_workers=number).train_dataloader())) for number in (0, 1))
    assert torch.equal(here.images, there.images)
    for one, other in zip(here.samples, there.samples, strict=True):
        assert torch.equal(one.image, other.image)
        assert other.image.untyped_storage().data_ptr() == there.images.untyped_storage().data_ptr()
        assert torch.equal(one.panoptic_map.segment_ids, other.panoptic_map.segment_ids)
