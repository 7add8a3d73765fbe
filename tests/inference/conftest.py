"""A predictor whose maps differ from image to image, without a training."""

import cv2
import numpy as np
import pytest
import torch

from panoptic.assembly import build_data, build_module
from panoptic.configuration import load_config, resolved
from panoptic.inference.predictor import Predictor


@pytest.fixture(scope="session")
def random_predictor():
    """A network of random weights whose fusion finds instances."""
    torch.manual_seed(0)
    words = ["experiment=deeperlab_scenes", "data.train.length=2", "data.val.length=1", "data.num_workers=0"]
    config = resolved(load_config("train", [*words, "fusion.score_threshold=0.0"]))
    data = build_data(config)
    module = build_module(config, data)
    for part in module.network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.weight, 0.5, 3.0)
            torch.nn.init.normal_(part.bias)
    return Predictor(module.network, module.fusion, data.categories, resize=data.eval_transform)


@pytest.fixture
def photographs(tmp_path):
    """Eight files of smooth colours and different sizes, in order of their names."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(8):
        size = tuple(int(side) for side in rng.integers(40, 120, 2))
        pixels = cv2.resize(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), size[::-1])
        cv2.imwrite(str(folder / f"key_{number}.png"), pixels)
    return sorted(folder.iterdir())
