"""The spatial ranking module of OANet (Sec. 3.2): which of the things that cover a pixel is on top."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from panoptic.fusion.masks import paste_masks
from panoptic.losses.ranking import ranking_loss
from panoptic.models.heads.base import DenseOutput, Head, Output
from panoptic.models.heads.semantic import PERFECT_LOGIT, pad_map
from panoptic.structures import IGNORE_INDEX, Category, Detections, Features, Sample
from panoptic.targets.occlusion import OcclusionTargets, draw_class_masks, encode_occlusion, thing_channels


@dataclass(eq=False)
class RankingOutput:
    """Ranking logits, computed of an image's detections when they are asked for.

    Args:
        instances: output of the instance head, whose `image` gives `Detections`.
        rank: detections to logits (T, h, w).
    """

    instances: Output
    rank: Callable[[Detections], Tensor]

    def image(self, index: int, image_size: tuple[int, int]) -> Tensor:
        """(T, h, w) logits of one image without its padding, T thing categories in ascending category id.

        Raises:
            ValueError: a value that is not finite.
        """
        logits = self.rank(self.instances.image(index, image_size))
        return DenseOutput(logits[None], image_size, align_corners=False).image(0, image_size)


class SpatialRankingHead(Head):
    """Thing-class scores per pixel, from the masks of instances alone; they order instances that overlap.

    It is trained on ground-truth masks, and reads the instance head's detections at inference.

    Args:
        channels: {level: D}, of which it reads none.
        categories: of the data set; T of them are things.
        layers: makes the convolution of T to T channels, such as `LargeKernelConvolution`.
        instances_from: "own" or "panoptic", as for the instance head.
        score_threshold: detections are read from this score on (not stated in the paper; chosen: all of them).

    Raises:
        ValueError: no things among the categories.
    """

    reads = ("instances",)
    reads_features = False
    reads_levels = ()
    terms = ("cross_entropy",)

    def __init__(
        self,
        channels: Mapping[str, int],
        categories: Sequence[Category],
        *,
        layers: Callable[[int], nn.Module],
        instances_from: str = "own",
        score_threshold: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_things = sum(category.is_thing for category in categories)
        if self.num_things == 0:
            raise ValueError(f"expected things to rank, got {len(categories)} categories of stuff; leave this head out")
        self.layers = layers(self.num_things)
        self.categories = tuple(categories)
        self.channel_of = thing_channels(categories)
        self.instances_from = instances_from
        self.score_threshold = score_threshold

    @property
    def encode(self) -> Callable[[Sample], OcclusionTargets]:
        """Overlapping instances and semantic map of a sample."""
        return partial(encode_occlusion, categories=self.categories, instances_from=self.instances_from)

    def forward(self, features: Features, outputs: Mapping[str, Output]) -> RankingOutput:
        """Nothing is computed before somebody asks for an image."""
        return RankingOutput(outputs["instances"], self._rank)

    def losses(
        self, output: RankingOutput, features: Features, targets: Sequence[OcclusionTargets]
    ) -> dict[str, Tensor]:
        """`cross_entropy` on pixels where ground-truth masks of several classes meet, averaged over images."""
        losses = []
        for target in targets:
            instances = target.instances
            height, width = target.semantic_map.shape
            masks = draw_class_masks(
                instances.boxes,
                instances.masks,
                self._channels(instances.category_ids),
                num_channels=self.num_things,
                size=(height, width),
            )
            losses.append(ranking_loss(self._scores(masks), masks, self._top_channels(target.semantic_map)))
        return {"cross_entropy": torch.stack(losses).mean()}

    def as_outputs(self, targets: Sequence[OcclusionTargets], features: Features) -> DenseOutput:
        """A certain logit for the thing that is seen; uniform where none is."""
        maps = [self._top_channels(pad_map(t.semantic_map, features.padded_size, IGNORE_INDEX)) for t in targets]
        channels = torch.arange(self.num_things, device=maps[0].device)[:, None, None]
        one_hot = torch.stack(maps)[:, None] == channels  # (B, T, H, W)
        return DenseOutput(one_hot * PERFECT_LOGIT, features.padded_size, align_corners=False)

    def _rank(self, detections: Detections) -> Tensor:
        """Logits (T, h, w) of detections in an image of that size."""
        pasted = paste_masks(detections, detections.image_size)
        rows = (detections.scores >= self.score_threshold).nonzero().flatten().tolist()
        masks = draw_class_masks(
            torch.from_numpy(pasted.windows[rows]),
            [pasted.patch(row) for row in rows],
            self._channels(detections.category_ids[rows]),
            num_channels=self.num_things,
            size=detections.image_size,
        )
        return self._scores(masks.to(detections.boxes.device))

    def _channels(self, category_ids: Tensor) -> list[int]:
        """(N,) ids of things to their channels."""
        return [self.channel_of[category_id] for category_id in category_ids.tolist()]

    def _scores(self, class_masks: Tensor) -> Tensor:
        """(T, H, W) bool to logits of that shape."""
        logits: Tensor = self.layers(class_masks[None].to(next(self.layers.parameters()).dtype))
        return logits[0]

    def _top_channels(self, semantic_map: Tensor) -> Tensor:
        """(H, W) category ids to int64 channels, `IGNORE_INDEX` where there is no thing."""
        return torch.tensor(self.channel_of, device=semantic_map.device)[semantic_map.long()]


class PlainConvolution(nn.Conv2d):
    """One k x k convolution (OANet, Table 5: 1x1, 3x3).

    Args:
        num_channels: T, of input and output.
        kernel_size: k, odd.
    """

    def __init__(self, num_channels: int, *, kernel_size: int = 3) -> None:
        super().__init__(num_channels, num_channels, kernel_size, padding=kernel_size // 2)


class LargeKernelConvolution(nn.Module):
    """1 x k then k x 1, plus k x 1 then 1 x k (OANet, Table 5: 1x7 + 7x1).

    The sum of both orders is chosen, as in the Global Convolutional Network that the paper cites.

    Args:
        num_channels: T, of input and output.
        kernel_size: k, odd.
    """

    def __init__(self, num_channels: int, *, kernel_size: int = 7) -> None:
        super().__init__()
        self.row_first = _crossed(num_channels, (1, kernel_size), (kernel_size, 1))
        self.column_first = _crossed(num_channels, (kernel_size, 1), (1, kernel_size))

    def forward(self, class_masks: Tensor) -> Tensor:
        """(B, T, H, W) to logits of the same shape."""
        scores: Tensor = self.row_first(class_masks) + self.column_first(class_masks)
        return scores


def _crossed(num_channels: int, first: tuple[int, int], second: tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(num_channels, num_channels, size, padding=(size[0] // 2, size[1] // 2)) for size in (first, second))
    )
