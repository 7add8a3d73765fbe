"""Scales and flips against the paper's text, plain inference, symmetry and the books of memory."""

import gc
import math
import weakref

import pytest
import torch
from contracts.composed import batch_of, scene
from inference.random_networks import SCALES, SIZES, expected_probabilities, images_of, pad_to_rule, random_network

from panoptic.inference.test_time import PLAIN
from panoptic.inference.test_time import TestTime as Strategy


@torch.no_grad()
@pytest.mark.parametrize(("scales", "flip"), [(SCALES, False), ((1.0,), True), ((1.5,), False), ((1.5, 0.5), True)])
def test_the_mean_is_that_of_the_paper_for_each_image_of_a_batch(semantic, scales, flip):
    images = images_of(semantic)
    outputs, _ = Strategy(scales=scales, flip=flip)(semantic, images, SIZES)
    assert outputs["semantic"].padded_size == tuple(images.shape[-2:])
    assert outputs["semantic"].values.shape[-2:] == images.shape[-2:]
    for index, expected in enumerate(expected_probabilities(semantic, images, SIZES, scales, flip)):
        found = outputs["semantic"].image(index, SIZES[index])
        torch.testing.assert_close(found.exp(), expected.float(), atol=1e-5, rtol=0)
        torch.testing.assert_close(found.softmax(0), expected.float(), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_mean_differs_from_plain_inference_and_between_scales(semantic):
    images = images_of(semantic)
    found = [
        Strategy(scales=scales, flip=flip)(semantic, images, SIZES)[0]["semantic"].image(0, SIZES[0]).softmax(0)
        for scales, flip in (((1.0,), False), ((1.0,), True), ((0.5, 1.0), False), ((0.5,), False))
    ]
    for number, one in enumerate(found):
        assert all((one - other).abs().max() > 0.01 for other in found[:number])


@torch.no_grad()
def test_one_scale_without_flip_is_plain_inference_to_the_bit(deeperlab):
    images = images_of(deeperlab)
    outputs, features = Strategy(scales=[1])(deeperlab, images, SIZES)
    expected, expected_features = deeperlab(images, SIZES)
    assert list(outputs) == list(expected)
    assert all(torch.equal(outputs[name].values, expected[name].values) for name in expected)
    decoded = features["semantic"].levels["decoder"]
    assert torch.equal(decoded, expected_features["semantic"].levels["decoder"])
    assert Strategy() == PLAIN
    assert not PLAIN.averages


@torch.no_grad()
@pytest.mark.parametrize(("size", "scales"), [((33, 49), (1.0,)), ((35, 50), (1.0,)), ((35, 50), (0.75,))])
def test_the_prediction_of_a_flipped_image_is_flipped_to_the_bit(semantic, size, scales):
    images = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    images, flipped = (pad_to_rule(semantic, each) for each in (images, images.flip(-1)))
    strategy = Strategy(scales=scales, flip=True)
    one, other = (strategy(semantic, each, [size])[0]["semantic"].image(0, size) for each in (images, flipped))
    assert torch.equal(one, other.flip(-1))
    plain, of_flipped = (semantic(each, [size])[0]["semantic"].image(0, size) for each in (images, flipped))
    assert not torch.allclose(plain, of_flipped.flip(-1), atol=0.1)


@torch.no_grad()
def test_at_several_scales_it_is_flipped_within_rounding(semantic):
    size = (37, 51)
    images = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    strategy = Strategy(scales=(0.75, 1.0, 1.25), flip=True)
    images, flipped = (pad_to_rule(semantic, each) for each in (images, images.flip(-1)))
    one, other = (strategy(semantic, each, [size])[0]["semantic"].image(0, size) for each in (images, flipped))
    torch.testing.assert_close(one.exp(), other.flip(-1).exp(), atol=1e-6, rtol=0)


@torch.no_grad()
def test_other_heads_and_all_features_are_those_of_the_images_as_they_are(deeperlab):
    images = images_of(deeperlab)
    outputs, features = Strategy(scales=(0.5, 2.0), flip=True)(deeperlab, images, SIZES)
    expected, expected_features = deeperlab(images, SIZES)
    assert list(outputs) == list(expected)
    for name in expected:
        assert torch.equal(outputs[name].values, expected[name].values) == (name != "semantic")
        assert features[name].padded_size == expected_features[name].padded_size
        assert torch.equal(features[name].levels["c5"], expected_features[name].levels["c5"])


@torch.no_grad()
def test_losses_of_the_mean_are_its_negative_log_likelihood():
    network = random_network("heads=semantic", "fusion=semantic", "heads.semantic.hard_pixel_fraction=1.0")
    batch = batch_of(network, [scene(3), scene(7)])
    outputs, features = Strategy(flip=True)(network, batch.images, batch.image_sizes)
    found = network.losses(outputs, features, batch)["semantic_cross_entropy"]
    expected = []
    for index, target in enumerate(batch.targets["semantic"]):
        weights = torch.where(target.small_instances, 3.0, 1.0)
        likelihood = outputs["semantic"].image(index, (48, 64)).exp()
        labelled = target.semantic_map != 255
        own = likelihood.gather(0, target.semantic_map.long().clamp(max=len(likelihood) - 1)[None])[0]
        expected.append((-own.log() * weights)[labelled].sum() / labelled.sum())
    assert found.item() == pytest.approx(float(sum(expected) / 2), rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_mean_is_in_fp32_whatever_the_precision(semantic, dtype):
    images = images_of(semantic, SIZES[:1])
    with torch.autocast("cpu", dtype=dtype):
        assert semantic(images, SIZES[:1])[0]["semantic"].values.dtype == dtype
        outputs, _ = Strategy(scales=(0.5, 1.0), flip=True)(semantic, images, SIZES[:1])
        expected = expected_probabilities(semantic, images, SIZES[:1], (0.5, 1.0), True)[0]
    found = outputs["semantic"].values
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0, :, :8, :12].exp(), expected.float(), atol=1e-5, rtol=0)
    assert (found[0, :, :8, :12].exp().sum(0) - 1).abs().max() < 1e-5


