"""From a configuration node to what its `_target_` names, with errors that name the node."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate


def build(node: Any, **arguments: Any) -> Any:
    """Instantiate a node; an error of what is built comes out as it was raised, others with the node's `_target_`.

    Raises:
        ValueError: an unknown `_target_`, an argument that it does not take, or one of the wrong kind.
    """
    try:
        return instantiate(node, **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, (ValueError, OSError)):
            raise cause from None
        raise ValueError(str(error)) from cause


def complete(name: str, node: Any, *arguments: Any) -> Any:
    """Instantiate a node with `_partial_: true` and call it.

    Args:
        name: of the node in the configuration, for errors.
        node: with its `_target_`.
        arguments: what only the program knows.

    Raises:
        ValueError: as `build`, or no `_target_`.
    """
    if "_target_" not in node:
        raise ValueError(f"{name} has no _target_, only {sorted(node)}; choose it by its group, as heads=deeperlab")
    part = build(node)
    try:
        return part(*arguments)
    except TypeError as error:
        raise ValueError(f"{name} ({node['_target_']}): {error}") from error
