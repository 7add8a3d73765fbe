"""What every head of `conf/head` promises, beside a semantic head on the same decoder."""

import pickle
from dataclasses import replace

import pytest
import torch
from composed import batch_of, choices, compose, network_of, scene, unlabelled, without_things

from panoptic.models.heads.base import DenseOutput
from panoptic.models.network import ImageOutputs

WITH_THINGS = [0, 1, 2]
UNEQUAL = [(0, (48, 64)), (1, (50, 71)), (2, (33, 40))]


@pytest.fixture(scope="module", params=choices("head"))
def network(request):
    """A network with the head `tested`, built once per head, with the running statistics of one batch."""
    network = network_of(compose("heads=semantic", f"+head@heads.tested={request.param}"))
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0
    batch = batch_of(network, [scene(index) for index in WITH_THINGS])
    network.train()(batch.images, batch.image_sizes)
    return network


def losses_of(network, batch):
    """{name: loss} of the tested head, and the decoder's features that it shares with the semantic head."""
    outputs, features = network(batch.images, batch.image_sizes)
    losses = network.losses(outputs, features, batch)
    return {name: loss for name, loss in losses.items() if name.startswith("tested_")}, network.shared(features)


def gradients_of(network, batch):
    """{name of loss: (gradients of shared features, {name of parameter: gradient})}."""
    losses, shared = losses_of(network.train(), batch)
    named = dict(network.heads["tested"].named_parameters())
    gradients = {}
    for name, loss in losses.items():
        found = torch.autograd.grad(loss, [*shared, *named.values()], retain_graph=True, allow_unused=True)
        gradients[name] = found[: len(shared)], dict(zip(named, found[len(shared) :], strict=True))
    return gradients


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
    batch = batch_of(network, [scene(index) for index in WITH_THINGS])
    for name, (shared, own) in gradients_of(network, batch).items():
        assert len(shared) == 1
        for gradient in shared:
            assert gradient is not None, name
            assert gradient.isfinite().all()
            assert gradient.flatten(1).abs().sum(1).min() > 0, f"{name} ignores an image"
        untouched = [parameter for parameter, gradient in own.items() if gradient is None or not gradient.any()]
        assert not untouched, f"{name} does not train {untouched}"


@pytest.mark.parametrize("emptied", [without_things, unlabelled])
def test_images_without_things_or_labels_give_finite_losses_and_gradients(network, emptied):
    batch = batch_of(network, [emptied(scene(index)) for index in WITH_THINGS])
    losses, _ = losses_of(network.train(), batch)
    assert all(loss.isfinite() for loss in losses.values())
    for name, (shared, own) in gradients_of(network, batch).items():
        for gradient in [*shared, *own.values()]:
            assert gradient is not None, f"{name} is cut off from the graph, which distributed training forbids"
            assert gradient.isfinite().all()


def test_images_of_unequal_size_train_together(network):
    batch = batch_of(network, [scene(index, size) for index, size in UNEQUAL])
    assert batch.padded_size == (65, 81)
    for shared, own in gradients_of(network, batch).values():
        assert all(gradient.isfinite().all() for gradient in [*shared, *own.values()])
    outputs, _ = network(batch.images, batch.image_sizes)
    for index, (_, size) in enumerate(UNEQUAL):
        assert ImageOutputs(outputs, index, size)["tested"].shape[-2:] == size


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
        torch.testing.assert_close(
            ImageOutputs(together, index, sample.size)["tested"],
            ImageOutputs(outputs, 0, sample.size)["tested"],
            rtol=1e-4,
            atol=1e-5,
        )
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


def test_perfect_outputs_look_like_the_heads_own_and_cost_nothing(network):
    head = network.heads["tested"]
    batch = batch_of(network.eval(), [scene(index, size) for index, size in UNEQUAL])
    outputs, features = network(batch.images, batch.image_sizes)
    perfect = head.as_outputs(batch.targets["tested"], features["tested"])
    assert type(perfect) is type(outputs["tested"])
    assert perfect.upsampled().shape == outputs["tested"].upsampled().shape
    assert perfect.upsampled().dtype == outputs["tested"].upsampled().dtype
    for term, loss in head.losses(perfect, features["tested"], batch.targets["tested"]).items():
        assert loss == 0 if term == "l1" else 0 <= loss < 1e-7, term


def test_the_encoder_travels_to_workers(network):
    encode = network.heads["tested"].encode
    there = pickle.loads(pickle.dumps(encode))
    torch.testing.assert_close(vars(there(scene(0))), vars(encode(scene(0))), rtol=0, atol=0)


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
