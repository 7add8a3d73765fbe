import numpy as np
import pytest
import torch

from panoptic.fusion.arrays import float_array, in_threads, padded_array, split_range


@pytest.fixture(params=[1, 2, 5])
def num_threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


MAPS = torch.arange(2 * 3 * 5 * 7).float().view(2, 3, 5, 7)


@pytest.mark.parametrize(
    ("maps", "is_copied"),
    [
        (MAPS, False),
        (MAPS[..., :4, :6], False),
        (MAPS[..., :4, :], False),
        (MAPS[1, :, :4, :6], False),
        (MAPS[:1, :, 1:4, 2:], False),  # what lies beyond the last pixel is in the next map
        (MAPS[..., 1:, 2:], True),  # ... or nowhere
        (MAPS[..., ::2, :], True),
        (MAPS[..., ::2], True),
        (MAPS.mT, True),
        (MAPS[:, ::2], True),
        (MAPS[:1, :1, :1, :1].expand(2, 3, 4, 6), True),
        (MAPS.bfloat16()[..., :4, :6], True),
    ],
)
def test_padded_arrays_hold_the_maps_without_a_copy_of_crops(maps, is_copied):
    array = padded_array(maps)
    height, width = maps.shape[-2:]
    np.testing.assert_array_equal(array[..., :height, :width], maps.float().numpy())
    assert array.flags.c_contiguous
    assert array.dtype == np.float32
    assert np.shares_memory(array, MAPS.numpy()) is not is_copied


def test_float_arrays_are_contiguous():
    array = float_array(MAPS.mT.double())
    assert array.flags.c_contiguous
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, MAPS.mT.numpy())


def test_results_come_in_the_order_of_the_tasks(num_threads):
    assert in_threads(lambda task: 2 * task, range(20)) == [2 * task for task in range(20)]
    assert in_threads(lambda task: task, []) == []


def test_an_error_in_a_thread_is_raised(num_threads):
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda task: 1 // task, range(3))


@pytest.mark.parametrize("length", [0, 1, 3, 100])
def test_slices_cover_the_range_once(length, num_threads):
    parts = split_range(length)
    assert len(parts) == num_threads
    assert [number for part in parts for number in range(length)[part]] == list(range(length))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1
