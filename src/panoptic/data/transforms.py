"""Augmentation of image, panoptic map and instance masks together, decided by a seed alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from panoptic.data.extents import measure_segments
from panoptic.data.masks import mask_boxes, stack_masks
from panoptic.structures import VOID, ImageStatistics, Instances, PanopticMap, Sample

# Read when albumentations is imported: without it the import asks the network for a newer version
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A

# Nearest neighbour between pixel centres, as the image is resized; plain INTER_NEAREST is up to half a pixel off
_NEAREST = cv2.INTER_NEAREST_EXACT


def mean_colour(statistics: ImageStatistics) -> tuple[int, int, int]:
    """The mean as (red, green, blue), each 0..255: the colour of padding."""
    red, green, blue = (round(255 * channel) for channel in statistics.mean)
    return red, green, blue


@dataclass(frozen=True)
class TrainTransform:
    """Longest side to a given length, random scale, crop, horizontal flip and colour, in this order.

    Args:
        size: (H, W) of the crop in pixels; what lies outside the image is void, in the mean colour.
        scale: range of the factor by which both sides are resized, uniform.
        flip: probability of the horizontal flip.
        colour: factors of brightness, contrast and saturation are uniform in 1 - colour .. 1 + colour, and the hue
            turns by at most a quarter of `colour` of the circle; 0 leaves colours alone.
        image_statistics: whose mean is the colour of padding.
        longest_side: to which the image is resized first, in pixels; None keeps its size (DeeperLab, Sec. 4: 1441).
    """

    size: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    colour: float = 0.3
    image_statistics: ImageStatistics = field(default_factory=ImageStatistics)
    longest_side: int | None = None
    _compose: A.Compose = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        height, width = self.size
        if min(height, width) < 1:
            raise ValueError(f"expected a crop size of at least 1x1 pixels, got {height}x{width}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"expected a scale range of two positive numbers in order, got {tuple(self.scale)}")
        if not 0 <= self.flip <= 1 or not 0 <= self.colour <= 1:
            raise ValueError(f"expected flip and colour in 0..1, got {self.flip} and {self.colour}")
        limit = (self.scale[0] - 1, self.scale[1] - 1)
        steps: list[A.BasicTransform] = [] if self.longest_side is None else [_longest_side(self.longest_side)]
        steps += [
            A.RandomScale(limit, mask_interpolation=_NEAREST, area_for_downscale="image", p=1),
            A.RandomCrop(height, width, pad_if_needed=True, pad_position="top_left", fill_mask=VOID),
            A.HorizontalFlip(p=self.flip),
        ]
        if self.colour > 0:
            factors = (1 - self.colour, 1 + self.colour)
            steps.append(A.ColorJitter(factors, factors, factors, hue=self.colour / 4, p=1))
        object.__setattr__(self, "_compose", A.Compose(steps, additional_targets={"inside": "mask"}))

    def __call__(self, sample: Sample, seed: int) -> Sample:
        """The augmented sample, always of `size`; ids survive, segments without pixels leave the table.

        Args:
            sample: its ground truth may be None.
            seed: decides everything.
        """
        return _apply(self._compose, sample, seed, mean_colour(self.image_statistics))


@dataclass(frozen=True)
class EvalTransform:
    """Nothing random: the longest side is resized to a given length, or nothing happens.

    Args:
        longest_side: in pixels; None keeps the image's size.
    """

    longest_side: int | None = None
    _compose: A.Compose = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        steps = [] if self.longest_side is None else [_longest_side(self.longest_side)]
        object.__setattr__(self, "_compose", A.Compose(steps, additional_targets={"inside": "mask"}))

    def __call__(self, sample: Sample, seed: int = 0) -> Sample:
        """The resized sample; `seed` is there because every transform takes one."""
        if self.longest_side is None or max(sample.size) == self.longest_side:
            return sample
        return _apply(self._compose, sample, seed, (0, 0, 0))


@dataclass(frozen=True)
class WholeImageTransform:
    """The whole image, resized by its sides and perhaps flipped, without a crop: as detectors are trained and scored.

    Args:
        short_side: to which the shorter side is resized, in pixels; None keeps the image's size. 800 in Mask R-CNN.
        long_side: the longer side is at most this; the shorter one then falls short. None is no limit. 1333.
        scale: range of a further factor of both sides, uniform.
        flip: probability of the horizontal flip; 0 with one scale leaves nothing random, for evaluation.
    """

    short_side: int | None = 800
    long_side: int | None = 1333
    scale: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.0

    def __post_init__(self) -> None:
        if any(side is not None and side < 1 for side in (self.short_side, self.long_side)):
            raise ValueError(f"expected sides of at least 1 pixel, got {self.short_side} and {self.long_side}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"expected a scale range of two positive numbers in order, got {tuple(self.scale)}")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"expected flip in 0..1, got {self.flip}")

    def __call__(self, sample: Sample, seed: int = 0) -> Sample:
        """The resized sample; `seed` decides scale and flip."""
        factor = 1.0 if self.short_side is None else self.short_side / min(sample.size)
        if self.long_side is not None:
            factor = min(factor, self.long_side / max(sample.size))
        generator = np.random.default_rng(seed)
        factor *= generator.uniform(*self.scale)
        height, width = (max(1, round(factor * side)) for side in sample.size)
        steps: list[A.BasicTransform] = [A.HorizontalFlip(p=float(generator.random() < self.flip))]
        if (height, width) != sample.size:
            steps.append(A.Resize(height, width, mask_interpolation=_NEAREST, area_for_downscale="image"))
        return _apply(A.Compose(steps, additional_targets={"inside": "mask"}), sample, seed, (0, 0, 0))


def _longest_side(length: int) -> A.LongestMaxSize:
    """The step that brings the longest side to `length` pixels."""
    if length < 1:
        raise ValueError(f"expected a longest side of at least 1 pixel, got {length}")
    return A.LongestMaxSize(length, mask_interpolation=_NEAREST, area_for_downscale="image")


def _apply(compose: A.Compose, sample: Sample, seed: int, padding: tuple[int, int, int]) -> Sample:
    """Run image and ground truth through one composition and bring the tables up to date."""
    # Compose.set_random_seed would give every step the same seed, and so the crop's position would follow the scale
    seeds = np.random.SeedSequence(seed).generate_state(len(compose.transforms)).tolist()
    for step, step_seed in zip(compose.transforms, seeds, strict=True):
        step.set_random_seed(step_seed)
    image = np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())  # (H, W, 3)
    arrays: dict[str, Any] = {"image": image, "inside": np.ones(image.shape[:2], dtype=np.uint8)}
    if sample.panoptic_map is not None:
        arrays["mask"] = sample.panoptic_map.segment_ids.numpy().astype(np.int32)  # OpenCV has no int64
    if sample.instances is not None and len(sample.instances.masks):
        arrays["masks"] = list(sample.instances.masks.numpy().astype(np.uint8))
    arrays = compose(**arrays)
    image = _painted_outside(arrays["image"], arrays["inside"], padding)
    panoptic_map, instances = sample.panoptic_map, sample.instances
    size = (image.shape[0], image.shape[1])
    return replace(
        sample,
        image=torch.from_numpy(image).permute(2, 0, 1),  # (3, H, W), laid out in memory as it was decoded
        panoptic_map=None if panoptic_map is None else _updated_map(panoptic_map, arrays["mask"]),
        instances=None if instances is None else _updated_instances(instances, arrays.get("masks", ()), size),
    )


def _painted_outside(
    image: NDArray[np.uint8], inside: NDArray[np.uint8], padding: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """The image (H, W, 3) with the colour of padding outside the rectangle where `inside` (H, W) is not 0."""
    x, y, width, height = cv2.boundingRect(inside)
    below, right = inside.shape[0] - y - height, inside.shape[1] - x - width
    kept = image[y : y + height, x : x + width]
    return cv2.copyMakeBorder(kept, y, below, x, right, cv2.BORDER_CONSTANT, value=padding)  # type: ignore[return-value]


def _updated_map(before: PanopticMap, segment_ids: NDArray[np.int32]) -> PanopticMap:
    """The map after a transform: segments without pixels left out, areas counted again."""
    ids = segment_ids.astype(np.int64)
    areas = measure_segments(ids, [segment.id for segment in before.segments]).areas.tolist()
    segments = [replace(s, area=area) for s, area in zip(before.segments, areas, strict=True) if area > 0]
    return PanopticMap(torch.from_numpy(ids), segments)


def _updated_instances(before: Instances, masks: Sequence[NDArray[np.uint8]], size: tuple[int, int]) -> Instances:
    """The instances after a transform: empty ones left out, boxes around what is left of the masks."""
    kept = [number for number, mask in enumerate(masks) if mask.any()]
    rows = torch.tensor(kept, dtype=torch.int64)
    stacked = stack_masks([masks[number] for number in kept], size)
    return Instances(
        category_ids=before.category_ids[rows],
        masks=stacked,
        boxes=mask_boxes(stacked),
        scores=before.scores[rows],
        is_crowd=before.is_crowd[rows],
    )
