"""Which losses are balanced as one task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

Patterns = Mapping[str, str | Sequence[str]]


def group_losses(
    tasks: str | Patterns, losses_of_heads: Mapping[str, Sequence[str]], *, option: str = "balancing.tasks"
) -> dict[str, list[str]]:
    """The losses of each task; tasks ascend by name, so that no result depends on the order of heads.

    Args:
        tasks: "head" makes a task of every head, "loss" of every loss, and {task: patterns} of the losses that one of
            the patterns takes, in the way of file names: `instances_*`.
        losses_of_heads: {head: names of its losses}.
        option: key of the configuration that `tasks` comes from, for errors.

    Raises:
        ValueError: a loss that no task takes or that several take, or a pattern that takes none.
    """
    names = [name for losses in losses_of_heads.values() for name in losses]
    if tasks == "head":
        groups = {head: list(losses) for head, losses in losses_of_heads.items() if losses}
    elif tasks == "loss":
        groups = {name: [name] for name in names}
    elif isinstance(tasks, str):
        raise ValueError(f'expected {option} "head", "loss" or {{task: [patterns]}}, got {tasks!r}')
    else:
        groups = {str(task): _taken(f"{option}.{task}", patterns, names) for task, patterns in tasks.items()}
        _check_each_once(groups, names, option)
    return dict(sorted(groups.items()))


def _taken(option: str, patterns: str | Sequence[str], names: Sequence[str]) -> list[str]:
    """The losses that at least one pattern takes, in the order of `names`."""
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    useless = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]
    if useless or not patterns:
        raise ValueError(f"{option}={patterns}: no loss for {useless or 'an empty list'} in {list(names)}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _check_each_once(groups: Mapping[str, Sequence[str]], names: Sequence[str], option: str) -> None:
    takers = {name: [task for task, losses in groups.items() if name in losses] for name in names}
    left = [name for name, tasks in takers.items() if not tasks]
    if left:
        raise ValueError(f"{option}: no task of {list(groups)} takes {left}; add a pattern that does")
    twice = {name: tasks for name, tasks in takers.items() if len(tasks) > 1}
    if twice:
        raise ValueError(f"{option}: expected each loss in one task, got {twice}")
