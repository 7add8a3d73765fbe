"""Image, truth and prediction side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from panoptic.drawing.legend import PAPER, draw_legend, draw_title, legend_entries
from panoptic.drawing.overlay import blend, enlarge, magnification, text_scale
from panoptic.structures import Category, PanopticMap

_GAP = 6
"""Pixels between panels."""


def comparison(
    image: Tensor,
    truth: PanopticMap,
    prediction: PanopticMap,
    categories: Sequence[Category],
    *,
    opacity: float = 0.6,
) -> NDArray[np.uint8]:
    """Three panels with titles over one legend, which counts the instances of truth / prediction.

    Args:
        image: (3, H, W) uint8, RGB.
        truth: of the same size.
        prediction: of the same size.
        categories: of both maps.
        opacity: of the segments' colours, in [0, 1].

    Returns:
        (H', W', 3) uint8, RGB.
    """
    factor, scale = magnification(image), text_scale(image)
    panels = {
        "image": enlarge(image, factor),
        "truth": blend(image, truth, categories, opacity=opacity, factor=factor),
        "prediction": blend(image, prediction, categories, opacity=opacity, factor=factor),
    }
    columns: list[NDArray[np.uint8]] = []
    for title, panel in panels.items():
        columns.append(np.concatenate([draw_title(title, panel.shape[1], scale), panel]))
        columns.append(np.full((columns[0].shape[0], _GAP, 3), PAPER, np.uint8))
    row = np.concatenate(columns[:-1], axis=1)
    entries = legend_entries([truth, prediction], categories)
    return np.concatenate([row, draw_legend(entries, row.shape[1], scale)])
