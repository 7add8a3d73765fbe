"""What `panoptic train` adds to a checkpoint, and how it is found and read again."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from panoptic.structures import Category, ImageStatistics

CHECKPOINT_FORMAT = 2
"""Version of what is added. 2: positions of the loggers in `checkpoint["loggers"]`."""


def entry_of(config: Mapping[str, Any], categories: Sequence[Category], statistics: ImageStatistics) -> dict[str, Any]:
    """Everything that a later evaluation needs beside the weights, for `checkpoint["panoptic"]`."""
    return {
        "format": CHECKPOINT_FORMAT,
        "config": dict(config),
        "categories": [asdict(category) for category in categories],
        "statistics": asdict(statistics),
    }


def find_checkpoint(run: str | Path, choice: str = "best") -> Path:
    """The checkpoint of a run folder.

    Args:
        run: the folder.
        choice: "best" (by its `monitor`), "last", or a path.

    Raises:
        FileNotFoundError: no such folder or checkpoint; the message lists what there is.
    """
    folder = Path(run).expanduser()
    path = folder / "checkpoints" / f"{choice}.ckpt" if choice in ("best", "last") else Path(choice).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"run folder {folder} does not exist")
    if not path.is_file():
        there = sorted(str(found) for found in folder.glob("checkpoints/*.ckpt"))
        raise FileNotFoundError(f"checkpoint {path} does not exist; the run has {there}")
    return path


def newest_checkpoint(run: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint of a run folder with the most steps that can be read, and its content; None if there is none.

    `best.ckpt` is left out, it was saved in a validation. A file that cannot be read is named in a warning.
    """
    folder = Path(run).expanduser() / "checkpoints"
    newest: tuple[Path, dict[str, Any]] | None = None  # one at a time: they may be large
    for path in [*sorted(folder.glob("step_*.ckpt")), folder / "last.ckpt"]:
        if path.is_file():
            try:
                content = read_checkpoint(path)
            except ValueError as error:
                warnings.warn(f"left out on resuming: {error}", stacklevel=2)
                continue
            if newest is None or content["global_step"] > newest[1]["global_step"]:
                newest = path, content
    return newest


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint of `panoptic train`, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, not a checkpoint of this package, or one of a later format.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a checkpoint, or only a part of one: {path.stat().st_size} bytes")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        content = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as a checkpoint: {error or type(error).__name__}") from None
    if damaged:
        raise ValueError(f"{path} is damaged: the check sum of {damaged} is wrong; take another checkpoint")
    if not isinstance(content, dict) or "panoptic" not in content:
        raise ValueError(f"{path} is not a checkpoint of this package: it has no entry 'panoptic'")
    missing = {"format", "config", "categories", "statistics"} - set(content["panoptic"])
    if missing or "state_dict" not in content:
        raise ValueError(f"{path} is not a checkpoint of this package: it lacks {sorted(missing) or 'weights'}")
    return _migrated(content, path)


def _migrated(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The content in the present format."""
    found = content["panoptic"]["format"]
    if found not in range(1, CHECKPOINT_FORMAT + 1):
        raise ValueError(
            f"{path} has checkpoint format {found}, expected 1 to {CHECKPOINT_FORMAT}; "
            "use the version of the package that wrote it"
        )
    if found == 1:
        content["loggers"] = {}  # not known: a resumed run begins new files
    content["panoptic"]["format"] = CHECKPOINT_FORMAT
    return content


def load_weights(module: nn.Module, content: Mapping[str, Any], path: str | Path, prefix: str = "") -> None:
    """Put a checkpoint's weights into a module.

    Args:
        module: of the checkpoint's configuration.
        content: what `read_checkpoint` gave.
        path: for errors.
        prefix: of the names that are loaded, such as "network."; others are left out.

    Raises:
        ValueError: the weights do not fit.
    """
    state = {key.removeprefix(prefix): value for key, value in content["state_dict"].items() if key.startswith(prefix)}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit the network of its configuration: {error}") from None


def categories_of(content: Mapping[str, Any]) -> list[Category]:
    """The categories that a checkpoint was trained on."""
    return [
        Category(**{**entry, "colour": None if entry["colour"] is None else tuple(entry["colour"])})
        for entry in content["panoptic"]["categories"]
    ]


def without_weights(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without its sources of weights: those of the checkpoint replace them."""
    backbone = {**config["backbone"], "pretrained": False, "checkpoint": None}
    return {**config, "backbone": backbone, "init_from": None}
