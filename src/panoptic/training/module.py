"""The one LightningModule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MetricCollection

from panoptic.balancing.base import LossBalancer
from panoptic.checkpoints import entry_of
from panoptic.metrics import PanopticQuality, ParsingCovering, SemanticIoU
from panoptic.metrics.rows import join_category_rows
from panoptic.models.joined import Network
from panoptic.models.network import ImageOutputs
from panoptic.models.perfect import with_perfect_heads
from panoptic.structures import Batch, Category, Features, FusionResult, ImageStatistics, Instances, PanopticMap
from panoptic.training.instance_scores import InstanceScores
from panoptic.training.processes import ImageMeans, mean_over_processes, sum_over_processes

Fusion = Callable[..., FusionResult]

Infer = Callable[[Network, Tensor, list[tuple[int, int]]], tuple[dict[str, Any], dict[str, Features]]]
"""Outputs and features of a network for images (B, 3, H, W) uint8 of sizes before padding."""


@dataclass(eq=False)
class StepRecord:
    """What a training step made, for callbacks: they read `module.step_record` in `on_before_backward`.

    Args:
        losses: {`<head>_<term>`: unweighted scalar}, attached to the graph.
        weights: {name: lambda times the balancer's weight}.
        shared: features that at least two heads read, attached to the graph.
        levels: {head: {level: its features}}, attached to the graph.
    """

    losses: dict[str, Tensor]
    weights: dict[str, Tensor]
    shared: list[Tensor]
    levels: dict[str, dict[str, Tensor]]


class SecondLook:
    """Evaluates the losses of a batch once more: with the draws of the first time, leaving statistics as they are.

    Args:
        module: whose network is asked.
        batch: of the step; the state of random numbers is taken here.
    """

    def __init__(self, module: PanopticModule, batch: Batch) -> None:
        self.module, self.batch = module, batch
        self.devices = [batch.images.device] if batch.images.is_cuda else []
        self.random_state = torch.get_rng_state()
        self.device_states = [torch.cuda.get_rng_state(device) for device in self.devices]

    def __call__(self) -> dict[str, Tensor]:
        """{`<head>_<term>`: lambda times the loss, mean over processes}."""
        network, batch = self.module.network, self.batch
        precision = self.module.trainer.precision_plugin
        with (
            torch.no_grad(),
            torch.random.fork_rng(self.devices),
            kept_buffers(network),
            precision.forward_context(),
        ):
            torch.set_rng_state(self.random_state)
            for device, state in zip(self.devices, self.device_states, strict=True):
                torch.cuda.set_rng_state(state, device)
            outputs, features = network(batch.images, batch.image_sizes)
            losses = network.losses(outputs, features, batch)
        return mean_over_processes(self.module.weighted(losses))


@contextmanager
def kept_buffers(network: torch.nn.Module) -> Iterator[None]:
    """Buffers, such as the statistics of batch norm, have their values again afterwards."""
    values = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in network.named_buffers():
            buffer.copy_(values[name])


class PanopticModule(pl.LightningModule):
    """Trains a network on its losses and scores what the fusion makes of its outputs.

    Args:
        network: with at least one head.
        fusion: `fuse_*` with its options bound.
        balancer: makes one scalar of the weighted losses.
        optimizer: partial, given the parameters.
        scheduler: partial, given the optimizer and the number of steps; None keeps the rate.
        loss_weights: lambda by loss name; losses that are not listed weigh 1.
        categories: of the data set.
        statistics: image statistics of the data set, kept in the checkpoint.
        config: the resolved configuration, kept in the checkpoint.
        score_at: "original" scores at the size of the ground truth's file, "network" at that of the network's input.
        perfect_heads: names of heads whose outputs validation replaces by what the ground truth says.
        infer: how validation looks at images with the network, such as at several scales; by default, plainly.

    Raises:
        ValueError: `loss_weights` names a loss that no head produces, an unknown `score_at`, or an unknown head.
    """

    def __init__(
        self,
        network: Network,
        fusion: Fusion,
        balancer: LossBalancer,
        *,
        categories: Sequence[Category],
        statistics: ImageStatistics,
        optimizer: Callable[..., Optimizer] = torch.optim.SGD,
        scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        config: Mapping[str, Any] | None = None,
        score_at: str = "original",
        perfect_heads: Sequence[str] = (),
        infer: Infer = torch.nn.Module.__call__,
    ) -> None:
        super().__init__()
        self.network = network
        self.fusion = fusion
        self.balancer = balancer
        self.categories = tuple(categories)
        self.statistics = statistics
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.config = dict(config or {})
        self.loss_weights = dict(loss_weights or {})
        unknown = set(self.loss_weights) - set(network.loss_names)
        if unknown:
            raise ValueError(f"loss_weights names {sorted(unknown)}, but heads produce {sorted(network.loss_names)}")
        if score_at not in ("original", "network"):
            raise ValueError(f'expected score_at "original" or "network", got {score_at!r}')
        self.score_at = score_at
        self.perfect_heads = tuple(perfect_heads)
        self.infer = infer
        strange = sorted(set(perfect_heads) - set(network.heads))
        if strange:
            raise ValueError(f"no heads {strange} to be perfect, the network has {sorted(network.heads)}")
        self.step_record: StepRecord | None = None
        self._again: SecondLook | None = None
        self._leaves_step_out = False
        self.quality_values: dict[str, float] = {}
        self.val_losses = ImageMeans(network.loss_names)
        self.quality = MetricCollection(
            {
                "panoptic_quality": PanopticQuality(self.categories),
                "parsing_covering": ParsingCovering(self.categories),
                "semantic_iou": SemanticIoU(self.categories),
            }
        )
        self.instance_scores = InstanceScores(self.categories)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Losses, lambda, balancing; the record is there before backward."""
        self._again = SecondLook(self, batch)
        outputs, features = self.network(batch.images, batch.image_sizes)
        losses = self.network.losses(outputs, features, batch)
        shared = self.network.shared(features)
        balanced = self.balancer(self.weighted(losses), shared, sum_over_processes)
        self._leaves_step_out |= balanced.is_skipped
        weights = self.weighted(balanced.weights)
        levels = {name: feature.levels for name, feature in features.items()}
        self.step_record = StepRecord(losses, weights, shared, levels)
        logged = {"train_loss": balanced.total, **{f"train_{name}": loss for name, loss in losses.items()}}
        logged |= {f"weight_{name}": weight for name, weight in weights.items()}
        for name, value in mean_over_processes(logged).items():
            self.log(name, value, prog_bar=name == "train_loss", batch_size=len(batch.samples))
        total: Tensor = balanced.total
        return total

    def weighted(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{name: lambda times the value}."""
        return {name: self.loss_weights.get(name, 1.0) * loss for name, loss in losses.items()}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Without gradients the optimizer changes nothing: of a step in which a loss is not finite."""
        if self._leaves_step_out:
            optimizer.zero_grad(set_to_none=True)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Tell the balancer that a step is done."""
        super().optimizer_step(*args, **kwargs)
        if self._again is not None and not self._leaves_step_out:
            self.balancer.after_step(self._again)
        self._leaves_step_out = False

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Let go of the step's graph."""
        self.step_record = self._again = None

    def on_train_epoch_end(self) -> None:
        """Tell the balancer."""
        self.balancer.end_epoch()

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        """Losses and quality of one batch; returns the list of `FusionResult`s, for callbacks."""
        if not batch.samples:  # a process without a share
            return []
        outputs, features = self.infer(self.network, batch.images, batch.image_sizes)
        self.val_losses.update(self.network.losses(outputs, features, batch), len(batch.samples))
        if self.perfect_heads:
            heads = self.network.heads
            outputs = with_perfect_heads(heads, outputs, features, batch.targets, self.perfect_heads)
        results = []
        for index in range(len(batch.samples)):
            truth, instances = self._truth(batch, index)
            of_image = ImageOutputs(outputs, index, batch.image_sizes[index])
            fused = self.fusion(of_image, self.categories, size=truth.size)
            self.quality.update(fused.panoptic_map, truth.to(fused.panoptic_map.segment_ids.device))
            self.instance_scores.update(fused, truth, instances)
            results.append(fused)
        return results

    def _truth(self, batch: Batch, index: int) -> tuple[PanopticMap, Instances | None]:
        """What an image is scored against, at the size to score at; the data set's own instances where it has them."""
        sample = batch.samples[index]
        if self.score_at == "network" and sample.panoptic_map is not None:
            return sample.panoptic_map, sample.instances
        return batch.truths[index], batch.truth_instances[index]

    def on_validation_epoch_end(self) -> None:
        """Log losses, and PQ and its relatives in percent; `quality_values` keeps them as fractions."""
        self.log_dict({f"val_{name}": value for name, value in self.val_losses.compute().items()})
        self.quality_values = {name: float(value) for name, value in self.quality.compute().items()}
        self.quality_values |= self.instance_scores.compute()
        values = {name: 100 * value for name, value in self.quality_values.items()}
        self.log_dict({f"val_{name}": value for name, value in values.items() if name != "pq"})
        self.log("val_pq", values["pq"], prog_bar=True)

    def on_validation_epoch_start(self) -> None:
        """Forget the images of the last validation."""
        self.quality.reset()
        self.instance_scores.reset()
        self.val_losses.reset()

    def category_rows(self) -> list[dict[str, Any]]:
        """Quality per category of the last validation, over all processes: every process must ask."""
        rows = join_category_rows(
            cast(PanopticQuality, self.quality["panoptic_quality"]).per_category(),
            cast(ParsingCovering, self.quality["parsing_covering"]).per_category(),
            cast(SemanticIoU, self.quality["semantic_iou"]).per_category(),
        )
        return self.instance_scores.joined(rows)

    def configure_optimizers(self) -> Any:
        """The optimizer, and the schedule counted in optimizer steps."""
        optimizer = self.optimizer(self._parameter_groups())
        if self.scheduler is None:
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if math.isinf(steps):
            raise ValueError("a schedule needs an end of training; set trainer.max_epochs or trainer.max_steps")
        schedule = self.scheduler(optimizer, int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _parameter_groups(self) -> list[Any]:
        """The network's parameters, and apart from them, without weight decay, those that a balancer learns."""
        learned = list(self.balancer.parameters())
        if not learned:
            return list(self.parameters())
        return [{"params": list(self.network.parameters())}, {"params": learned, "weight_decay": 0.0}]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add everything that a later evaluation needs, and what the balancer's state belongs to."""
        checkpoint["panoptic"] = entry_of(self.config, self.categories, self.statistics)
        checkpoint["panoptic"]["balancing"] = self.balancer.identity

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the state of another strategy, or of other tasks.

        Raises:
            ValueError: it is one; both are named.
        """
        there = checkpoint["panoptic"].get("balancing")
        if there is not None and there != self.balancer.identity:
            raise ValueError(
                f"the checkpoint was trained with balancing {there}, this run has {self.balancer.identity}; go on with "
                "the former, or start a new run from its weights with init_from="
            )
