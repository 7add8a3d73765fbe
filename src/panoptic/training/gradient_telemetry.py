"""What each task asks of the features it shares with others, step by step (OANet, Fig. 5)."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor

from panoptic.balancing.gramian import task_gradient
from panoptic.balancing.tasks import Patterns, group_losses
from panoptic.models.joined import Network
from panoptic.training.module import PanopticModule, StepRecord
from panoptic.training.processes import sum_over_processes

FILE_NAME = "gradients.csv"


@dataclass(eq=False)
class GradientSums:
    """Sums over batches, each of which is a part of a step's images; K tensors of features, T tasks, all float64.

    A loss is a mean over a batch, so a part's gradient is as many times as long as its share of the step's gradient as
    there are parts. The parts have features of their own: squares add up.

    Args:
        inner: (K, T, T) inner products of the tasks' gradients on each tensor.
        absolute: (K, T) sums of the absolute values of those gradients.
        elements: (K,) of each tensor.
        losses: (T,) unweighted.
        weighted: (T,) losses times their weights.
        weights: (T,) mean of the weights of a task's losses.
        parts: () number of batches.
    """

    inner: Tensor
    absolute: Tensor
    elements: Tensor
    losses: Tensor
    weighted: Tensor
    weights: Tensor
    parts: Tensor

    def __add__(self, other: GradientSums) -> GradientSums:
        """Of the batches of both."""
        pairs = zip(self._tensors(), other._tensors(), strict=True)
        return GradientSums(*(one + another for one, another in pairs))

    def over_processes(self) -> GradientSums:
        """Of all processes, in one exchange."""
        tensors = self._tensors()
        flat = sum_over_processes(torch.cat([tensor.flatten() for tensor in tensors]))
        pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
        return GradientSums(*(piece.view_as(tensor) for piece, tensor in zip(pieces, tensors, strict=True)))

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.inner, self.absolute, self.elements, self.losses, self.weighted, self.weights, self.parts


@dataclass(eq=False)
class TaskGradients:
    """T tasks in one step, on the CPU; NaN where a task has no gradient on the features.

    Args:
        losses: (T,) unweighted, mean over the step's images.
        weights: (T,) the factor that the task's loss had in what was backpropagated.
        norms: (T,) of the gradient of the unweighted loss.
        mean_absolute: (T,) of the elements of that gradient, on the tensors that the task reaches.
        cosines: (T, T) between gradients; NaN for tasks that reach no tensor in common, too.
    """

    losses: Tensor
    weights: Tensor
    norms: Tensor
    mean_absolute: Tensor
    cosines: Tensor

    @classmethod
    def of(cls, sums: GradientSums) -> TaskGradients:
        """The means of the step's images."""
        squares = sums.inner.diagonal(dim1=1, dim2=2)  # (K, T)
        reaches = squares != 0
        lengths = torch.where(reaches.any(0), squares.sum(0), torch.nan).sqrt()
        elements = (reaches * sums.elements[:, None]).sum(0)
        meet = (reaches[:, :, None] & reaches[:, None]).any(0)  # (T, T)
        cosines = torch.where(meet, sums.inner.sum(0) / (lengths[:, None] * lengths), torch.nan)
        weights = torch.where(sums.losses > 0, sums.weighted / sums.losses, sums.weights / sums.parts)
        values = (
            sums.losses / sums.parts,
            weights,
            lengths / sums.parts,
            sums.absolute.sum(0) / sums.parts / elements,  # 0 / 0 where nothing is reached
            cosines,
        )
        return cls(*(value.cpu() for value in values))


