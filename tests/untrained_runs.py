"""Networks of random weights, and run folders with a checkpoint of them, as a training would leave them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from batch_norms import norms

from panoptic.assembly import build_data, build_module
from panoptic.checkpoints import entry_of
from panoptic.configuration import load_config, resolved

TINY = [
    "backbone.name=test_resnet",
    "decoder.filters=16",
    "keypoints.radius=6.0",
    "data.train.length=2",
    "data.val.length=2",
    "data.train.size=[48,64]",
    "data.num_workers=0",
]


def untrained(*words: str, seed: int = 0):
    """(configuration, data, module) of a network whose outputs differ everywhere."""
    torch.manual_seed(seed)
    config = resolved(load_config("train", list(words)))
    data = build_data(config)
    module = build_module(config, data)
    for part in norms(module.network):
        torch.nn.init.uniform_(part.weight, 0.5, 3.0)
        torch.nn.init.normal_(part.bias)
    return config, data, module


def write_run(folder: Path, *overrides: str, seed: int = 0, base: Sequence[str] = TINY):
    """Write `<folder>/checkpoints/best.ckpt` of such a network; returns its module."""
    config, data, module = untrained(*base, *overrides, seed=seed)
    own = entry_of(config, data.categories, data.image_statistics)
    (folder / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": module.state_dict(), "panoptic": own}, folder / "checkpoints" / "best.ckpt")
    return module.eval()
