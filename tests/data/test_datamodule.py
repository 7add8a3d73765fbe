from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import pytest
import torch
from noise_data import CATEGORIES, Noise, datamodule, encode_ids
from tiny_coco import write_tiny_coco
from torch import Tensor

from panoptic.data.coco import CocoPanoptic
from panoptic.data.datamodule import PanopticDataModule
from panoptic.data.loading import map_tensors
from panoptic.data.transforms import EvalTransform, TrainTransform
from panoptic.structures import SizeRule

pytestmark = pytest.mark.slow


def fail_on_crowd(sample):
    raise KeyError("no such thing")


@dataclass
class Nested:
    table: Tensor
    parts: tuple[Tensor, ...]
    name: str


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


def in_world(module, rank, world_size):
    """The module as in a process of a distributed run."""
    module.trainer = type("Trainer", (), {"global_rank": rank, "world_size": world_size})()
    return module


def assert_equal_batches(one, other):
    assert torch.equal(one.images, other.images)
    assert one.image_sizes == other.image_sizes
    assert [sample.image_id for sample in one.samples] == [sample.image_id for sample in other.samples]
    for first, second in zip(one.targets["semantic"], other.targets["semantic"], strict=True):
        assert torch.equal(first["ids"], second["ids"])
    for first, second in zip(one.truths, other.truths, strict=True):
        assert torch.equal(first.segment_ids, second.segment_ids)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_batches_are_the_same_for_any_number_of_workers(num_workers):
    alone, helped = datamodule(), datamodule(num_workers=num_workers)
    for loader, other in (
        (alone.train_dataloader(), helped.train_dataloader()),
        (alone.val_dataloader(), helped.val_dataloader()),
    ):
        for epoch in (0, 1):
            if loader.drop_last:
                loader.sampler.set_epoch(epoch)
                other.sampler.set_epoch(epoch)
            for one, two in zip(loader, other, strict=True):
                assert_equal_batches(one, two)


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_each_global_batch(world_size):
    whole = list(datamodule().train_dataloader())
    loaders = [in_world(datamodule(), rank, world_size).train_dataloader() for rank in range(world_size)]
    steps = list(zip(*loaders, strict=True))
    assert len(steps) == len(whole) == 3
    for expected, parts in zip(whole, steps, strict=True):
        assert torch.equal(torch.cat([part.images for part in parts]), expected.images)
        assert [s.image_id for part in parts for s in part.samples] == [s.image_id for s in expected.samples]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_drops_and_repeats_nothing(world_size):
    loaders = [in_world(datamodule(), rank, world_size).val_dataloader() for rank in range(world_size)]
    seen = [sample.image_id for loader in loaders for batch in loader for sample in batch.samples]
    assert sorted(seen) == list(range(7))


def test_augmentation_of_a_sample_changes_with_the_epoch_and_the_seed():
    def images(**settings):
        module = datamodule(**settings)
        loader = module.train_dataloader()
        found = []
        for epoch in (0, 1):
            loader.sampler.set_epoch(epoch)
            found.append({s.image_id: s.image.clone() for batch in loader for s in batch.samples})
        return found

    (first, second), (again, _), (other, _) = images(), images(), images(seed=4)
    assert all(torch.equal(first[i], again[i]) for i in first)
    for different in (second, other):
        common = first.keys() & different.keys()
        assert len(common) > 5
        assert not any(torch.equal(first[i], different[i]) for i in common)


def test_images_of_unequal_size_are_padded_at_the_bottom_and_right_in_the_mean_colour():
    batch = next(iter(datamodule(eval_batch_size=4, size_rule=SizeRule(16, 1)).val_dataloader()))
    # sizes of images 0..3: 8 x 11, 9 x 12, 10 x 13, 8 x 14; the next size 16 k + 1 for both sides is 17
    assert batch.image_sizes == [(8, 11), (9, 12), (10, 13), (8, 14)]
    assert batch.padded_size == (17, 17)
    for index, ((height, width), image) in enumerate(zip(batch.image_sizes, batch.images, strict=True)):
        assert torch.equal(image[:, :height, :width], Noise(7)[index].image)
        padding = torch.ones(17, 17, dtype=torch.bool)
        padding[:height, :width] = False
        assert (image[:, padding] == torch.tensor([[51], [102], [153]])).all()
        assert torch.equal(batch.samples[index].image, Noise(7)[index].image)


def test_a_size_that_the_network_takes_is_not_padded():
    module = datamodule(size_rule=SizeRule(8, 2))
    module.train_transform = TrainTransform((10, 18))
    assert next(iter(module.train_dataloader())).padded_size == (10, 18)


def test_evaluation_keeps_the_untouched_truth_beside_what_the_network_sees():
    module = datamodule()
    module.eval_transform = EvalTransform(30)
    batch = next(iter(module.val_dataloader()))
    assert torch.equal(batch.truths[0].segment_ids, Noise(7)[0].panoptic_map.segment_ids)
    assert batch.samples[0].size == batch.samples[0].panoptic_map.size == (22, 30)
    assert batch.targets["semantic"][0]["ids"].shape == (22, 30)
    assert next(iter(module.train_dataloader())).truths == []


