"""Maps drawn as text: one letter a segment, '.' void."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from panoptic.structures import PanopticMap, Segment


def draw(*rows: str, categories: Mapping[str, int] | None = None, crowd: str = "", first_id: int = 1) -> PanopticMap:
    """A panoptic map from rows of letters.

    Args:
        rows: equally long; '.' is void, every other letter one segment, numbered in order of the alphabet.
        categories: {letter: category_id}; a letter that is not listed has category 0.
        crowd: letters of crowd segments.
        first_id: segment id of the first letter; give another to show that ids do not matter.
    """
    letters = sorted(set("".join(rows)) - {"."})
    ids = {letter: first_id + number for number, letter in enumerate(letters)}
    segment_ids = torch.tensor([[ids.get(letter, 0) for letter in row] for row in rows])
    segments = [
        Segment(
            id=ids[letter],
            category_id=(categories or {}).get(letter, 0),
            is_crowd=letter in crowd,
            area=int((segment_ids == ids[letter]).sum()),
        )
        for letter in letters
    ]
    return PanopticMap(segment_ids, segments)
