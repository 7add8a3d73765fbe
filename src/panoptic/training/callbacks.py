"""What is shown of validations: pictures and tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import pytorch_lightning as pl
import torch.nn.functional as F
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from panoptic.drawing import comparison
from panoptic.structures import Batch, FusionResult
from panoptic.training.module import PanopticModule


class Pictures(pl.Callback):
    """Writes image | truth | prediction of the first validation images, and hands them to the loggers.

    Args:
        folder: receives `step_<n>/<number>.png`.
        count: images per validation; 0 switches the pictures off.
    """

    def __init__(self, folder: Path, *, count: int = 4) -> None:
        self.folder = folder
        self.count = count
        self.drawn = 0

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start with the first image again."""
        self.drawn = 0

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw what is still missing."""
        results: list[FusionResult] = outputs
        if not trainer.is_global_zero:
            return
        for sample, result in zip(batch.samples, results, strict=True):
            if self.drawn >= self.count:
                return
            prediction = result.panoptic_map.to("cpu")
            truth = sample.panoptic_map
            if truth is None or truth.size != prediction.size:
                truth = batch.truths[batch.samples.index(sample)]
            image = _resize(sample.image, prediction.size)
            picture = comparison(image, truth, prediction, cast(PanopticModule, pl_module).categories)
            self._write(trainer, picture)
            self.drawn += 1

    def _write(self, trainer: pl.Trainer, picture: Any) -> None:
        path = self.folder / f"step_{trainer.global_step:06d}" / f"{self.drawn}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(path), picture[..., ::-1]):
            raise OSError(f"could not write the picture {path}; is the disk full")
        name = f"prediction_{self.drawn}"
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(name, picture, trainer.global_step, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                logger.log_image(name, [picture], step=trainer.global_step)


class CategoryTables(pl.Callback):
    """Hands W&B a table of the quality of each category after every validation."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Every process computes, the first one logs."""
        loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        if not loggers:
            return
        rows = cast(PanopticModule, pl_module).category_rows()
        for logger in loggers:
            logger.log_table("val_categories", columns=list(rows[0]), data=[list(row.values()) for row in rows])


class CategoryScores(pl.Callback):
    """Logs scores of single categories, in percent: `val_<score>_<category>`, such as `val_pq_tie`.

    Args:
        names: of the categories; what is no letter or digit becomes "_" in the logged name.
    """

    scores = ("pq", "pc", "semantic_iou", "mask_ap", "semantic_map_iou")

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raise ValueError for a name that no category has."""
        known = [category.name for category in cast(PanopticModule, pl_module).categories]
        unknown = sorted(set(self.names) - set(known))
        if unknown:
            raise ValueError(f"logged_categories names {unknown}, but the data set's categories are {known}")

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Every process takes part."""
        for row in cast(PanopticModule, pl_module).category_rows():
            if row["name"] in self.names:
                name = re.sub(r"\W+", "_", row["name"])
                pl_module.log_dict({f"val_{key}_{name}": 100 * row[key] for key in self.scores if key in row})


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, h, w) uint8 to (3, H, W)."""
    if tuple(image.shape[-2:]) == size:
        return image
    resized = F.interpolate(image[None].float(), size=size, mode="bilinear", antialias=True)
    return resized[0].round().clamp(0, 255).byte()


class WritePredictions(pl.Callback):
    """Hands every validation image's prediction to a writer.

    Args:
        write: called with the panoptic map, `image_id` and `image_name`.
    """

    def __init__(self, write: Callable[..., None]) -> None:
        self.write = write

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the batch."""
        for sample, result in zip(batch.samples, outputs, strict=True):
            self.write(result.panoptic_map.to("cpu"), image_id=sample.image_id, image_name=sample.file_name)