def test_equal_encoders_run_once_and_share_their_target():
    encoders = {
        "semantic": partial(encode_ids, offset=0),
        "heatmap": partial(encode_ids, offset=0),
        "other": partial(encode_ids, offset=1),
    }
    batch = next(iter(datamodule(encoders=encoders).train_dataloader()))
    assert list(batch.targets) == ["semantic", "heatmap", "other"]
    for semantic, heatmap, other in zip(*batch.targets.values(), strict=True):
        assert heatmap is semantic
        assert torch.equal(other["ids"], semantic["ids"] + 1)


def test_moving_a_batch_moves_images_and_targets_but_not_samples_and_truths():
    shared = Nested(torch.ones(2), (torch.zeros(3), torch.ones(1)), "n")
    module = datamodule(encoders={"a": lambda sample: shared, "b": lambda sample: [{"x": torch.ones(4)}, 5]})
    batch = next(iter(module.val_dataloader()))
    moved = module.transfer_batch_to_device(batch, torch.device("meta"), 0)
    (a,), (b,) = moved.targets["a"], moved.targets["b"]
    assert moved.images.is_meta
    assert a.table.is_meta
    assert all(part.is_meta for part in a.parts)
    assert a.name == "n"
    assert b[0]["x"].is_meta
    assert b[1] == 5
    assert not moved.samples[0].image.is_meta
    assert not moved.samples[0].panoptic_map.segment_ids.is_meta
    assert not moved.truths[0].segment_ids.is_meta
    assert not batch.images.is_meta
    assert not shared.table.is_meta


def test_images_and_targets_of_a_batch_can_be_pinned(monkeypatch):
    batch = next(iter(datamodule().train_dataloader()))
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor.to("meta"))  # pinning itself needs a GPU
    pinned = batch.pin_memory()
    assert pinned.images.is_meta
    assert all(target["ids"].is_meta for target in pinned.targets["semantic"])
    assert pinned.samples is batch.samples


def test_a_shared_target_is_moved_once():
    target = Nested(torch.ones(2), (), "n")
    moved = map_tensors({"a": [target], "b": [target]}, lambda tensor: tensor.to("meta"), {})
    assert moved["a"][0] is moved["b"][0]


def test_named_tuples_stay_named():
    moved = map_tensors(Pair(torch.ones(2), torch.ones(3)), lambda tensor: tensor * 2, {})
    assert moved.second.tolist() == [2, 2, 2]


def test_an_image_without_any_thing_is_loaded(tmp_path):
    tiny = write_tiny_coco(tmp_path)
    dataset = CocoPanoptic(tiny.panoptic_json, tiny.image_folder)
    batches = list(datamodule(dataset, dataset).val_dataloader())
    assert [len(batch.truths[0].segments) for batch in batches] == [3, 3, 3, 3, 1]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_while_reading_names_the_file(tmp_path, num_workers):
    tiny = write_tiny_coco(tmp_path)
    dataset = CocoPanoptic(tiny.panoptic_json, tiny.image_folder)
    path = tiny.image_folder / "102_photo.png"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"truncated or damaged image: .*102_photo\.png"):
        list(datamodule(dataset, dataset, num_workers=num_workers).val_dataloader())


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_while_encoding_names_the_file(num_workers):
    loader = datamodule(encoders={"bad": fail_on_crowd}, num_workers=num_workers).val_dataloader()
    with pytest.raises(KeyError, match="no such thing") as error:
        list(loader)
    text = str(error.value) + "".join(getattr(error.value, "__notes__", []))
    assert "while preparing noise 0" in text


def test_loaders_before_connect_are_an_error():
    module = PanopticDataModule(
        Noise(8), Noise(8), train_transform=TrainTransform((9, 10)), eval_transform=EvalTransform(), batch_size=2
    )
    with pytest.raises(RuntimeError, match=r"expected connect\(encoders, size_rule\) before loaders are asked for"):
        module.train_dataloader()


@pytest.mark.parametrize(("batch_size", "nearest"), [(8, "use 6 or 9"), (10, "use 9 or 12"), (2, "use 3 or 6")])
def test_a_batch_that_cannot_be_divided_is_an_error_with_the_nearest_that_can(batch_size, nearest):
    module = in_world(datamodule(batch_size=batch_size), 0, 3)
    with pytest.raises(ValueError, match=f"batch_size {batch_size} cannot be divided among 3 processes; {nearest}"):
        module.train_dataloader()


def test_splits_with_other_categories_are_an_error():
    with pytest.raises(ValueError, match=r"expected equal categories in all splits, got .*'road'.* and .* in val"):
        datamodule(Noise(8), Noise(8, CATEGORIES[:1]))


def test_an_empty_split_is_an_error():
    with pytest.raises(ValueError, match="the val split is empty; expected at least one image"):
        datamodule(Noise(8), Noise(0))


def test_batch_sizes_below_one_are_an_error():
    with pytest.raises(ValueError, match="expected batch sizes of at least 1, got 0 and 1"):
        datamodule(batch_size=0)


def test_a_missing_test_split_is_an_error():
    with pytest.raises(ValueError, match="expected a test split, got none"):
        datamodule().test_dataloader()


def test_what_the_data_knows_comes_from_the_splits():
    module = datamodule()
    assert module.categories == CATEGORIES
    assert module.image_statistics.mean == (0.2, 0.4, 0.6)
