"""What every head of `conf/head` promises, beside a semantic head on the same decoder."""

import pickle
from dataclasses import replace

import pytest
import torch
from batch_norms import norms
from composed import (
    PARTS,
    as_tensors,
    batch_of,
    choices,
    compose,
    network_of,
    scene,
    small_mask_rcnn,
    unlabelled,
    without_things,
)

from panoptic.models.heads.base import DenseOutput
from panoptic.models.network import ImageOutputs
from panoptic.structures import Detections

pytestmark = pytest.mark.slow

WITH_THINGS = [0, 1, 2]
UNEQUAL = [(0, (48, 64)), (1, (50, 71)), (2, (33, 40))]


@pytest.fixture(scope="module", params=choices("head"))
def network(request):
    """A network with the head `tested`, built once per head, with the running statistics of one batch."""
    parts = PARTS.get(request.param, [])
    network = network_of(compose("heads=semantic", *parts, f"+head@heads.tested={request.param}"))
    for part in norms(network):
        part.momentum = 1.0
    batch = batch_of(network, [scene(index) for index in WITH_THINGS])
    network.train()(batch.images, batch.image_sizes)
    return network


def losses_of(network, batch):
    """{name: loss} of the tested head, and the features that it shares with the semantic head."""
    outputs, features = network(batch.images, batch.image_sizes)
    losses = network.losses(outputs, features, batch)
    return {name: loss for name, loss in losses.items() if name.startswith("tested_")}, network.shared(features)


def gradients_of(network, batch):
    """{name of loss: (gradients of shared features, {name of parameter: gradient})}, None where there is no path."""
    losses, shared = losses_of(network.train(), batch)
    named = dict(network.heads["tested"].named_parameters())
    gradients = {}
    for name, loss in losses.items():
        found = torch.autograd.grad(loss, [*shared, *named.values()], retain_graph=True, allow_unused=True)
        gradients[name] = found[: len(shared)], dict(zip(named, found[len(shared) :], strict=True))
    return gradients


def check_reach(head, gradients):
    """Every loss reaches the features if the head reads any, all together every parameter, and nothing diverges."""
    for name, (shared, own) in gradients.items():
        reached = [gradient for gradient in shared if gradient is not None]
        assert bool(reached) == head.reads_features, name
        for gradient in [*reached, *own.values()]:
            assert gradient is None or gradient.isfinite().all(), name
    for parameter in dict(head.named_parameters()):
        paths = [name for name, (_, own) in gradients.items() if own[parameter] is not None]
        assert paths, f"{parameter} is cut off from the graph, which distributed training forbids"


def test_losses_are_finite_scalars_named_after_head_and_term(network):
    losses, _ = losses_of(network.train(), batch_of(network, [scene(index) for index in WITH_THINGS]))
    assert list(losses) == [f"tested_{term}" for term in network.heads["tested"].terms]
    assert set(losses) <= set(network.loss_names)
    for loss in losses.values():
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert loss > 0


def test_each_loss_reaches_the_decoder_and_every_parameter_of_the_head(network):
    head, batch = network.heads["tested"], batch_of(network, [scene(index) for index in WITH_THINGS])
    gradients = gradients_of(network, batch)
    check_reach(head, gradients)
    for name, (shared, _) in gradients.items():
        of_images = sum(gradient.flatten(1).abs().sum(1) for gradient in shared if gradient is not None)
        assert not head.reads_features or of_images.min() > 0, f"{name} ignores an image"
    for parameter in dict(head.named_parameters()):
        values = [own[parameter] for _, own in gradients.values() if own[parameter] is not None]
        assert any(value.any() for value in values), f"no loss trains {parameter}"


@pytest.mark.parametrize("emptied", [without_things, unlabelled])
def test_images_without_things_or_labels_give_finite_losses_and_gradients(network, emptied):
    batch = batch_of(network, [emptied(scene(index)) for index in WITH_THINGS])
    losses, _ = losses_of(network.train(), batch)
    assert all(loss.isfinite() for loss in losses.values())
    check_reach(network.heads["tested"], gradients_of(network, batch))


def test_images_of_unequal_size_train_together(network):
    batch = batch_of(network, [scene(index, size) for index, size in UNEQUAL])
    assert batch.padded_size in [(65, 81), (64, 96)]  # 16k + 1, or multiples of 32
    check_reach(network.heads["tested"], gradients_of(network, batch))
    outputs, _ = network.eval()(batch.images, batch.image_sizes)
    for index, (_, size) in enumerate(UNEQUAL):
        found = ImageOutputs(outputs, index, size)["tested"]
        assert (found.image_size if isinstance(found, Detections) else found.shape[-2:]) == size


@torch.no_grad()
def test_a_batch_in_eval_mode_equals_its_images_one_by_one(network):
    samples = [scene(index) for index in WITH_THINGS]
    batch = batch_of(network.eval(), samples)
    together, features = network(batch.images, batch.image_sizes)
    losses = network.losses(together, features, batch)
    alone = []
    for index, sample in enumerate(samples):
        single = batch_of(network, [sample])
        outputs, features = network(single.images, single.image_sizes)
        alone.append(network.losses(outputs, features, single))
        one, other = (ImageOutputs(given, n, sample.size)["tested"] for given, n in ((together, index), (outputs, 0)))
        torch.testing.assert_close(as_tensors(one), as_tensors(other), rtol=1e-4, atol=1e-4)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, torch.stack([one[name] for one in alone]).mean(), rtol=1e-4, atol=1e-6)


