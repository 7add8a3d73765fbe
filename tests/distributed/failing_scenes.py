"""Scenes of which one process cannot read an image."""

import os
import time

import torch.distributed as dist

from panoptic.data.scenes import Scenes


class FailingScenes(Scenes):
    """The process of rank `FAILING_RANK` raises at its third image; that of `SLEEPING_RANK` waits for ever for it."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.read = 0

    def __getitem__(self, index):
        self.read += 1
        rank = str(dist.get_rank()) if dist.is_initialized() else None
        if self.read == 3 and rank == os.environ.get("FAILING_RANK"):
            raise ValueError(f"scene {index} of rank {rank} cannot be read")
        if self.read == 3 and rank == os.environ.get("SLEEPING_RANK"):
            time.sleep(3600)
        return super().__getitem__(index)
