"""A data set as `panoptic check-data` reads it, beside what training meets."""

from collections import Counter
from pathlib import Path

import pytest

from panoptic.data.checking import SplitCheck


def check(opened, num_workers=0):
    """The finished check of a split."""
    split = SplitCheck("train", opened)
    for _ in split.read(num_workers):
        pass
    return split


def found(findings):
    """(kind, name of the file) of each finding, counted."""
    return Counter((finding.kind, None if finding.file is None else Path(finding.file).name) for finding in findings)


def train_on(opened):
    """Meet what training meets: open the data set and read every sample."""
    dataset = opened()
    for index in range(len(dataset)):
        dataset[index]


def check_agrees_with_training(opened, expected):
    """The check finds exactly `expected`, and training stops at one of these with the words of the check's own list.

    Args:
        opened: makes the data set.
        expected: {(kind, name of the file): number}.
    """
    split = check(opened)
    assert found(split.errors) == Counter(expected)
    with pytest.raises((ValueError, OSError)) as raised:
        train_on(opened)
    files = [Path(finding.file).name for finding in split.errors]
    assert any(name in str(raised.value) or Path(name).stem in str(raised.value) for name in files)
