from itertools import pairwise

import numpy as np
import pytest
import torch
from drawn import draw

from panoptic.data.transforms import EvalTransform, TrainTransform, WholeImageTransform, mean_colour
from panoptic.structures import ImageStatistics, Instances, PanopticMap, Sample, Segment

pytestmark = pytest.mark.slow

STILL = {"scale": (1.0, 1.0), "flip": 0.0, "colour": 0.0}
"""Nothing but the crop."""


def blocks(height, width, *, seed=0, cell=4):
    """A map of square cells, each a segment of its own with a random id; one is 2^24 - 1, the first is void."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = -(-height // cell), -(-width // cell)
    ids = torch.randperm(2**24 - 2, generator=generator)[: rows * columns] + 1
    ids[0], ids[-1] = 0, 2**24 - 1
    segment_ids = ids.reshape(rows, columns).repeat_interleave(cell, 0).repeat_interleave(cell, 1)[:height, :width]
    segments = [Segment(int(i), int(i) % 3, is_crowd=int(i) % 5 == 0) for i in ids.tolist() if i]
    return PanopticMap(segment_ids.contiguous(), segments)


def paint(panoptic_map):
    """An image whose colours are the ids: red + 256 green + 65536 blue."""
    ids = panoptic_map.segment_ids
    return torch.stack([ids % 256, ids // 256 % 256, ids // 65536]).to(torch.uint8)


def ids_of(image):
    """Inverse of `paint`."""
    red, green, blue = image.long()
    return red + 256 * green + 65536 * blue


def sample_of(panoptic_map, image=None, instances=None):
    image = paint(panoptic_map) if image is None else image
    return Sample(image, 1, "painted", panoptic_map, instances, panoptic_map.size)


def instances_of(panoptic_map, ids):
    masks = torch.stack([panoptic_map.segment_ids == i for i in ids])
    count = len(ids)
    return Instances(
        torch.arange(count), masks, torch.zeros(count, 4), torch.linspace(0, 1, count), torch.arange(count) % 2 == 1
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_crop_equals_slicing(seed):
    before = sample_of(blocks(23, 31))
    after = TrainTransform((11, 13), **STILL)(before, seed)
    ids, cropped = before.panoptic_map.segment_ids, after.panoptic_map.segment_ids
    places = [(y, x) for y in range(13) for x in range(19) if torch.equal(ids[y : y + 11, x : x + 13], cropped)]
    assert len(places) == 1
    ((y, x),) = places
    assert torch.equal(after.image, before.image[:, y : y + 11, x : x + 13])


def test_crops_of_different_seeds_reach_every_border():
    before = sample_of(blocks(23, 31))
    crops = [TrainTransform((11, 13), **STILL)(before, seed).panoptic_map.segment_ids for seed in range(150)]
    ids = before.panoptic_map.segment_ids
    assert any(torch.equal(crop[0], ids[0, x : x + 13]) for crop in crops for x in range(19))
    assert any(torch.equal(crop[-1], ids[-1, x : x + 13]) for crop in crops for x in range(19))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_image_and_map_stay_aligned_through_flip_crop_and_padding(seed):
    transform = TrainTransform((29, 27), scale=(1.0, 1.0), flip=0.5, colour=0.0)
    after = transform(sample_of(blocks(23, 31)), seed)
    ids, labelled = after.panoptic_map.segment_ids, after.panoptic_map.segment_ids != 0
    assert labelled.sum() > 400
    assert torch.equal(ids_of(after.image)[labelled], ids[labelled])


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.0, 1.3, 2.0])
def test_image_and_map_stay_aligned_through_scaling(scale):
    """Where a pixel lies well inside a segment, interpolation leaves the colour alone, so it must be the segment's."""
    transform = TrainTransform((64, 96), scale=(scale, scale), flip=0.0, colour=0.0)
    after = transform(sample_of(blocks(64, 96, cell=16)), 5)
    ids = after.panoptic_map.segment_ids
    pure = torch.ones_like(ids, dtype=torch.bool)
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        pure &= ids.roll((dy, dx), (0, 1)) == ids
    pure &= ids != 0
    assert pure.sum() > 700
    differing = ids_of(after.image)[pure] != ids[pure]
    assert differing.float().mean() < 0.1  # at most the pixels beside a border


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_borders_of_image_and_map_do_not_drift_apart(scale):
    """The border of a black and white image is at half brightness, and there the map must change."""
    ids = torch.ones(40, 60, dtype=torch.int64)
    ids[:, 24:] = 2
    panoptic_map = PanopticMap(ids, [Segment(1, 0), Segment(2, 1)])
    image = ((ids - 1) * 255).to(torch.uint8).expand(3, -1, -1)
    after = TrainTransform((20, 30), scale=(scale, scale), flip=0.0, colour=0.0)(sample_of(panoptic_map, image), 6)
    bright = after.image[0] > 127
    assert torch.equal(bright, after.panoptic_map.segment_ids == 2)


