"""How much of a network its heads share (OANet, Sec. 4.3, Table 4): ways to make paths of the same parts.

Every function takes what makes the parts: `backbone` without an argument, `decoder` with the backbone's {level: D}, and
for each name a head with those of backbone and decoder together. A backbone has `channels` and `strides` by level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from panoptic.models.decoders.base import Decoder
from panoptic.models.heads.base import Head
from panoptic.models.network import NetworkPath

Channels = Mapping[str, int]
MakeBackbone = Callable[[], nn.Module]
MakeDecoder = Callable[[Channels], Decoder]
MakeHeads = Mapping[str, Callable[[Channels], Head]]


def share_decoder(backbone: MakeBackbone, decoder: MakeDecoder, heads: MakeHeads) -> list[NetworkPath]:
    """One path: all heads read the same features (OANet: "res1-res5 + skip-connection")."""
    return [_path(backbone(), decoder, heads)]


def share_backbone(
    backbone: MakeBackbone, decoder: MakeDecoder, heads: MakeHeads, *, separate: Sequence[str]
) -> list[NetworkPath]:
    """Two paths of one backbone, each with a decoder of its own (OANet: "res1-res5").

    Args:
        backbone: makes the backbone of both.
        decoder: makes the decoder of each.
        heads: make the heads.
        separate: names of the heads of the second path.

    Raises:
        ValueError: `separate` names a head that there is not, or leaves a path without heads.
    """
    parts = _split(heads, separate)
    shared = backbone()
    return [_path(shared, decoder, part) for part in parts]


def share_nothing(
    backbone: MakeBackbone, decoder: MakeDecoder, heads: MakeHeads, *, separate: Sequence[str]
) -> list[NetworkPath]:
    """Two paths that are trained side by side (OANet: "no").

    Args:
        backbone: makes the backbone of each.
        decoder: makes the decoder of each.
        heads: make the heads.
        separate: names of the heads of the second path.

    Raises:
        ValueError: as `share_backbone`.
    """
    return [_path(backbone(), decoder, part) for part in _split(heads, separate)]


def _path(backbone: Any, make_decoder: MakeDecoder, make_heads: MakeHeads) -> NetworkPath:
    decoder = make_decoder(backbone.channels)
    decoder.set_output_stride(backbone.strides["c5"])
    channels = {**backbone.channels, **decoder.channels}
    return NetworkPath(backbone, decoder, {name: make(channels) for name, make in make_heads.items()})


def _split(heads: MakeHeads, separate: Sequence[str]) -> list[MakeHeads]:
    """The heads of the first path, and those of the second."""
    unknown = sorted(set(separate) - set(heads))
    if unknown:
        raise ValueError(f"sharing.separate names {unknown}, but the heads are {sorted(heads)}")
    second = {name: make for name, make in heads.items() if name in separate}
    first = {name: make for name, make in heads.items() if name not in separate}
    if not first or not second:
        raise ValueError(
            f"expected heads on both paths, got sharing.separate={list(separate)} of {sorted(heads)}; "
            "choose sharing=skip_connection for one path"
        )
    return [first, second]
