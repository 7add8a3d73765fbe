"""From a run folder to panoptic maps, in three lines.

predictor = Predictor.from_run("runs/my_run")
panoptic_map = predictor("photo.jpg")
names = [predictor.categories[segment.category_id].name for segment in panoptic_map.segments]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from panoptic.checkpoints import categories_of, find_checkpoint, read_checkpoint
from panoptic.inference.networks import SecondRun, load_network
from panoptic.inference.test_time import PLAIN, TestTime
from panoptic.instantiation import build
from panoptic.models.joined import Network
from panoptic.models.network import ImageOutputs
from panoptic.structures import Category, FusionResult, PanopticMap, Sample

Configure = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """An image as the network takes it.

    Args:
        photograph: (3, H, W) uint8, RGB, as it was read.
        batch: (1, 3, H', W') uint8, resized and padded at the bottom and right.
        size: (h, w) in pixels after resizing, before padding.
    """

    photograph: Tensor
    batch: Tensor
    size: tuple[int, int]


class Predictor:
    """A network and its fusion, for one image after another; `prepare`, `forward` and `fuse` are its three steps.

    Args:
        network: trained, with weights loaded.
        fusion: `fuse_*` with its options bound.
        categories: of the predictions.
        resize: sample and seed to sample, as in the run's validation.
        device: where the network runs.
        infer: how the network looks at images, such as at several scales; by default, plainly.

    Raises:
        ValueError: the network cannot look at images like this.
    """

    def __init__(
        self,
        network: Network,
        fusion: Callable[..., FusionResult],
        categories: Sequence[Category],
        *,
        resize: Callable[[Sample, int], Sample],
        device: torch.device | str = "cpu",
        infer: TestTime = PLAIN,
    ) -> None:
        infer.check(network)
        self.infer = infer
        self.network = network.eval().to(device)
        self.fusion = fusion
        self.categories = tuple(categories)
        self.resize = resize
        self.device = torch.device(device)

    @classmethod
    def from_run(
        cls,
        run: str | Path,
        checkpoint: str = "best",
        device: torch.device | str | None = None,
        *,
        second: SecondRun | None = None,
        configure: Configure | None = None,
        infer: TestTime = PLAIN,
    ) -> Predictor:
        """Load a run's checkpoint: "best" (by its `monitor`), "last", or a path; the rest as `from_checkpoint`."""
        path = find_checkpoint(run, checkpoint)
        return cls.from_checkpoint(path, device, second=second, configure=configure, infer=infer)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: torch.device | str | None = None,
        *,
        second: SecondRun | None = None,
        configure: Configure | None = None,
        infer: TestTime = PLAIN,
    ) -> Predictor:
        """Load a checkpoint of `panoptic train`.

        Args:
            path: of the checkpoint.
            device: where the network runs; None is a GPU where there is one.
            second: a run of the same categories, whose heads' outputs are fused with those of the first; it sees images
                as the first resizes them.
            configure: makes the configuration of another one, to fuse otherwise than the run did.
            infer: how the network looks at images; by default, plainly, whatever the run's validation did.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a checkpoint of this package, of another format, or of another model than it says; a second
                run that does not fit.
        """
        content = read_checkpoint(path)
        config = content["panoptic"]["config"]
        if configure is not None:
            config = configure(config)
        network = load_network(content, path, second)
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        fusion, resize = build(config["fusion"]), build(config["data"]["eval_transform"])
        return cls(network, fusion, categories_of(content), resize=resize, device=chosen, infer=infer)

    def __call__(self, image: str | Path | np.ndarray | Tensor) -> PanopticMap:
        """Segment one image.

        Args:
            image: a file, an (H, W, 3) uint8 RGB array, or a (3, H, W) uint8 tensor.

        Returns:
            The prediction at the size of the image, on the CPU.
        """
        prepared = self.prepare(image)
        return self.fuse(self.forward(prepared), prepared)

    def prepare(self, image: str | Path | np.ndarray | Tensor) -> NetworkInput:
        """Read, resize and pad one image, on the CPU."""
        pixels = as_image(image)
        size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
        sample = self.resize(Sample(pixels, 0, str(image)[:200], None, None, size), 0)
        padded = self.network.size_rule.pad(*sample.size)
        bottom_right = (0, padded[1] - sample.size[1], 0, padded[0] - sample.size[0])
        return NetworkInput(pixels, F.pad(sample.image, bottom_right)[None], sample.size)

    @torch.inference_mode()
    def forward(self, prepared: NetworkInput) -> Mapping[str, Any]:
        """Run the network: {head: its output at the stride of the features}; the device may still be at work."""
        outputs, _ = self.infer(self.network, prepared.batch.to(self.device), [prepared.size])
        return outputs

    @torch.inference_mode()
    def fuse(self, outputs: Mapping[str, Any], prepared: NetworkInput) -> PanopticMap:
        """The prediction at the size of the image, on the CPU."""
        height, width = prepared.photograph.shape[-2:]
        fused = self.fusion(ImageOutputs(outputs, 0, prepared.size), self.categories, size=(int(height), int(width)))
        return fused.panoptic_map.to("cpu")


def as_image(image: str | Path | np.ndarray | Tensor) -> Tensor:
    """A file, array or tensor as (3, H, W) uint8, RGB; a photograph is turned as its EXIF data says.

    Raises:
        ValueError: a damaged file, or an array of another shape or type.
        FileNotFoundError: no such file.
    """
    if isinstance(image, (str, Path)):
        image = _read_photograph(Path(image).expanduser())
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"expected an (H, W, 3) uint8 RGB array, got {image.shape} {image.dtype}")
        image = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
        raise ValueError(f"expected a (3, H, W) uint8 tensor, got {tuple(image.shape)} {image.dtype}")
    return image.contiguous()


def _read_photograph(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as photograph:
            return _as_rgb(path, ImageOps.exif_transpose(photograph))
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not an image that can be read") from None
    except FileNotFoundError:
        raise FileNotFoundError(f"image {path} does not exist") from None
    except OSError as error:  # Pillow's way to say that data is missing
        raise ValueError(f"{path} is damaged: {error}") from None


def _as_rgb(path: Path, photograph: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8; of 16 bits per pixel the upper eight, which Pillow would clip instead."""
    if photograph.mode in ("I", "F"):
        raise ValueError(f"{path}: expected 8 or 16 bits per value, got 32; convert the image, its range is not known")
    if photograph.mode.startswith("I;16"):
        upper = (np.array(photograph) >> 8).astype(np.uint8)
        return np.repeat(upper[..., None], 3, axis=2)
    return np.array(photograph.convert("RGB"))
