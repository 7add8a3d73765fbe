"""Going on with a run: from which checkpoint, and whether the configuration is still the one that wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panoptic.checkpoints import newest_checkpoint, read_checkpoint

FREE_KEYS = (
    "run",
    "resume",
    "accept_changes",
    "checkpoint_every",
    "init_from",
    "pictures",
    "logger",
    "data.num_workers",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.profiler",
    "trainer.log_every_n_steps",
)
"""What may differ: where and how a run is made and shown, not what it computes; weights to begin with are not read."""


@dataclass(frozen=True)
class ResumePoint:
    """Where a run goes on.

    Args:
        path: of the checkpoint.
        global_step: optimizer steps that it holds.
        loggers: how far they have come.
    """

    path: Path
    global_step: int
    loggers: dict[str, Any]


def find_resume_point(config: Mapping[str, Any]) -> ResumePoint | None:
    """The checkpoint that `resume=` asks for; None for a new run.

    Args:
        config: resolved; `resume` is None, "auto" (the newest one of the folder `run` that can be read, if there is
            any) or a path.

    Raises:
        ValueError: "auto" without `run`, a checkpoint that cannot be read, or one of another configuration.
    """
    choice = config["resume"]
    if choice is None:
        return None
    if choice == "auto":
        if config["run"] is None:
            raise ValueError("resume=auto needs the run's folder; give run=")
        found = newest_checkpoint(config["run"])
        if found is None:
            return None
        path, content = found
    else:
        path = Path(choice).expanduser()
        content = read_checkpoint(path)
    _check_same(path, content["panoptic"]["config"], config)
    return ResumePoint(path, int(content["global_step"]), dict(content["loggers"]))


def _check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ValueError where the configurations differ, unless told to accept it."""
    old, new = dict(_flat(before)), dict(_flat(now))
    changed = [key for key in {**old, **new} if old.get(key, _ABSENT) != new.get(key, _ABSENT) and not _is_free(key)]
    lines = [f"  {key}: {old.get(key, _ABSENT)} -> {new.get(key, _ABSENT)}" for key in changed]
    if not lines:
        return
    difference = "\n".join([f"{path} was written with another configuration (then -> now):", *lines])
    if not now["accept_changes"]:
        raise ValueError(f"{difference}\ngive the values of then, or accept_changes=true to go on with those of now")
    print(difference)


_ABSENT = "(not there)"


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE_KEYS)


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf."""
    if not isinstance(node, Mapping) or not node:
        yield prefix.removesuffix("."), node
        return
    for key, value in node.items():
        yield from _flat(value, f"{prefix}{key}.")
