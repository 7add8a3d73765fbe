"""Trainings that end in the middle, and what is compared of two trainings."""

import csv
from pathlib import Path

import pytest
import torch
from tiny_training import TINY

from panoptic.__main__ import main
from panoptic.checkpoints import read_checkpoint
from panoptic.training.checkpointing import WholeFileIO
from panoptic.training.module import PanopticModule

PARTS = ["heads=semantic", "fusion=semantic", "heads.semantic.filters=16"]
SHORT = [
    *TINY,
    "data.train.length=10",  # 5 batches an epoch
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "checkpoint_every=2",
    "pictures=1",
]
SMALL = [*PARTS, *SHORT]


class Killed(BaseException):
    """Nothing catches it, so that what is on disk is what was there: as after `kill -9`."""


def train(folder, *overrides):
    """The exit status of `panoptic train`; an experiment keeps its own parts."""
    base = SHORT if any(override.startswith("experiment=") for override in overrides) else SMALL
    return main(["train", *base, *overrides, f"run={folder}"])


def train_until(place, count, folder, *overrides):
    """Train until a place of the code is reached for the `count`-th time, and end there like a killed process."""
    owner, name, before = PLACES[place]
    original, calls = getattr(owner, name), []

    def counted(self, *arguments, **keywords):
        calls.append(name)
        if len(calls) == count:
            before(self, *arguments, **keywords)
            raise Killed
        return original(self, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, counted)
        with pytest.raises(Killed):
            train(folder, *overrides)


def nothing(*arguments, **keywords):
    pass


def write_half(self, checkpoint, path, storage_options=None):
    whole = Path(path).with_suffix(".whole")
    whole.parent.mkdir(exist_ok=True)
    torch.save(checkpoint, whole)
    content = whole.read_bytes()
    whole.unlink()
    Path(path).with_name(f"{Path(path).name}.part").write_bytes(content[: len(content) // 2])


def write_whole(self, checkpoint, path, storage_options=None):
    WholeFileIO.__mro__[1].save_checkpoint(self, checkpoint, path)


PLACES = {
    "forward": (PanopticModule, "training_step", nothing),
    "step done": (PanopticModule, "on_train_batch_end", nothing),
    "validation": (PanopticModule, "validation_step", nothing),
    "validation done": (PanopticModule, "on_validation_epoch_end", nothing),
    "writing": (WholeFileIO, "save_checkpoint", write_half),
    "written": (WholeFileIO, "save_checkpoint", write_whole),
}


def end_of(folder):
    """All that a training leaves which must not depend on interruptions."""
    content = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    best = read_checkpoint(folder / "checkpoints" / "best.ckpt")
    kept = ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "current_model_state")
    return {
        "metrics": rows_of(folder / "metrics.csv"),
        "pictures": {path.name: path.read_bytes() for path in sorted((folder / "pictures").rglob("*.png"))},
        "last": {key: content[key] for key in kept if key in content},
        "best": {key: best[key] for key in kept if key in best},
        "rows": content["loggers"]["rows"],
    }


def rows_of(path):
    """What was logged, without what depends on the clock."""
    with path.open() as file:
        rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]
    return [row for row in rows if set(row) != {"data_wait", "step"}]


def differences(one, other, path=""):
    """Where two nested structures of numbers and tensors differ, to the bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        lacking = [f"{path}/{key}" for key in set(one) ^ set(other)]
        return lacking + [
            d for key in set(one) & set(other) for d in differences(one[key], other[key], f"{path}/{key}")
        ]
    if isinstance(one, list | tuple) and len(one) == len(other):
        return [d for n, (a, b) in enumerate(zip(one, other, strict=True)) for d in differences(a, b, f"{path}/{n}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) else [path]
    return [] if one == other else [path]
