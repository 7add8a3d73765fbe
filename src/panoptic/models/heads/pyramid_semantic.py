"""Semantic heads on a feature pyramid (OANet, Sec. 3.1; Fusion Scheme, Sec. III-B)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from panoptic.losses.cross_entropy import pixel_cross_entropy
from panoptic.models.heads.base import DenseOutput, Head, Output
from panoptic.models.heads.semantic import PERFECT_LOGIT, pad_map
from panoptic.structures import IGNORE_INDEX, Category, Features, Sample
from panoptic.targets.semantic import SemanticTargets, encode_semantic

ABSENT_LOGIT = -1e4
"""Logit of categories that are not predicted: exp(-1e4) is 0 beside any other, and half precision holds it."""

Branch = Callable[[Mapping[str, int], int], nn.Module]
"""Makes the layers for {level: D} and a number of channels: levels to logits at stride 4."""


class PyramidSemanticHead(Head):
    """A category for every pixel, from several levels of a feature pyramid.

    Args:
        channels: {level: D}.
        categories: of the data set, C of them.
        branch: makes the layers, such as `StuffBranch` with its options bound.
        object_context: False predicts stuff alone: things carry no loss, and have no chance in the output (OANet,
            Table 2).

    Raises:
        ValueError: no object context, and no stuff among the categories.
    """

    reads_levels = ()
    terms = ("cross_entropy",)

    def __init__(
        self,
        channels: Mapping[str, int],
        categories: Sequence[Category],
        *,
        branch: Branch,
        object_context: bool = True,
    ) -> None:
        super().__init__()
        self.predicted_ids = [category.id for category in categories if object_context or not category.is_thing]
        if not self.predicted_ids:
            raise ValueError("expected stuff categories without object_context, got things alone; set it to true")
        self.branch = branch(channels, len(self.predicted_ids))
        self.categories = tuple(categories)

    @property
    def encode(self) -> Callable[[Sample], SemanticTargets]:
        """Semantic map of a sample."""
        return partial(encode_semantic, categories=self.categories, small_instance_area=0)

    def forward(self, features: Features, outputs: Mapping[str, Output]) -> DenseOutput:
        """Logits (B, C, h, w) at stride 4; `ABSENT_LOGIT` for what is not predicted."""
        logits = self.branch(features.levels)
        if len(self.predicted_ids) < len(self.categories):
            absent = logits.new_full((len(logits), len(self.categories), *logits.shape[-2:]), ABSENT_LOGIT)
            logits = absent.index_copy(1, torch.tensor(self.predicted_ids, device=logits.device), logits)
        return DenseOutput(logits, features.padded_size, align_corners=False)

    def losses(self, output: DenseOutput, features: Features, targets: Sequence[SemanticTargets]) -> dict[str, Tensor]:
        """`cross_entropy` over labelled pixels at the network's input resolution, averaged over images."""
        return {"cross_entropy": pixel_cross_entropy(output.upsampled(), self._target_maps(targets, features))}

    def as_outputs(self, targets: Sequence[SemanticTargets], features: Features) -> DenseOutput:
        """One-hot logits; uniform where there is no target."""
        maps = self._target_maps(targets, features)
        values = torch.full((len(maps), len(self.categories), *maps.shape[1:]), ABSENT_LOGIT, device=maps.device)
        for category_id in self.predicted_ids:
            values[:, category_id] = (maps == category_id) * PERFECT_LOGIT
        return DenseOutput(values, features.padded_size, align_corners=False)

    def _target_maps(self, targets: Sequence[SemanticTargets], features: Features) -> Tensor:
        """(B, H, W) int64 category ids, `IGNORE_INDEX` in the padding and on what is not predicted."""
        maps = torch.stack([pad_map(target.semantic_map, features.padded_size, IGNORE_INDEX) for target in targets])
        without_loss = [number not in self.predicted_ids for number in range(IGNORE_INDEX + 1)]
        return maps.long().masked_fill(torch.tensor(without_loss, device=maps.device)[maps.long()], IGNORE_INDEX)
