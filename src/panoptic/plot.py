"""`panoptic plot`: gradients of tasks over a training (OANet, Fig. 5), their cosines and weights, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from panoptic.configuration import parse_overrides, resolved

# The import within a function takes a second; without it `--help` answers at once.


def main(argv: Sequence[str]) -> int:
    """Draw as configured; returns the exit status."""
    composed = parse_overrides("plot", "Draw gradients, cosines and weights of tasks over a training.", argv)
    if composed is None:
        return 0
    config = resolved(composed)
    run = Path(str(config["run"])).expanduser()
    tasks, window = config["tasks"], config["window"]
    if window is not None and (type(window) is not int or window < 1):
        raise ValueError(f"expected window=null or a whole number of at least 1, got {window!r}")
    path = find_gradients(run)

    from panoptic.analysis.gradient_figures import cosine_figure, gradient_figure, read_gradients, weight_figure

    log = read_gradients(path, [tasks] if isinstance(tasks, str) else tasks)
    level = level_of(run)
    features = "the features that heads share" if level is None else level
    figures = {
        "gradients": gradient_figure(log, features=features, window=window),
        "cosines": cosine_figure(log, features=features, window=window),
        "weights": weight_figure(log),
    }
    folder = run / "plots" if config["out"] is None else Path(str(config["out"])).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png")
    print(f"{len(log.steps)} steps of {', '.join(log.tasks)}: {', '.join(figures)} in {folder}")
    return 0


def find_gradients(run: Path) -> Path:
    """The `gradients.csv` of a run.

    Raises:
        FileNotFoundError: there is no such folder, or no such file in it.
    """
    if not run.is_dir():
        raise FileNotFoundError(f"run={run}: no such folder")
    path = run / "gradients.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{run} has no gradients.csv; train with callbacks=gradient_telemetry")
    return path


def level_of(run: Path) -> str | None:
    """The level whose gradients a run measured, by its `config.yaml`; None for what heads share."""
    path = run / "config.yaml"
    config: dict[str, Any] = yaml.safe_load(path.read_text()) if path.is_file() else {}
    node = (config.get("callbacks") or {}).get("gradient_telemetry") or {}
    return None if node.get("level") is None else str(node["level"])
