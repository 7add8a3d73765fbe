"""Two and three processes train as one does: losses, gradients, parameters and what the log says."""

from functools import cache

import pytest
import torch
from recorded_training import GLOBAL_BATCH, STEPS, compose, data_and_module, train_frozen

from panoptic.configuration import config_folder

CONF = config_folder()
SMALL_EXPERIMENTS = [
    name
    for name in sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
    if compose(f"experiment={name}")["backbone"]["name"].startswith("test_")
]
BALANCERS = sorted(path.stem for path in (CONF / "balancing").glob("*.yaml"))
CASES = [(f"experiment={name}",) for name in SMALL_EXPERIMENTS if name.endswith("_scenes")]
CASES += [  # networks that one of those has too, with other data
    pytest.param((f"experiment={name}",), marks=pytest.mark.very_slow)
    for name in SMALL_EXPERIMENTS
    if not name.endswith("_scenes")
]
CASES += [("experiment=oanet_scenes", "balancing=pcgrad"), ("experiment=deeperlab_scenes", "balancing=famo")]
CASES += [  # of every strategy test_balancing_over_processes.py trains a smaller network
    pytest.param(("experiment=deeperlab_scenes", f"balancing={name}"), marks=pytest.mark.very_slow)
    for name in BALANCERS
    if name not in ("fixed", "famo")
]

ROUNDING = 1e-6
"""The network computes in fp64 here and its losses in fp32: a mean over 6 images and the mean of 3 means over 2 differ
in the last bit of a loss, 1.2e-7 of it, and the gradients with it."""


@cache
def in_one_process(*overrides):
    return train_frozen(*overrides)


def test_there_are_small_experiments():
    assert "deeperlab_scenes" in SMALL_EXPERIMENTS


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [pytest.param(2, marks=pytest.mark.very_slow), 3])
@pytest.mark.parametrize("choice", CASES, ids="-".join)
def test_processes_train_as_one_does(gloo, choice, num_processes):
    overrides = [*choice, "data.val.length=1"]
    one = in_one_process(*overrides)
    records = gloo.run(num_processes, train_frozen, *overrides)
    assert len(one.logged) == len(one.gradients) == STEPS
    for step in range(STEPS):
        for name, expected in one.local_losses[step].items():
            shares = [record.local_losses[step][name] for record in records]
            assert sum(shares) / num_processes == pytest.approx(expected, rel=ROUNDING), (step, name)
            assert len(set(shares)) > 1, "expected shares that differ, or the mean says nothing"
        for record in records:
            losses, weights = split(record.logged[step])
            expected_losses, expected_weights = split(one.logged[step])
            assert losses == pytest.approx(expected_losses, rel=ROUNDING)
            assert weights == pytest.approx(expected_weights, abs=ROUNDING * max(expected_weights.values()))
            assert_close(record.gradients[step], one.gradients[step], ROUNDING * largest(one.gradients[step]))
    # Of all together: Adam divides by the size of each gradient, which enlarges the rounding of those near zero, to
    # 1.5e-5 of the way in DeepLabv3. All elements go about as far: one of a million that went otherwise is 1e-3 of it.
    start = dict(data_and_module(*overrides)[1].named_parameters())
    way = distance(one.parameters, start)
    for record in records:
        assert distance(record.parameters, one.parameters) < 1e-4 * way
        assert all(torch.equal(record.parameters[name], value) for name, value in records[0].parameters.items())


def split(logged):
    """What is logged of losses, and of their weights."""
    weights = {name: value for name, value in logged.items() if name.startswith("weight_")}
    return {name: value for name, value in logged.items() if name not in weights}, weights


def assert_close(found, expected, tolerance):
    """Every tensor by name, to an absolute tolerance."""
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}")


def distance(one, other):
    """Euclidean distance over all parameters."""
    assert list(one) == list(other)
    return sum((one[name].double() - other[name].double()).square().sum().item() for name in one) ** 0.5


def largest(tensors):
    return max(tensor.abs().max().item() for tensor in tensors.values())


def test_a_batch_that_cannot_be_divided_is_an_error_that_names_the_nearest():
    data, _ = data_and_module("experiment=deeperlab_scenes")
    data.trainer = type("Trainer", (), {"global_rank": 1, "world_size": 4})()
    with pytest.raises(ValueError, match=f"batch_size {GLOBAL_BATCH} cannot be divided among 4 processes; use 4 or 8"):
        data.train_dataloader()


FITTING = {
    "deeperlab": ("bottom_up", ["bilinear", "bilinear_small", "none", "none_small", "s2d", "s2d_light", "s2d_small"]),
    "semantic": ("semantic", ["bilinear", "bilinear_small", "none", "none_small", "s2d", "s2d_light", "s2d_small"]),
    "deeplabv3": ("semantic", ["deeplabv3", "deeplabv3_small", "none", "none_small"]),
    "mask_rcnn": ("instances", ["fpn", "fpn_small"]),
    "fusion_scheme": ("region_growing", ["fpn", "fpn_small"]),
    "oanet": ("spatial_ranking", ["fpn_rpn_features", "fpn_rpn_features_small"]),
}
"""A fusion and the decoders for the heads whose names begin so."""


def combinations():
    for heads in sorted(path.stem for path in (CONF / "heads").glob("*.yaml")):
        fusion, decoders = FITTING[heads.removesuffix("_small")]
        yield from ((heads, fusion, decoder) for decoder in decoders)


def test_every_decoder_has_heads():
    assert {decoder for _, _, decoder in combinations()} == {path.stem for path in (CONF / "decoder").glob("*.yaml")}


@pytest.mark.slow
@pytest.mark.parametrize(("heads", "fusion", "decoder"), combinations())
def test_every_parameter_has_a_gradient(heads, fusion, decoder):
    """Processes exchange gradients as they come, and would wait for one that never does."""
    parts = [f"decoder={decoder}", f"heads={heads}", f"fusion={fusion}"]
    stride = 32 if decoder.startswith("fpn") else 16
    data, module = data_and_module("experiment=deeperlab_scenes", *parts, f"backbone.output_stride={stride}")
    batch = next(iter(data.train_dataloader()))
    network = module.network.train()
    outputs, features = network(batch.images, batch.image_sizes)
    torch.stack(list(network.losses(outputs, features, batch).values())).sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
