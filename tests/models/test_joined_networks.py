"""Two networks side by side give what each gives alone."""

import pytest
import torch
from contracts.composed import batch_of, compose, network_of, scene
from torch.nn import functional as F

from panoptic.models.joined import JoinedNetworks
from panoptic.models.network import PanopticNetwork
from panoptic.structures import ImageStatistics, SizeRule

pytestmark = pytest.mark.slow

SIZES = [(48, 64), (37, 61)]


@pytest.fixture
def networks():
    """Semantic segmentation at 16k + 1; DeeperLab's instance heads at sizes of another rule, with other statistics."""
    first = network_of(compose("heads=semantic", "fusion=semantic"), seed=1)
    second = network_of(compose("~heads.semantic", "loss_weights={}"), seed=2)
    second.paths[0].decoder.size_rule = SizeRule(32)
    other = PanopticNetwork(second.paths, ImageStatistics(mean=(0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7)))
    return first.eval(), other.eval()


def padded(images, height, width):
    return F.pad(images[..., :48, :64], (0, width - 64, 0, height - 48))


@torch.no_grad()
def test_outputs_are_those_of_each_network_at_its_own_size(networks):
    first, second = networks
    joined = JoinedNetworks(first, second).eval()
    assert joined.size_rule.pad(48, 64) == (48, 64)
    assert list(joined.heads) == ["semantic", "heatmap", "short_range", "middle_range", "long_range"]
    assert joined.loss_names == [*first.loss_names, *second.loss_names]
    assert list(joined.encoders) == list(joined.heads)
    assert len(joined.paths) == 2
    images = torch.randint(0, 256, (2, 3, 50, 66), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    outputs, features = joined(images, SIZES)
    for network, size in ((first, (49, 65)), (second, (64, 64))):
        expected, _ = network(padded(images, *size), SIZES)
        for name in network.heads:
            assert features[name].padded_size == outputs[name].padded_size == size
            for index, image_size in enumerate(SIZES):
                found = outputs[name].image(index, image_size)
                assert torch.equal(found, expected[name].image(index, image_size))


@torch.no_grad()
def test_losses_are_those_of_each_network(networks):
    first, second = networks
    joined = JoinedNetworks(first, second).eval()
    samples = [scene(3), scene(7)]
    outputs, features = joined(batch_of(joined, samples).images, [sample.size for sample in samples])
    losses = joined.losses(outputs, features, batch_of(joined, samples))
    expected = {}
    for network in networks:
        batch = batch_of(network, samples)
        expected |= network.losses(*network(batch.images, batch.image_sizes), batch)
    assert list(losses) == list(expected) == joined.loss_names
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=1e-5), name
    assert [tensor.shape for tensor in joined.shared(features)] == [t.shape for t in second.shared(features)]


def test_a_head_in_both_is_an_error_that_says_how_to_choose(networks):
    first, _ = networks
    deeperlab = network_of(compose())
    message = r"both runs have heads \['semantic'\].*with_heads=\[heatmap,long_range,middle_range,short_range\]"
    with pytest.raises(ValueError, match=message):
        JoinedNetworks(first, deeperlab)
