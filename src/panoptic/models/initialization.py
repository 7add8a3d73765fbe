"""Weights to begin with: of torchvision's Mask R-CNN, or of another run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from panoptic.models.network import PanopticNetwork
from panoptic.models.weight_files import read_tensors

_NAMES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^_parts\.\d+\.", ""),
    (r"^decoder\.pyramid\.", "backbone.fpn."),
    (r"^decoder\.rpn_features\.0\.", "rpn.head.conv.0.0."),
    (r"^heads\.\w+\.(rpn\.head|roi_heads)\.", r"\1."),
    # before torchvision 0.13, also in the weights it offers for download
    (r"\b((?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
    (r"\brpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
    (r"\bmask_head\.mask_fcn(\d+)\.(weight|bias)$", lambda match: f"mask_head.{int(match[1]) - 1}.0.{match[2]}"),
)
"""(pattern, what replaces it), one after another: from a name in a network of ours, or in a file, to torchvision's."""

_SHOWN = 8
"""Names that the report lists of each kind: as many as the last layers of Mask R-CNN have, and some more."""


def initialize_from(network: PanopticNetwork, path: str | Path) -> str:
    """Put the weights of a file into a network, where names and shapes match; the rest keeps its values.

    A tensor goes to the one of the same name; else to all whose name at torchvision it has: so two backbones of one
    network begin alike, and the convolution of the RPN may have moved into the decoder. Channels of classes are taken
    as they come: where the number of classes is the same, so must be their order.

    Args:
        network: in which weights are replaced.
        path: a state dict of torchvision's `maskrcnn_resnet50_fpn`, or a checkpoint of `panoptic train`.

    Returns:
        How many tensors were loaded, and which were not: those of another shape, such as the last layers for another
            number of classes, those the file lacks, and those of the file that nothing takes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read, or nothing in it matches.
    """
    path = Path(path).expanduser()
    tensors = read_tensors(path, "init_from:")
    of_network = {name.removeprefix("network."): tensors[name] for name in tensors if name.startswith("network.")}
    found = of_network or tensors  # a checkpoint of ours also has what is not the network's
    by_common_name = {_common_name(name): name for name in reversed(found)}  # of several, the first
    own = network.state_dict()
    sources = {name: name if name in found else by_common_name.get(_common_name(name)) for name in own}
    matched = {name: source for name, source in sources.items() if source is not None}
    fitting = {name: source for name, source in matched.items() if found[source].shape == own[name].shape}
    if not fitting:
        raise ValueError(
            f"init_from: none of the {len(found)} tensors in {path} (such as {next(iter(found), None)!r}) matches one "
            f"of the network (such as {next(iter(own))!r}); backbone.checkpoint= takes weights of a backbone alone"
        )
    network.load_state_dict({name: found[source] for name, source in fitting.items()}, strict=False)
    misfits = [
        f"{name} {tuple(found[source].shape)} into {tuple(own[name].shape)}"
        for name, source in matched.items()
        if name not in fitting
    ]
    missing = [name for name in own if name not in matched and not name.endswith("num_batches_tracked")]
    unused = sorted(set(found) - set(matched.values()))
    return (
        f"weights from {path}: {len(fitting)} of {len(own)} tensors loaded; {len(misfits)} of another shape left as "
        f"they were {_listed(misfits)}; {len(missing)} not in the file {_listed(missing)}; "
        f"{len(unused)} of the file unused {_listed(unused)}"
    )


def _common_name(name: str) -> str:
    """What torchvision calls a tensor; what it does not have keeps its name."""
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _listed(names: list[str]) -> str:
    return f"[{', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}]"
