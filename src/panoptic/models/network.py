"""The network: paths of backbone, decoder and heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from panoptic.models.backbones.base import SelectiveBackbone
from panoptic.models.batch_norm import freeze_parameters, use_running_statistics
from panoptic.models.decoders.base import Decoder
from panoptic.models.heads.base import Head, Output
from panoptic.structures import Batch, Features, ImageStatistics, Sample, SizeRule


class NetworkPath(nn.Module):
    """One backbone, one decoder and the heads that read it.

    Args:
        backbone: images to {"c1".."c5": features}.
        decoder: those to the levels that heads read.
        heads: {name: head}, run in this order.
    """

    backbone: nn.Module
    decoder: Decoder

    def __init__(self, backbone: nn.Module, decoder: Decoder, heads: Mapping[str, Head]) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.heads = nn.ModuleDict(heads)

    def named_heads(self) -> dict[str, Head]:
        """The heads by name, in the order they run."""
        return {name: cast(Head, head) for name, head in self.heads.items()}

    @property
    def readers(self) -> list[str]:
        """Names of the heads that read features."""
        return [name for name, head in self.named_heads().items() if head.reads_features]

    @property
    def reads_levels(self) -> set[str]:
        """Levels of the backbone that decoder and heads read."""
        return set(self.decoder.reads_levels).union(*(head.reads_levels for head in self.named_heads().values()))

    def features(
        self, levels: dict[str, Tensor], image_sizes: list[tuple[int, int]], padded_size: tuple[int, int]
    ) -> Features:
        """What heads read: the backbone's levels, then the decoder's.

        Args:
            levels: what the backbone made of normalised images.
            image_sizes: (h, w) of each image before padding.
            padded_size: (H, W) of the images.
        """
        return Features(levels | self.decoder(levels, image_sizes), image_sizes, padded_size)


class PanopticNetwork(nn.Module):
    """Paths that may share a backbone by object identity; every head has one name across all paths.

    Args:
        paths: at least one.
        statistics: mean and standard deviation that images are normalised with.

    Raises:
        ValueError: no head, a head's name twice, or a head that reads one which does not run before it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, paths: Sequence[NetworkPath], statistics: ImageStatistics) -> None:
        super().__init__()
        self._parts = nn.ModuleList(paths)
        self._batch_norm_is_frozen = False
        names = [name for path in paths for name in path.heads]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"expected at least one head and each name once, got {names}")
        for number, name in enumerate(names):
            late = set(self.heads[name].reads) - set(names[:number])
            if late:
                raise ValueError(f"head {name!r} reads {sorted(late)}, declare them before it; heads: {names}")
        self.register_buffer("mean", 255 * torch.tensor(statistics.mean)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(statistics.std)[:, None, None], persistent=False)

    def freeze_batch_norm(self) -> None:
        """Keep every batch norm as it is from now on: statistics, also after `train()`, gamma and beta.

        Raises:
            ValueError: there is no batch norm.
        """
        freeze_parameters(self)
        self._batch_norm_is_frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As every module; frozen batch norm stays as it is."""
        super().train(mode)
        if self._batch_norm_is_frozen:
            use_running_statistics(self)
        return self

    @property
    def paths(self) -> list[NetworkPath]:
        """The paths, in the order they run."""
        return [cast(NetworkPath, path) for path in self._parts]

    @property
    def heads(self) -> dict[str, Head]:
        """Every head by name, in the order they run."""
        return {name: head for path in self.paths for name, head in path.named_heads().items()}

    @property
    def encoders(self) -> dict[str, Callable[[Sample], Any]]:
        """{head: its target encoder}."""
        return {name: head.encode for name, head in self.heads.items()}

    @property
    def losses_of_heads(self) -> dict[str, list[str]]:
        """{head: `<head>_<term>` of its losses}."""
        return {name: [f"{name}_{term}" for term in head.terms] for name, head in self.heads.items()}

    @property
    def loss_names(self) -> list[str]:
        """`<head>_<term>` of every loss."""
        return [name for losses in self.losses_of_heads.values() for name in losses]

    @property
    def size_rule(self) -> SizeRule:
        """Image sizes that every decoder takes."""
        rules = {path.decoder.size_rule for path in self.paths}
        if len(rules) != 1:
            raise ValueError(f"expected decoders with one size rule, got {sorted(map(str, rules))}")
        return rules.pop()

    def forward(
        self, images: Tensor, image_sizes: list[tuple[int, int]]
    ) -> tuple[dict[str, Output], dict[str, Features]]:
        """Run every path, and a backbone that several of them share once.

        Without gradients, levels of a backbone that nothing reads are let go of as soon as they can be.

        Args:
            images: (B, 3, H, W) uint8, padded at the bottom and right.
            image_sizes: (h, w) of each image before padding.

        Returns:
            outputs and features, both by head.
        """
        normalised = self._normalise(images, image_sizes)
        outputs: dict[str, Output] = {}
        features: dict[str, Features] = {}
        levels: dict[int, dict[str, Tensor]] = {}
        for path in self.paths:
            backbone = id(path.backbone)
            if backbone not in levels:
                levels[backbone] = self._levels(path.backbone, normalised)
            shared = path.features(levels[backbone], image_sizes, (int(images.shape[-2]), int(images.shape[-1])))
            for name, head in path.named_heads().items():
                outputs[name] = head(shared, outputs)
                features[name] = shared
        return outputs, features

    def losses(
        self, outputs: Mapping[str, Output], features: Mapping[str, Features], batch: Batch
    ) -> dict[str, Tensor]:
        """{`<head>_<term>`: unweighted scalar}."""
        return {
            f"{name}_{term}": loss
            for name, head in self.heads.items()
            for term, loss in head.losses(outputs[name], features[name], batch.targets[name]).items()
        }

    def shared(self, features: Mapping[str, Features]) -> list[Tensor]:
        """The tensors on which task gradients are compared, none of them made of another; empty if nothing is shared.

        In one path they are what its decoder made, where at least two heads read it. Of a backbone that several paths
        share they are its last level alone ("c5", res5 of a ResNet), where OANet compares gradients (Fig. 5): those
        before it, which decoders read too, go into it. Heads that read no features do not count.
        """
        shared: list[Tensor] = []
        for path, *others in self._readers_of_backbones():
            levels = features[path.readers[0]].levels
            if others:
                own = [level for level in levels if level not in path.decoder.channels]
                shared.append(levels[own[-1]])
            elif len(path.readers) > 1:
                shared.extend(levels[level] for level in path.decoder.shared_levels)
        return shared

    @property
    def shares_features(self) -> bool:
        """Whether `shared` gives any."""
        return any(others or len(path.readers) > 1 for path, *others in self._readers_of_backbones())

    def _readers_of_backbones(self) -> list[list[NetworkPath]]:
        """For every backbone the paths of it in which a head reads features."""
        paths: dict[int, list[NetworkPath]] = {}
        for path in self.paths:
            if path.readers:
                paths.setdefault(id(path.backbone), []).append(path)
        return list(paths.values())

    def _levels(self, backbone: nn.Module, normalised: Tensor) -> dict[str, Tensor]:
        if torch.is_grad_enabled() or not isinstance(backbone, SelectiveBackbone):
            return cast(dict[str, Tensor], backbone(normalised))
        read = set[str]().union(*(path.reads_levels for path in self.paths if path.backbone is backbone))
        return cast(dict[str, Tensor], backbone(normalised, read))

    def _normalise(self, images: Tensor, image_sizes: list[tuple[int, int]]) -> Tensor:
        normalised = (images - self.mean) / self.std
        for image, (height, width) in zip(normalised, image_sizes, strict=True):
            image[:, height:] = 0
            image[:, :, width:] = 0
        return normalised


class ImageOutputs(Mapping[str, Any]):
    """What fusion reads of one image: {head: its output at the network's input resolution, without padding}.

    Outputs are upsampled when they are asked for, to 16 times the memory at stride 4, and not kept: a fusion that is
    done with one before it reads the next never holds all of them.

    Args:
        outputs: of a batch, by head.
        index: of the image in the batch.
        image_size: its (h, w) before padding.
    """

    def __init__(self, outputs: Mapping[str, Output], index: int, image_size: tuple[int, int]) -> None:
        self._outputs, self._index, self._image_size = outputs, index, image_size

    def __getitem__(self, name: str) -> Any:
        return self._outputs[name].image(self._index, self._image_size)

    def __contains__(self, name: object) -> bool:
        return name in self._outputs

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)