def test_every_id_survives_scaling_exactly():
    before = blocks(24, 32, cell=8)
    after = TrainTransform((48, 64), scale=(2.0, 2.0), flip=0.0, colour=0.0)(sample_of(before), 0).panoptic_map
    # twice the size of whole pixels: each becomes a block of 2 x 2
    assert torch.equal(after.segment_ids, before.segment_ids.repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert 2**24 - 1 in [segment.id for segment in after.segments]


def test_flipping_twice_gives_the_sample_back():
    before = sample_of(blocks(23, 31))
    flip = TrainTransform((23, 31), scale=(1.0, 1.0), flip=1.0, colour=0.0)
    once = flip(before, 0)
    assert torch.equal(once.panoptic_map.segment_ids, before.panoptic_map.segment_ids.flip(-1))
    twice = flip(once, 1)
    assert torch.equal(twice.image, before.image)
    assert torch.equal(twice.panoptic_map.segment_ids, before.panoptic_map.segment_ids)


@pytest.mark.slow
def test_padding_is_void_in_the_mean_colour_even_when_colours_change():
    statistics = ImageStatistics(mean=(0.2, 0.4, 0.6))
    transform = TrainTransform((29, 37), scale=(1.0, 1.0), flip=0.0, colour=0.9, image_statistics=statistics)
    for seed in range(5):
        after = transform(sample_of(blocks(23, 31)), seed)
        assert after.size == (29, 37)
        outside = torch.ones(29, 37, dtype=torch.bool)
        outside[:23, :31] = False
        assert (after.panoptic_map.segment_ids[outside] == 0).all()
        assert (after.image[:, outside] == torch.tensor([[51], [102], [153]])).all()  # 255 times the mean
    assert mean_colour(statistics) == (51, 102, 153)


def test_the_table_lists_exactly_the_ids_of_the_map_with_their_areas():
    before = sample_of(blocks(23, 31))
    crowd = {segment.id: (segment.category_id, segment.is_crowd) for segment in before.panoptic_map.segments}
    for seed in range(20):
        after = TrainTransform((9, 10))(before, seed).panoptic_map
        ids, areas = np.unique(after.segment_ids.numpy(), return_counts=True)
        counted = {int(i): int(area) for i, area in zip(ids, areas, strict=True) if i}
        assert {segment.id: segment.area for segment in after.segments} == counted
        assert all((segment.category_id, segment.is_crowd) == crowd[segment.id] for segment in after.segments)


def test_instances_follow_the_map():
    panoptic_map = blocks(24, 32, cell=8)
    ids = [segment.id for segment in panoptic_map.segments]
    instances = instances_of(panoptic_map, ids)
    for seed in range(10):
        after = TrainTransform((13, 15), scale=(1.0, 2.0))(sample_of(panoptic_map, instances=instances), seed)
        seen = [i for i in ids if (after.panoptic_map.segment_ids == i).any()]
        assert 0 < len(seen) < len(ids)
        rows = [ids.index(i) for i in seen]
        assert after.instances.category_ids.tolist() == rows
        assert torch.equal(after.instances.scores, instances.scores[rows])
        assert torch.equal(after.instances.is_crowd, instances.is_crowd[rows])
        for i, mask, box in zip(seen, after.instances.masks, after.instances.boxes.tolist(), strict=True):
            assert torch.equal(mask, after.panoptic_map.segment_ids == i)
            ys, xs = mask.nonzero(as_tuple=True)
            assert box == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_no_instances_stay_no_instances():
    panoptic_map = blocks(24, 32)
    none = Instances(
        *(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 24, 32, dtype=torch.bool), torch.zeros(0, 4)),
        torch.zeros(0),
        torch.zeros(0, dtype=torch.bool),
    )
    after = TrainTransform((13, 15))(sample_of(panoptic_map, instances=none), 0)
    assert after.instances.masks.shape == (0, 13, 15)
    assert TrainTransform((13, 15))(sample_of(panoptic_map), 0).instances is None


