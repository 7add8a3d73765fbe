"""Parameters and operations of a network, part by part."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class PartSummary:
    """One part of a network.

    Attributes:
        name: of the part.
        parameters: their number; those that an earlier part has too are counted there.
        trainable: of these, the ones with gradients.
        multiply_adds: of convolutions, matrix products and attention in a forward pass; None if not countable.
    """

    name: str
    parameters: int
    trainable: int
    multiply_adds: int | None


def summarize_parts(
    network: nn.Module, parts: Mapping[str, nn.Module], *arguments: Any
) -> tuple[list[PartSummary], str | None]:
    """Count per part, and in total; what belongs to no part makes a part "rest".

    The forward pass of a copy runs on the meta device, in evaluation mode: nothing is computed, so that images of any
    size take a moment.

    Args:
        network: a shared part of it counts once.
        parts: {name: module of the network}, none of them within another.
        arguments: of the network's forward pass; tensors among them on the meta device.

    Returns:
        parts: in their order, "rest" if there is one, and "total".
        reason: why operations were not counted, None if they were.
    """
    counted, total, reason = _multiply_adds(network, parts, arguments)
    seen: set[int] = set()
    rows = []
    for name, part in parts.items():
        own, trainable = _count_parameters(part.parameters(), seen)
        rows.append(PartSummary(name, own, trainable, None if reason else counted[name]))
    own, trainable = _count_parameters(network.parameters(), seen)
    rest = total - sum(counted.values())
    if own or (rest and not reason):
        rows.append(PartSummary("rest", own, trainable, None if reason else rest))
    sums = (sum(row.parameters for row in rows), sum(row.trainable for row in rows))
    return [*rows, PartSummary("total", *sums, None if reason else total)], reason


def model_table(rows: Iterable[PartSummary], image_size: tuple[int, int], reason: str | None = None) -> Table:
    """One line per part.

    Args:
        rows: of `summarize_parts`, the total last.
        image_size: (H, W) that operations were counted at.
        reason: why they were not.
    """
    table = Table(title=f"network, one image of {image_size[0]}x{image_size[1]}", caption_justify="left")
    if reason is not None:
        table.caption = escape(f"multiply-adds cannot be counted: {reason}")
    table.add_column("part")
    for heading in ("parameters", "trainable", "multiply-adds"):
        table.add_column(heading, justify="right")
    rows = list(rows)
    for row in rows:
        if row is rows[-1]:
            table.add_section()
        operations = "-" if row.multiply_adds is None else _short(row.multiply_adds)
        table.add_row(escape(row.name), f"{row.parameters:,}", f"{row.trainable:,}", operations)
    return table


def _multiply_adds(
    network: nn.Module, parts: Mapping[str, nn.Module], arguments: tuple[Any, ...]
) -> tuple[dict[str, int], int, str | None]:
    """Those of each part and of all, and why they cannot be counted, if so."""
    tensors = [*network.parameters(), *network.buffers()]
    copies: dict[int, Any] = {id(tensor): _without_values(tensor) for tensor in tensors}
    copied = copy.deepcopy(network, copies).eval()  # what is in `copies` is taken from there, the rest is put there
    counter = FlopCounterMode(display=False)
    counts = dict.fromkeys(parts, 0)
    for name, part in parts.items():
        _count_within(copies[id(part)], name, counter, counts)
    reason = None
    try:
        with torch.no_grad(), counter:
            copied(*arguments)
    except RuntimeError as error:  # without values, what depends on them raises it or its NotImplementedError
        reason = str(error).splitlines()[0]
    return {name: count // 2 for name, count in counts.items()}, counter.get_total_flops() // 2, reason


def _count_within(part: nn.Module, name: str, counter: FlopCounterMode, counts: dict[str, int]) -> None:
    """Add to `counts[name]` what the counter counts while the part runs."""

    def begin(*_: Any) -> None:
        counts[name] -= counter.get_total_flops()

    def end(*_: Any) -> None:
        counts[name] += counter.get_total_flops()

    part.register_forward_pre_hook(begin)
    part.register_forward_hook(end)


def _without_values(tensor: Tensor) -> Tensor:
    """The tensor on the meta device."""
    shape = tensor.detach().to("meta")
    return nn.Parameter(shape, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else shape


def _count_parameters(parameters: Iterable[nn.Parameter], seen: set[int]) -> tuple[int, int]:
    """(all, trainable) of those not seen yet, which then are."""
    new = [parameter for parameter in parameters if id(parameter) not in seen]
    seen.update(id(parameter) for parameter in new)
    return sum(p.numel() for p in new), sum(p.numel() for p in new if p.requires_grad)


def _short(count: int) -> str:
    """Three digits and a unit: 1234 is "1.23 K"."""
    number, unit = float(count), ""
    for larger in ("K", "M", "G", "T"):
        if number < 999.5:
            break
        number, unit = number / 1000, f" {larger}"
    return f"{number:#.3g}".rstrip(".") + unit if unit else str(count)
