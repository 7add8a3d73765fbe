"""Any timm backbone that gives feature maps, keyed by level."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any, Self

import timm
import torch
from torch import Tensor, nn

from panoptic.models.backbones.kernels import fits_inside, inflate_kernel, widen_convolutions
from panoptic.models.backbones.strides import StrideChanges, apply_changes, find_changes
from panoptic.models.batch_norm import batch_norms, use_running_statistics
from panoptic.models.weight_files import read_tensors

log = logging.getLogger(__name__)


class TimmBackbone(nn.Module):
    """Features "c1".."c5" of a timm model; the last level is always "c5", whatever its stride.

    Args:
        name: a timm model with `features_only` support, such as "resnet50" or "xception71".
        output_stride: stride of "c5" in pixels: 8, 16 or 32.
        kernel_size: k; every 3x3 convolution of the model becomes k x k, the stem too (DeeperLab, Table 3).
        pretrained: load timm's weights of that name.
        checkpoint: a local file of backbone weights instead, such as one trained with this `kernel_size`; excludes
            `pretrained`.
        pretrained_inflate: weights of smaller kernels, of either source, go into the middle of zeros.
        frozen_statistics: batch norm keeps the running mean and variance of its weights, also after `train()`; gamma
            and beta are trained (Fusion Scheme, Sec. III-C). For trained weights: random ones have no statistics.

    Raises:
        ValueError: an unknown name, an output stride or kernel size the model cannot have, both sources of weights,
            weights of smaller kernels without `pretrained_inflate`, or frozen statistics of a model that has none.
        FileNotFoundError: `checkpoint` does not exist.
    """

    def __init__(
        self,
        name: str,
        *,
        output_stride: int = 16,
        kernel_size: int = 3,
        pretrained: bool = False,
        checkpoint: str | None = None,
        pretrained_inflate: bool = False,
        frozen_statistics: bool = False,
    ) -> None:
        super().__init__()
        check_name(name, pretrained=pretrained, checkpoint=checkpoint)
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(f"expected an odd kernel_size of at least 3, got {kernel_size}")
        if pretrained and kernel_size != 3 and not pretrained_inflate:
            raise ValueError(
                f"timm's weights of {name} are for 3x3 kernels, not for kernel_size {kernel_size}; give a checkpoint "
                f"of that size, or pretrained_inflate=true to put them in the middle of zeros"
            )
        self.name, self.kernel_size, self.output_stride = name, kernel_size, output_stride
        self.body: Any = _create(name, output_stride, pretrained)
        reductions = self.body.feature_info.reduction()
        if reductions[-1] != output_stride:
            raise ValueError(f"{name} ends at stride {reductions[-1]}, expected output_stride {output_stride}")
        if kernel_size != 3:
            widen_convolutions(self.body, kernel_size, inflate=pretrained)
        first = 6 - len(reductions)
        self.levels = [f"c{first + number}" for number in range(len(reductions))]
        self.channels = dict(zip(self.levels, self.body.feature_info.channels(), strict=True))
        self.strides = dict(zip(self.levels, reductions, strict=True))
        self.weights_report = f"backbone {name}: random weights"
        if pretrained:
            inflated = "" if kernel_size == 3 else f", inflated to {kernel_size}x{kernel_size}"
            tag = self.body.pretrained_cfg.get("tag", "")
            self.weights_report = f"backbone {name}: timm's weights {tag}{inflated}"
        if checkpoint is not None:
            self.weights_report = load_weights(self.body, Path(checkpoint).expanduser(), inflate=pretrained_inflate)
        log.info(self.weights_report)
        self.frozen_statistics = frozen_statistics
        if frozen_statistics and next(batch_norms(self.body), None) is None:
            raise ValueError(f"{name} has no batch norm to freeze the statistics of; leave frozen_statistics false")
        self.train()

    def train(self, mode: bool = True) -> Self:
        """As every module; frozen statistics stay as they are."""
        super().train(mode)
        if self.frozen_statistics:
            use_running_statistics(self.body)
        return self

    def set_output_stride(self, stride: int) -> None:
        """Change strides and rates as timm would have made them, and no parameter.

        Raises:
            ValueError: a stride that the model cannot have; nothing is changed.
        """
        if stride == self.output_stride:
            return
        changes = _stride_changes(self.name, self.kernel_size, self.output_stride, stride)
        apply_changes(self.body, changes)
        self.strides = dict(zip(self.levels, changes.reductions, strict=True))
        self.output_stride = stride

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised (B, 3, H, W) images to {level: (B, D, h, w)}."""
        return dict(zip(self.levels, self.body(images), strict=True))