def test_an_image_without_ground_truth_is_transformed_too():
    image = torch.zeros(3, 24, 32, dtype=torch.uint8)
    after = EvalTransform(16)(Sample(image, 1, "photograph", None, None, (24, 32)))
    assert after.size == (12, 16)
    assert after.panoptic_map is None


def test_the_same_seed_gives_the_same_sample():
    before = sample_of(blocks(23, 31))
    first, second = TrainTransform((20, 20)), TrainTransform((20, 20))
    for seed in (0, 1, 2**63):
        one, _, other = first(before, seed), second(before, seed + 1), second(before, seed)
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.panoptic_map.segment_ids, other.panoptic_map.segment_ids)


def test_different_seeds_give_different_samples():
    before = sample_of(blocks(23, 31))
    images = [TrainTransform((20, 20))(before, seed).image for seed in range(20)]
    assert not any(torch.equal(one, other) for one, other in pairwise(images))


def test_scale_position_and_flip_are_drawn_independently():
    """From one seed for all of them, a large scale would always come with the same corner."""
    panoptic_map = draw(*["".join(chr(ord("a") + x // 10) for x in range(100))] * 100)
    ramp = torch.arange(100, dtype=torch.uint8).expand(3, 100, 100)
    transform = TrainTransform((20, 20), scale=(1.0, 3.0), flip=0.0, colour=0.0)
    starts, widths = [], []
    for seed in range(400):
        row = transform(sample_of(panoptic_map, ramp), seed).image[0, 0].float()
        widths.append(float(row[-1] - row[0]))
        starts.append(float(row[0] / (100 - (row[-1] - row[0]))))
    assert np.ptp(widths) > 10
    assert abs(np.corrcoef(starts, widths)[0, 1]) < 0.15  # about three standard deviations of 400 independent pairs


def test_nothing_of_the_input_is_changed():
    before = sample_of(blocks(23, 31), instances=instances_of(blocks(23, 31), [2**24 - 1]))
    image, ids, masks = before.image.clone(), before.panoptic_map.segment_ids.clone(), before.instances.masks.clone()
    for seed in range(5):
        TrainTransform((23, 31))(before, seed)
        TrainTransform((30, 40), **STILL)(before, seed)
    assert torch.equal(before.image, image)
    assert torch.equal(before.panoptic_map.segment_ids, ids)
    assert torch.equal(before.instances.masks, masks)


def test_evaluation_without_a_size_changes_nothing():
    before = sample_of(blocks(23, 31))
    after = EvalTransform()(before, 5)
    assert torch.equal(after.image, before.image)
    assert torch.equal(after.panoptic_map.segment_ids, before.panoptic_map.segment_ids)


@pytest.mark.parametrize(("size", "expected"), [((24, 32), (48, 64)), ((64, 32), (64, 32)), ((32, 128), (16, 64))])
def test_evaluation_resizes_the_longest_side(size, expected):
    after = EvalTransform(64)(sample_of(blocks(*size, cell=8)), 0)
    assert after.size == after.panoptic_map.size == expected
    assert after.original_size == size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (0, 5)}, "expected a crop size of at least 1x1 pixels, got 0x5"),
        ({"size": (5, 5), "scale": (2.0, 0.5)}, r"expected a scale range of two positive numbers in order, got \(2.0"),
        ({"size": (5, 5), "scale": (0.0, 1.0)}, "expected a scale range of two positive numbers"),
        ({"size": (5, 5), "flip": 1.5}, r"expected flip and colour in 0\.\.1, got 1.5 and 0.3"),
        ({"size": (5, 5), "colour": -1}, r"expected flip and colour in 0\.\.1, got 0.5 and -1"),
    ],
)
def test_wrong_settings_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        TrainTransform(**arguments)


