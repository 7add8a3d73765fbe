"""Images with ground truth, batches of them, and the features a network makes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from panoptic.structures.instances import Instances
from panoptic.structures.panoptic_map import PanopticMap


@dataclass(eq=False)
class Sample:
    """One image with its ground truth.

    Args:
        image: (3, H, W) uint8, RGB.
        image_id: the data set's id of the image, as its files give it.
        file_name: as the data set's own files give it, with folders; predictions are named after it. Drawn images get
            a made-up name.
        panoptic_map: ground truth of the same size; None for images that are only predicted.
        instances: overlapping masks of the same size, where the data set has them.
        original_size: (H, W) in pixels before any transform.
        seed: of what is random in this epoch beside the augmentation, such as which boxes a loss samples.
    """

    image: Tensor
    image_id: int | str
    file_name: str
    panoptic_map: PanopticMap | None
    instances: Instances | None
    original_size: tuple[int, int]
    seed: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return int(self.image.shape[-2]), int(self.image.shape[-1])


@dataclass(frozen=True)
class ImageStatistics:
    """Mean and standard deviation per colour channel, of pixel values in [0, 1]; ImageNet's by default."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class SizeRule:
    """Image sizes a network takes: `multiple * k + remainder` pixels, each side (16k + 1 for DeeperLab, Sec. 4)."""

    multiple: int = 1
    remainder: int = 0

    def pad(self, height: int, width: int) -> tuple[int, int]:
        """The smallest allowed size that holds (height, width)."""
        padded = [side + (self.remainder - side) % self.multiple for side in (height, width)]
        return padded[0], padded[1]


@dataclass(eq=False)
class Batch:
    """Samples brought to one size.

    Args:
        images: (B, 3, H, W) uint8, padded at the bottom and right.
        image_sizes: (h, w) of each image before padding.
        targets: {head: one target per image}, what each head's `encode` returned.
        samples: the images as the network sees them, with ground truth of that size, for pictures and names.
        truths: the untouched ground truth of each image at its original size, for metrics; empty in training.
        truth_instances: its instances of the same size, where the data set has its own; empty in training.
    """

    images: Tensor
    image_sizes: list[tuple[int, int]]
    targets: dict[str, list[Any]]
    samples: list[Sample]
    truths: list[PanopticMap] = field(default_factory=list)
    truth_instances: list[Instances | None] = field(default_factory=list)

    @property
    def padded_size(self) -> tuple[int, int]:
        """(H, W) of `images` in pixels."""
        return int(self.images.shape[-2]), int(self.images.shape[-1])


@dataclass(eq=False)
class Features:
    """What heads read.

    Args:
        levels: {"c2".."c5", "p2".."p6", "decoder": (B, D, h, w)}; at output stride 16 two levels share one stride.
        image_sizes: (h, w) of each image before padding, in pixels of the network's input.
        padded_size: (H, W) of the network's input.
    """

    levels: dict[str, Tensor]
    image_sizes: list[tuple[int, int]]
    padded_size: tuple[int, int]