@torch.no_grad()
def test_an_image_keeps_at_least_one_pixel(semantic):
    images = images_of(semantic, [(4, 30)])
    outputs, _ = Strategy(scales=(0.02,))(semantic, images, [(4, 30)])
    expected = expected_probabilities(semantic, images, [(4, 30)], (0.02,), False)[0]
    torch.testing.assert_close(outputs["semantic"].image(0, (4, 30)).exp(), expected.float(), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_category_without_any_chance_has_a_finite_logit():
    network = random_network("heads=semantic", "fusion=semantic")
    torch.nn.init.constant_(network.heads["semantic"].layers[-1].bias[2:3], -1e4)
    outputs, _ = Strategy(flip=True)(network, images_of(network), SIZES)
    found = outputs["semantic"].image(0, SIZES[0])
    assert found.isfinite().all()
    assert found[2].max() == pytest.approx(math.log(torch.finfo(torch.float32).tiny))
    assert found[[0, 1, *range(3, 11)]].exp().sum(0).min() > 0.999


def alive_before_each_run(network, strategy, images, sizes):
    """For each run of the backbone, how many earlier features and how many maps of all categories live then."""
    features, counts = [], []

    def before(module, arguments):
        maps = [each for each in gc.get_objects() if type(each) is torch.Tensor and each.shape[:2] == (1, 11)]
        large = {each.data_ptr() for each in maps if each.shape[2] >= sizes[0][0]}
        counts.append((sum(reference() is not None for reference in features), len(large)))

    def after(module, arguments, levels):
        features.extend(weakref.ref(level) for level in levels.values())

    backbone = network.paths[0].backbone
    hooks = [backbone.register_forward_pre_hook(before), backbone.register_forward_hook(after)]
    try:
        strategy(network, images, sizes)
    finally:
        for hook in hooks:
            hook.remove()
    return counts


@torch.no_grad()
def test_between_views_nothing_is_kept_but_the_sum(deeperlab):
    images = images_of(deeperlab, [(40, 60)])
    counts = alive_before_each_run(deeperlab, Strategy(scales=(0.75, 1.5), flip=True), images, [(40, 60)])
    assert counts == [(0, 0), (0, 1), (0, 1), (0, 1), (0, 1)]


@torch.no_grad()
def test_views_run_only_what_the_head_needs(deeperlab):
    ran = dict.fromkeys(deeperlab.heads, 0)
    hooks = [
        head.register_forward_hook(lambda *_, name=name: ran.update({name: ran[name] + 1}))
        for name, head in deeperlab.heads.items()
    ]
    Strategy(scales=(0.5, 0.75), flip=True)(deeperlab, images_of(deeperlab), SIZES)
    for hook in hooks:
        hook.remove()
    assert ran == {"semantic": 5, "heatmap": 1, "short_range": 1, "middle_range": 1, "long_range": 1}
