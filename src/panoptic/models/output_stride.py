"""Another output stride for a network that has its weights already (DeepLabv3, Sec. 3.1)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from panoptic.models.joined import Network


@runtime_checkable
class Strided(Protocol):
    """A part whose strides and rates can change without its parameters.

    Attributes:
        output_stride: of "c5", in pixels.
    """

    output_stride: int

    def set_output_stride(self, stride: int) -> None:
        """Change it, or raise a ValueError and change nothing."""


def output_stride_of(network: Network) -> int:
    """Stride of "c5" in pixels.

    Raises:
        ValueError: several backbones of different strides, or one that does not say.
    """
    strides = sorted({part.output_stride for part in _backbones(network)})
    if len(strides) != 1:
        raise ValueError(f"expected backbones of one output stride, got {strides}")
    return strides[0]


def set_output_stride(network: Network, stride: int) -> None:
    """Change strides and rates of every backbone, and what follows them in every decoder; no parameter changes.

    Args:
        network: on any device, changed in place; it keeps its mode and its state dict.
        stride: of "c5", in pixels.

    Raises:
        ValueError: a backbone cannot have this stride or a decoder not read it: feature pyramids, and with them all
            detection heads, are tied to 32, space to depth to 16. Nothing is changed.
    """
    decoders = {id(path.decoder): path.decoder for path in network.paths}
    changed: list[tuple[Strided, int]] = []
    try:
        for part in (*decoders.values(), *_backbones(network)):
            before = part.output_stride
            part.set_output_stride(stride)
            changed.append((part, before))
    except ValueError:
        for part, before in changed:
            part.set_output_stride(before)
        raise


def _backbones(network: Network) -> list[Strided]:
    """Each once."""
    found: list[Strided] = []
    for backbone in {id(path.backbone): path.backbone for path in network.paths}.values():
        if not isinstance(backbone, Strided):
            raise ValueError(
                f"{type(backbone).__name__} has one output stride; give it output_stride and set_output_stride(stride)"
            )
        found.append(backbone)
    return found