def check_name(name: str, *, pretrained: bool, checkpoint: str | None) -> None:
    """Refuse a name that timm does not know, and two sources of weights."""
    if pretrained and checkpoint is not None:
        raise ValueError("expected one source of backbone weights, got pretrained=true and a checkpoint; drop one")
    if not timm.is_model(name):
        near = timm.list_models(f"*{name[:6]}*")[:5]
        raise ValueError(f"timm has no model {name!r}; names that look like it: {near}")


@cache  # a moment per model, and evaluation changes the stride for every image
def _stride_changes(name: str, kernel_size: int, before: int, after: int) -> StrideChanges:
    def make(output_stride: int) -> Any:
        body = _create(name, output_stride, pretrained=False)
        if body.feature_info.reduction()[-1] != output_stride:
            raise ValueError(f"{name} has no output_stride {output_stride}")
        if kernel_size != 3:
            widen_convolutions(body, kernel_size, inflate=False)
        return body

    with torch.device("meta"):  # draws no random numbers
        return find_changes(make, before, after)


def _create(name: str, output_stride: int, pretrained: bool) -> Any:
    try:
        return timm.create_model(name, features_only=True, output_stride=output_stride, pretrained=pretrained)
    except (NotImplementedError, TypeError, AssertionError):  # timm's ways to say that strides cannot be changed
        body: Any = timm.create_model(name, features_only=True, pretrained=pretrained)
        if body.feature_info.reduction()[-1] != output_stride:
            raise ValueError(
                f"{name} has no output_stride {output_stride}; its own is {body.feature_info.reduction()[-1]}"
            ) from None
        return body


def load_weights(body: nn.Module, path: Path, *, inflate: bool = False) -> str:
    """Load a file of weights into a backbone and say what loaded.

    Args:
        body: the network that receives them.
        path: a state dict, or a checkpoint with one under "state_dict" or "model"; torch or safetensors format.
        inflate: put smaller kernels into the middle of zeros.

    Returns:
        One line: how many tensors loaded, how many of them inflated, and which were missing or left over.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no tensor fits by name and shape, or a tensor fits by name but not by shape.
    """
    state = read_tensors(path, "backbone checkpoint")
    own = body.state_dict()
    theirs = {_plain_name(key): key for key in state}
    sources = {key: theirs[_plain_name(key)] for key in own if _plain_name(key) in theirs}
    fitting = {key: state[source] for key, source in sources.items()}
    if not fitting:
        raise ValueError(
            f"backbone checkpoint {path}: none of its {len(state)} tensors (such as {next(iter(state), None)!r}) "
            f"has a name of the backbone (such as {next(iter(own))!r})"
        )
    smaller = [key for key, value in fitting.items() if fits_inside(value, own[key].shape)]
    if inflate:
        fitting |= {key: inflate_kernel(fitting[key], own[key].shape[-1]) for key in smaller}
    misfits = [key for key, value in fitting.items() if value.shape != own[key].shape]
    if misfits:
        key = misfits[0]
        hint = "; pretrained_inflate=true puts smaller kernels in the middle of zeros" if key in smaller else ""
        raise ValueError(
            f"backbone checkpoint {path}: {len(misfits)} tensors differ in shape, such as {key} "
            f"{tuple(fitting[key].shape)} into {tuple(own[key].shape)}{hint}"
        )
    body.load_state_dict(fitting, strict=False)
    missing = sorted(set(own) - set(fitting))
    unused = sorted(set(state) - set(sources.values()))
    inflated = f" ({len(smaller)} kernels inflated)" if smaller else ""
    return (
        f"backbone weights from {path}: {len(fitting)} tensors loaded{inflated}, "
        f"{len(missing)} kept random {missing[:3]}, {len(unused)} of the file unused {unused[:3]}"
    )


def _plain_name(key: str) -> str:
    """A name without what differs between timm's model and its `features_only` form: "stem.0.x", "model.stem_0.x"."""
    return key.removeprefix("module.").removeprefix("model.").replace(".", "_")
