"""A head that lives outside of the package, as a user's own would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from panoptic.models.heads.base import DenseOutput, Head, Output
from panoptic.structures import Category, Features, Sample


def encode_brightness(sample: Sample) -> Tensor:
    """Mean grey level of the image, in [0, 1]."""
    return sample.image.float().mean() / 255


class OwnHead(Head):
    """Learns how bright an image is."""

    terms = ("brightness",)

    def __init__(self, channels: Mapping[str, int], categories: Sequence[Category]) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels["decoder"], 1, 1)

    @property
    def encode(self) -> Any:
        return encode_brightness

    def forward(self, features: Features, outputs: Mapping[str, Output]) -> DenseOutput:
        return DenseOutput(self.layer(features.levels["decoder"]), features.padded_size)

    def losses(self, output: DenseOutput, features: Features, targets: Sequence[Tensor]) -> dict[str, Tensor]:
        errors = [(value.mean() - target).square() for value, target in zip(output.values, targets, strict=True)]
        return {"brightness": sum(errors) / len(errors)}

    def as_outputs(self, targets: Sequence[Tensor], features: Features) -> DenseOutput:
        raise NotImplementedError("this example is not an oracle")