def test_a_wrong_longest_side_is_an_error():
    with pytest.raises(ValueError, match="expected a longest side of at least 1 pixel, got 0"):
        EvalTransform(0)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),
        ((640, 480), (1067, 800)),
        ((300, 900), (444, 1333)),  # the long side decides: 800 / 300 would make it 2400
        ((800, 1333), (800, 1333)),
        ((1600, 1700), (800, 850)),
    ],
)
def test_a_whole_image_has_the_sides_of_mask_r_cnn(size, expected):
    sample = Sample(torch.zeros(3, *size, dtype=torch.uint8), 0, "", None, None, size)
    assert WholeImageTransform()(sample).size == expected


def test_a_whole_image_without_sides_keeps_its_size_but_for_the_scale():
    before = sample_of(blocks(23, 31))
    kept = WholeImageTransform(short_side=None, long_side=None)(before, 5)
    assert torch.equal(kept.image, before.image)
    assert torch.equal(kept.panoptic_map.segment_ids, before.panoptic_map.segment_ids)
    scaled = WholeImageTransform(short_side=None, long_side=None, scale=(0.8, 1.0))
    sizes = {scaled(before, seed).size for seed in range(40)}
    assert {height for height, _ in sizes} == set(range(18, 24))
    assert all(abs(width - 31 / 23 * height) < 1.5 for height, width in sizes)


def test_a_whole_image_is_resized_as_its_map_and_its_masks():
    panoptic_map = blocks(24, 36, cell=12)
    ids = [segment.id for segment in panoptic_map.segments]
    before = sample_of(panoptic_map, instances=instances_of(panoptic_map, ids))
    after = WholeImageTransform(short_side=48, long_side=None)(before)
    assert after.size == (48, 72)
    assert torch.equal(
        after.panoptic_map.segment_ids, panoptic_map.segment_ids.repeat_interleave(2, 0).repeat_interleave(2, 1)
    )
    for mask, i in zip(after.instances.masks, ids, strict=True):
        assert torch.equal(mask, after.panoptic_map.segment_ids == i)


def test_a_whole_image_is_flipped_as_often_as_asked():
    before = sample_of(blocks(9, 13))
    for flip, expected in ((0.0, {False}), (0.5, {False, True}), (1.0, {True})):
        transform = WholeImageTransform(short_side=None, long_side=None, flip=flip)
        flipped = {torch.equal(transform(before, seed).image, before.image.flip(2)) for seed in range(20)}
        assert flipped == expected
        assert torch.equal(transform(before, 3).image, transform(before, 3).image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"short_side": 0}, "expected sides of at least 1 pixel, got 0 and 1333"),
        ({"scale": (1.0, 0.8)}, "expected a scale range of two positive numbers in order"),
        ({"flip": 1.5}, "expected flip in 0..1, got 1.5"),
    ],
)
def test_a_whole_image_cannot_have(options, message):
    with pytest.raises(ValueError, match=message):
        WholeImageTransform(**options)