class GradientTelemetry(pl.Callback):
    """Writes losses, weights, gradients and their cosines per task to `gradients.csv`, and hands them to the loggers.

    Rows lie in the trainer's `default_root_dir`, those of one step under its number: optimizer steps that were made
    before it. The gradients are those of unweighted losses. The training is the same, to the bit, without telemetry.

    Args:
        every: optimizer steps; the first one and its multiples are measured.
        level: of the features, such as "c5", OANet's choice; None takes what heads share, where balancers compare
            gradients, too. Paths that do not share the level have one each: a gradient is that on all of them, and its
            mean absolute value that over those which the task reaches.
        tasks: "head", "loss" or {task: patterns of losses}, see `group_losses`.

    Raises:
        ValueError: `every` is below 1.
    """

    def __init__(self, every: int, level: str | None = None, tasks: str | Patterns = "head") -> None:
        if every < 1:
            raise ValueError(f"expected callbacks.gradient_telemetry.every of at least 1 step, got {every}")
        self.every = every
        self.level = level
        self.tasks = tasks
        self._groups: dict[str, list[str]] = {}
        self._file: GradientsFile | None = None
        self._sums: GradientSums | None = None
        self._step = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raise ValueError for a level that there is not, none where nothing is shared, and tasks that do not fit."""
        if stage != "fit":
            return
        network = cast(PanopticModule, pl_module).network
        check_level(network, self.level)
        option = "callbacks.gradient_telemetry.tasks"
        self._groups = group_losses(self.tasks, network.losses_of_heads, option=option)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Steps from here on are written, again if they were before."""
        self._sums = None
        if trainer.is_global_zero:
            self._file = GradientsFile(Path(trainer.default_root_dir) / FILE_NAME, list(self._groups))
            self._file.keep_before(trainer.global_step)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Measure this batch, one of several where gradients are accumulated."""
        if trainer.global_step % self.every:
            return
        record = cast(PanopticModule, pl_module).step_record
        assert record is not None
        self._step = trainer.global_step
        sums = sum_gradients(record, list(self._groups.values()), features_at(record, self.level))
        self._sums = sums if self._sums is None else self._sums + sums

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """When the optimizer has taken the step every process adds its share, and the first one writes."""
        if self._sums is None or trainer.global_step == self._step:
            return
        sums, self._sums = self._sums.over_processes(), None
        if self._file is None:
            return
        gradients = TaskGradients.of(sums)
        self._file.append(self._step, gradients)
        for logger in trainer.loggers:
            logger.log_metrics(metrics_of(gradients, list(self._groups)), step=self._step)


def check_level(network: Network, level: str | None) -> None:
    """Refuse a level that no head reads from, or none where heads share nothing.

    Raises:
        ValueError: the levels that there are are named.
    """
    levels = [
        level
        for path in network.paths
        for level in (*cast(Mapping[str, int], path.backbone.channels), *path.decoder.channels)
    ]
    there = list(dict.fromkeys(levels))
    if level is None and not network.shares_features:
        raise ValueError(
            "gradient telemetry compares tasks on features that heads share, but no two heads of "
            f"{list(network.heads)} read the same; give callbacks.gradient_telemetry.level, one of {there}"
        )
    if level is not None and level not in there:
        raise ValueError(f"callbacks.gradient_telemetry.level={level}: no such level; there are {there}")


def features_at(record: StepRecord, level: str | None) -> list[Tensor]:
    """The tensors that gradients are taken on, attached to the graph: each once, whatever the number of its heads.

    Raises:
        ValueError: nothing before the level learns, so that no gradient comes there.
    """
    found = record.shared
    if level is not None:
        found = list(
            {id(levels[level]): levels[level] for levels in record.levels.values() if level in levels}.values()
        )
    features = [tensor for tensor in found if tensor.requires_grad]
    if not features:
        raise ValueError(
            f"callbacks.gradient_telemetry.level={'null' if level is None else level} has no gradient: everything "
            "before it is frozen; choose a level after it"
        )
    return features


def sum_gradients(record: StepRecord, tasks: Sequence[Sequence[str]], features: Sequence[Tensor]) -> GradientSums:
    """What one batch adds.

    Args:
        record: of the step, its graph is kept.
        tasks: names of the losses of each.
        features: K tensors of the graph.
    """
    nothing = features[0].new_zeros(())

    def by_task(values: Mapping[str, Tensor]) -> list[Tensor]:
        own = [[values[name] for name in names if name in record.losses] for names in tasks]
        return [torch.stack(task or [nothing]) for task in own]

    losses, weights = by_task(record.losses), by_task(record.weights)
    rows = [task_gradient(task.sum(), features) for task in losses]
    levels = [torch.stack(gradients) for gradients in zip(*rows, strict=True)]  # K of (T, elements)
    weighted = [(own.double() * task.double()).sum() for own, task in zip(weights, losses, strict=True)]
    return GradientSums(
        torch.stack([(gradients @ gradients.T).double() for gradients in levels]),
        torch.stack([gradients.abs().sum(1, dtype=torch.float64) for gradients in levels]),
        nothing.new_tensor([tensor.numel() for tensor in features], dtype=torch.float64),
        torch.stack([task.double().sum() for task in losses]).detach(),
        torch.stack(weighted).detach(),
        torch.stack([own.double().mean() for own in weights]).detach(),
        nothing.new_ones((), dtype=torch.float64),
    )


def metrics_of(gradients: TaskGradients, tasks: Sequence[str]) -> dict[str, float]:
    """{name for the loggers: value} of what is finite."""
    values = {f"gradient_norm_{task}": gradients.norms[row] for row, task in enumerate(tasks)}
    values |= {f"gradient_mean_abs_{task}": gradients.mean_absolute[row] for row, task in enumerate(tasks)}
    for (row, one), (column, other) in itertools.combinations(enumerate(tasks), 2):
        values[f"gradient_cosine_{one}_{other}"] = gradients.cosines[row, column]
    return {name: float(value) for name, value in values.items() if bool(value.isfinite())}


class GradientsFile:
    """`gradients.csv`: a row per step and task, written at once, so that a killed run keeps its rows.

    Args:
        path: of the file.
        tasks: in the order of their rows.
    """

    def __init__(self, path: Path, tasks: Sequence[str]) -> None:
        self.path = path
        self.tasks = list(tasks)
        measured = ["step", "task", "loss", "weight", "gradient_norm", "gradient_mean_abs"]
        self.columns = [*measured, *(f"cosine_{task}" for task in tasks)]

    def keep_before(self, step: int) -> None:
        """Begin the file, or cut it to the rows of earlier steps.

        Raises:
            ValueError: those are of other tasks.
        """
        text = self.path.read_text() if self.path.is_file() else ""
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))  # a killed run may have left half a line
        rows = [row for row in reader if int(row["step"]) < step]
        if rows and list(reader.fieldnames or []) != self.columns:
            raise ValueError(
                f"{self.path} has columns {reader.fieldnames}, expected {self.columns}: its tasks are others; move it "
                "away, or give callbacks.gradient_telemetry.tasks as then"
            )
        part = self.path.with_name(f"{FILE_NAME}.part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)
        part.replace(self.path)

    def append(self, step: int, gradients: TaskGradients) -> None:
        """The rows of a step; empty where a value is NaN, and for a task's cosine with itself."""
        columns = (gradients.losses, gradients.weights, gradients.norms, gradients.mean_absolute)
        cosines = gradients.cosines.clone().fill_diagonal_(torch.nan)
        table = torch.cat([torch.stack(columns, dim=1), cosines], dim=1).tolist()
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows(
                [step, task, *("" if value != value else f"{value:.8g}" for value in row)]
                for task, row in zip(self.tasks, table, strict=True)
            )