def test_padding_carries_no_loss_and_every_image_counts_the_same(network):
    head = network.heads["tested"]
    batch = batch_of(network.eval(), [scene(index, size) for index, size in UNEQUAL])
    _, features = network(batch.images, batch.image_sizes)
    perfect = head.as_outputs(batch.targets["tested"], features["tested"])
    if not isinstance(perfect, DenseOutput):
        pytest.skip("an output without pixels has no padding")
    noise = torch.randn(perfect.values.shape, generator=torch.Generator().manual_seed(0))
    wrong = replace(perfect, values=perfect.values / 4 + noise)
    together = head.losses(wrong, features["tested"], batch.targets["tested"])
    alone = []
    for index, (number, size) in enumerate(UNEQUAL):
        single = batch_of(network, [scene(number, size)])
        _, features = network(single.images, single.image_sizes)
        height, width = single.padded_size
        values = torch.full((1, noise.shape[1], height, width), 1e3)
        values[..., : size[0], : size[1]] = wrong.values[index, :, : size[0], : size[1]]
        cropped = replace(wrong, values=values, padded_size=(height, width))
        alone.append(head.losses(cropped, features["tested"], single.targets["tested"]))
    for term, loss in together.items():
        torch.testing.assert_close(loss, torch.stack([one[term] for one in alone]).mean())


def test_fusion_reads_the_same_kind_of_a_perfect_head(network):
    batch = batch_of(network.eval(), [scene(index, size) for index, size in UNEQUAL])
    outputs, features = network(batch.images, batch.image_sizes)
    perfect = network.heads["tested"].as_outputs(batch.targets["tested"], features["tested"])
    for index, (_, size) in enumerate(UNEQUAL):
        own, wanted = outputs["tested"].image(index, size), perfect.image(index, size)
        assert type(own) is type(wanted)
        if isinstance(wanted, Detections):
            assert own.image_size == wanted.image_size
        else:
            assert own.shape == wanted.shape
            assert own.dtype == wanted.dtype


def test_perfect_outputs_look_like_the_heads_own_and_cost_nothing(network):
    head = network.heads["tested"]
    batch = batch_of(network.eval(), [scene(index, size) for index, size in UNEQUAL])
    outputs, features = network(batch.images, batch.image_sizes)
    if not isinstance(outputs["tested"], DenseOutput):
        pytest.skip("its losses are not of what fusion reads")
    perfect = head.as_outputs(batch.targets["tested"], features["tested"])
    assert isinstance(perfect, DenseOutput)
    assert perfect.upsampled().shape == outputs["tested"].upsampled().shape
    assert perfect.upsampled().dtype == outputs["tested"].upsampled().dtype
    for term, loss in head.losses(perfect, features["tested"], batch.targets["tested"]).items():
        assert loss == 0 if term == "l1" else 0 <= loss < 1e-7, term


def test_a_moving_average_keeps_what_the_head_looks_up(network):
    """Averages of weights take buffers too, and whole numbers do not survive them."""
    kept = [name for name, buffer in network.heads["tested"].named_buffers() if not buffer.is_floating_point()]
    assert not [name for name in kept if not name.endswith("num_batches_tracked")]


def test_the_encoder_travels_to_workers(network):
    encode = network.heads["tested"].encode
    there = pickle.loads(pickle.dumps(encode))
    torch.testing.assert_close(as_tensors(there(scene(0))), as_tensors(encode(scene(0))), rtol=0, atol=0)


@pytest.mark.parametrize(
    "options",
    [
        ["deep_head=false"],
        ["decoder=s2d"],
        ["decoder=s2d", "decoder.aspp=false", "decoder.kernel_size=3", "deep_head=false"],
        ["decoder=none", "decoder.aspp=false", "deep_head=false"],
    ],
    ids=" ".join,
)
def test_whatever_is_left_out_the_losses_train_every_parameter(options):
    network = network_of(compose("heads=deeperlab", *options)).train()
    batch = batch_of(network, [scene(index, size) for index, size in UNEQUAL])
    outputs, features = network(batch.images, batch.image_sizes)
    losses = network.losses(outputs, features, batch)
    assert len(losses) == 5
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    untouched = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not untouched
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("sharing", choices("sharing"))
@pytest.mark.parametrize(
    ("heads", "decoder"), [("oanet_small", "fpn_rpn_features_small"), ("fusion_scheme_small", "fpn_small")]
)
@pytest.mark.parametrize("seen_as", [lambda sample: sample, without_things], ids=["things", "no things"])
def test_whatever_is_shared_the_losses_train_every_parameter(heads, decoder, sharing, seen_as):
    parts = [f"heads={heads}", f"decoder={decoder}", f"sharing={sharing}", "backbone.output_stride=32"]
    network = network_of(compose(*parts, *small_mask_rcnn("instances"))).train()
    batch = batch_of(network, [seen_as(scene(index, size)) for index, size in UNEQUAL])
    outputs, features = network(batch.images, batch.image_sizes)
    losses = network.losses(outputs, features, batch)
    assert list(losses) == network.loss_names
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    untouched = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not untouched
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
