"""The trials of a sweep that W&B's agents ran, read from its server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from panoptic.sweeps.ledger import Trial

if TYPE_CHECKING:
    from wandb.apis.public import Api, Run, Sweep

_STATES = {
    "pending": "pending",
    "preempting": "pending",
    "preempted": "pending",
    "running": "running",
    "finished": "done",
    "failed": "failed",
    "crashed": "failed",
    "killed": "stopped",
}


def read_project(path: str, name: str, parameters: Mapping[str, Mapping[str, Any]]) -> list[Trial]:
    """The runs of a sweep as trials, the oldest first.

    Args:
        path: entity/project, or entity/project/sweep with the sweep's id.
        name: of the sweep, which finds it in the project where its id is not given.
        parameters: of the sweep file.

    Raises:
        ValueError: W&B cannot be reached, nobody is logged in, or it has no such sweep.
    """
    parts = path.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise ValueError(f"expected --wandb entity/project or entity/project/sweep, got {path!r}")
    import wandb
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    try:
        api = wandb.Api()
        sweep: Sweep = cast(Any, api).sweep(path) if len(parts) == 3 else _sweep_named(name, api, *parts)
        return [_as_trial(number, run, parameters) for number, run in enumerate(sweep.runs, start=1)]
    except (wandb.Error, WandbApiFailedError, OSError) as error:
        raise ValueError(
            f"cannot read {path} from W&B: {' '.join(str(error).split())}; "
            "log in with wandb login, or leave --wandb out for the trials of this machine"
        ) from None


def _sweep_named(name: str, api: Api, entity: str, project: str) -> Sweep:
    sweeps = list(api.project(project, entity).sweeps())
    found = [sweep for sweep in sweeps if sweep.config.get("name") == name]
    if not found:
        names = sorted({str(sweep.config.get("name")) for sweep in sweeps})
        raise ValueError(f"{entity}/{project} has no sweep with the name {name}; there are {names}")
    if len(found) > 1:
        ids = ", ".join(f"{entity}/{project}/{sweep.id}" for sweep in found)
        raise ValueError(f"{entity}/{project} has {len(found)} sweeps with the name {name}; choose one of {ids}")
    return found[0]


def _as_trial(number: int, run: Run, parameters: Mapping[str, Mapping[str, Any]]) -> Trial:
    if run.state not in _STATES:
        raise ValueError(f"run {run.id} has the unknown state {run.state!r}; expected one of {sorted(_STATES)}")
    missing = [name for name in parameters if name not in run.config]
    if missing:
        raise ValueError(f"run {run.id} has no parameter {missing[0]}; it is a trial of another sweep file")
    chosen = {name: _as_listed(run.config[name], node) for name, node in parameters.items()}
    values = {name: _as_float(value) for name, value in run.summary_metrics.items()}
    metrics = {name: value for name, value in values.items() if value is not None}
    return Trial(number, _STATES[run.state], chosen, 1, metrics=metrics)


def _as_listed(value: Any, node: Mapping[str, Any]) -> Any:
    """The equal value of the sweep file: 1.0 may come back from the server as 1."""
    return next((listed for listed in node.get("values", ()) if listed == value), value)


def _as_float(value: Any) -> float | None:
    """A number; None for what is none, such as a picture. W&B writes those that JSON does not know as texts."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else None
