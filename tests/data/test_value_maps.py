import numpy as np
import pytest

from panoptic.data.value_maps import look_up


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_entries_and_counts_are_those_of_numpy(dtype):
    rng = np.random.default_rng(3)
    limit = np.iinfo(dtype).max + 1
    table = rng.integers(0, 2**24, limit)
    values = np.repeat(rng.integers(0, limit, (5, 4)), 3, axis=1).astype(dtype)  # runs of three pixels
    values[0, 0], values[4, 11] = 0, limit - 1
    found, counts = look_up(values, table)
    assert (found.dtype, found.shape) == (np.int64, (5, 12))
    assert np.array_equal(found, table[values])
    assert np.array_equal(counts, np.bincount(values.ravel(), minlength=limit))
