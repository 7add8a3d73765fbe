"""The folder of a run: a new one is never an old one, and it holds what is needed to repeat the run."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

RUN_FOLDER_VARIABLE = "PANOPTIC_RUN_FOLDER"
"""Set by the first process of a run for those that it starts."""

PACKAGES = ("panoptic", "torch", "torchvision", "pytorch-lightning", "torchmetrics", "timm", "albumentations", "numpy")


def create_run_folder(chosen: str | None, name: str) -> Path:
    """Make the folder of a new run; a process started by another one of the same run gets that one's.

    Args:
        chosen: a path that must not exist yet; None makes `runs/<name>-<time>`.
        name: of the experiment.

    Raises:
        FileExistsError: the folder is there already.
        OSError: it cannot be written.
    """
    if RUN_FOLDER_VARIABLE in os.environ and "LOCAL_RANK" in os.environ:
        return Path(os.environ[RUN_FOLDER_VARIABLE])
    folder = Path(str(chosen or f"runs/{name}-{datetime.now():%Y%m%d-%H%M%S}")).expanduser().resolve()
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise FileExistsError(f"run folder {folder} exists; a run never overwrites one, choose another run=") from None
    except OSError as error:
        raise OSError(f"cannot make the run folder {folder}: {error.strerror}; choose another run=") from None
    os.environ[RUN_FOLDER_VARIABLE] = str(folder)
    return folder


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder that goes again when the block fails: half of a result is none.

    Raises:
        FileExistsError: the folder is there already.
    """
    folder = folder.expanduser()
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise FileExistsError(f"{folder} exists, and results are never overwritten; choose another out=") from None
    except OSError as error:
        raise OSError(f"cannot make the folder {folder}: {error.strerror}; choose another out=") from None
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder)
        raise


def discard_unstarted(folder: Path) -> None:
    """Remove the folder of a run that failed before it had anything to keep, so that the next try may take its name."""
    kept = [*folder.glob("checkpoints/*"), *folder.glob("metrics.csv"), *folder.glob("pictures/*")]
    if folder.is_dir() and not kept:
        shutil.rmtree(folder)


def record_run(folder: Path, config: Mapping[str, Any]) -> None:
    """Write `config.yaml` (resolved) and `environment.json` (command, git revision, package versions)."""
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=False))
    environment = {
        "command": sys.argv,
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in PACKAGES},
        "seed": config["seed"],
    }
    (folder / "environment.json").write_text(json.dumps(environment, indent=2))


def _git_revision() -> str | None:
    """The revision of the package's source tree, with "+changes" where it differs; None outside of one."""
    source = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes"],
            cwd=source, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
