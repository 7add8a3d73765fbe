"""Networks and a predictor whose outputs differ everywhere, without a training; photographs for them."""

import cv2
import numpy as np
import pytest
from inference.random_networks import random_network
from untrained_runs import untrained

from panoptic.inference.predictor import Predictor


@pytest.fixture(scope="session")
def random_predictor():
    """A network of random weights whose fusion finds instances."""
    words = ["experiment=deeperlab_scenes", "data.train.length=2", "data.val.length=1", "data.num_workers=0"]
    _, data, module = untrained(*words, "fusion.score_threshold=0.0")
    return Predictor(module.network, module.fusion, data.categories, resize=data.eval_transform)


@pytest.fixture(scope="module")
def semantic():
    """A network with a semantic head alone."""
    return random_network("heads=semantic", "fusion=semantic")


@pytest.fixture(scope="module")
def deeperlab():
    """A whole DeeperLab."""
    return random_network()


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
