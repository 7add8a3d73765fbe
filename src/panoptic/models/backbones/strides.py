"""Another output stride for a timm model that has its weights already."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

_PLAIN = (bool, int, float, str, tuple)


@dataclass(frozen=True)
class StrideChanges:
    """What differs between a model at two output strides, both without weights.

    Attributes:
        attributes: {module: {attribute: its value}}, such as dilations; of modules that both have.
        modules: {module: another one in its place}, such as how a shortcut pools; they have no weights.
        reductions: stride of each level, finest first.
    """

    attributes: dict[str, dict[str, Any]]
    modules: dict[str, nn.Module]
    reductions: list[int]


def find_changes(make: Callable[[int], Any], before: int, after: int) -> StrideChanges:
    """Compare a model with itself: timm knows how its models are dilated, this asks it.

    Args:
        make: the model of an output stride; its weights do not matter.
        before: output stride of the model that will be changed.
        after: the one it gets.

    Raises:
        ValueError: there is more to it than attributes and modules without weights.
    """
    old_model, new_model = make(before), make(after)
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (old_model, new_model)]
    if shapes[0] != shapes[1]:
        names = sorted(name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name))
        raise ValueError(
            f"expected the same weights at output strides {before} and {after}, got others, such as {names[0]}; "
            "train at the one to evaluate at"
        )
    old, new = dict(old_model.named_modules()), dict(new_model.named_modules())
    attributes: dict[str, dict[str, Any]] = {}
    modules: dict[str, nn.Module] = {}
    for name, part in new.items():
        twin = old.get(name)
        if any(name.startswith(f"{place}.") for place in modules):
            continue  # a part of one that is replaced
        if twin is not None and type(twin) is type(part):
            was, becomes = _plain_attributes(twin), _plain_attributes(part)
            different = {key: value for key, value in becomes.items() if was.get(key) != value}
            if different:
                attributes[name] = different
        elif twin is not None and not [*part.state_dict(), *twin.state_dict()]:
            modules[name] = part
        else:
            raise ValueError(
                f"expected the same layers at output strides {before} and {after}, got a {type(part).__name__} for a "
                f"{type(twin).__name__} at {name}; train at the one to evaluate at"
            )
    return StrideChanges(attributes, modules, new_model.feature_info.reduction())


def apply_changes(model: nn.Module, changes: StrideChanges) -> None:
    """Make them, in place."""
    for name, values in changes.attributes.items():
        vars(model.get_submodule(name)).update(values)
    for name, part in changes.modules.items():
        model.set_submodule(name, copy.deepcopy(part).train(model.get_submodule(name).training))


def _plain_attributes(part: nn.Module) -> dict[str, Any]:
    return {key: value for key, value in vars(part).items() if isinstance(value, _PLAIN) and not key.startswith("_")}
