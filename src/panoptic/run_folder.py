"""The folder of a run: a new one is never an old one, and it holds what is needed to repeat the run."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import socket
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


@contextmanager
def open_run_folder(chosen: str | Path | None, name: str, *, exists: bool = False) -> Iterator[Path]:
    """The folder of a run, held against other runs within the block. The first process makes it, the others are told.

    One that was made here goes again if the block fails before there is anything to keep; one that was there stays.

    Args:
        chosen: a path; None makes `runs/<name>-<time>`, or `runs/<name>-<id>` in a job of SLURM or a trial of W&B.
        name: of the experiment.
        exists: the folder may be there already.

    Raises:
        FileExistsError: the folder is there already, or another run holds it.
        ValueError: several processes were started from outside, and have no folder to agree on.
        OSError: it cannot be written.
    """
    if "LOCAL_RANK" in os.environ and RUN_FOLDER_VARIABLE in os.environ:  # started by the first process
        yield Path(os.environ[RUN_FOLDER_VARIABLE])
        return
    folder = Path(str(chosen or _new_name(name))).expanduser().resolve()
    if _is_started_as_other_rank():
        yield folder
        return
    is_new = not folder.exists()
    _make(folder, exists=exists, instead="a run never overwrites one; go on with resume=auto, or choose another run=")
    os.environ[RUN_FOLDER_VARIABLE] = str(folder)
    try:
        with _held(folder):
            yield folder
    except Exception:
        if is_new:
            _discard_unstarted(folder)
        raise
    finally:
        os.environ.pop(RUN_FOLDER_VARIABLE, None)  # another run of this process has its own


def _is_started_as_other_rank() -> bool:
    """Whether torchrun, SLURM or a user with one command per node started this process as another than the first."""
    return any(os.environ.get(key, "0") != "0" for key in ("RANK", "SLURM_PROCID", "NODE_RANK"))


def _new_name(name: str) -> str:
    if "WANDB_RUN_ID" in os.environ:  # a trial of a W&B agent, of which a job may run several
        return f"runs/{name}-{os.environ['WANDB_RUN_ID']}"
    if "SLURM_JOB_ID" in os.environ:
        return f"runs/{name}-{os.environ['SLURM_JOB_ID']}"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or "NODE_RANK" in os.environ:
        raise ValueError("several processes cannot agree on a name made of the time; give run=")
    return f"runs/{name}-{datetime.now():%Y%m%d-%H%M%S}"


def _make(folder: Path, *, exists: bool, instead: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=exists)
    except FileExistsError:
        raise FileExistsError(f"{folder} exists; {instead}") from None
    except OSError as error:
        raise OSError(f"cannot make the folder {folder}: {error.strerror}; choose another") from None


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system lets go when this process ends, however it ends."""
    with (folder / ".lock").open("a+") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise FileExistsError(
                f"{folder} is in use by another run ({lock.read().strip()}); end that one, or choose another run="
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder that goes again when the block fails: half of a result is none.

    Raises:
        FileExistsError: the folder is there already.
    """
    folder = folder.expanduser()
    _make(folder, exists=False, instead="results are never overwritten; choose another out=")
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder)
        raise


def _discard_unstarted(folder: Path) -> None:
    """Remove the folder of a run that failed before it had anything to keep, so that the next try may take its name."""
    kept = [*folder.glob("checkpoints/*"), *folder.glob("metrics.csv"), *folder.glob("pictures/*")]
    if folder.is_dir() and not kept:
        shutil.rmtree(folder)


def record_run(folder: Path, config: Mapping[str, Any], *, from_step: int = 0) -> None:
    """Write `config.yaml` (resolved) and `environment.json` (command, git revision, package versions).

    Args:
        folder: of the run.
        config: resolved.
        from_step: optimizer steps that were made before; those of the run until then become `*_until_step_<n>.*`.
    """
    files = folder / "config.yaml", folder / "environment.json"
    for file in files:
        if from_step and file.is_file():
            file.replace(file.with_name(f"{file.stem}_until_step_{from_step}{file.suffix}"))
    environment = {
        "command": sys.argv,
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in PACKAGES},
        "seed": config["seed"],
    }
    files[0].write_text(yaml.safe_dump(dict(config), sort_keys=False))
    files[1].write_text(json.dumps(environment, indent=2))


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
