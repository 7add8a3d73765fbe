"""Validation counts every image once and gives the numbers of one process, with the statistics of the first one."""

from dataclasses import replace

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import EMAWeightAveraging
from pytorch_lightning.strategies import DDPStrategy
from recorded_training import FrozenStatistics, data_and_module, numbers, trainer_of

from panoptic.data.samplers import EvalSampler
from panoptic.structures import VOID, FusionResult
from panoptic.training.processes import ImageMeans, ShareStatistics, mean_over_processes, sum_over_processes

TINY = ["experiment=deeperlab_scenes", "optimizer.lr=0.0"]


def rank_and_size():
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


class HalfOfTruth:
    """A fusion that gives the truth of the process's next image without every second segment, half of it shifted."""

    def __init__(self, split):
        rank, world_size = rank_and_size()
        self.images = iter(EvalSampler(len(split), rank, world_size).indices)
        self.split = split

    def __call__(self, outputs, categories, size):
        truth = self.split[next(self.images)].panoptic_map
        kept = truth.segments[::2]
        ids = truth.segment_ids.roll(2, dims=1)
        ids[~torch.isin(ids, torch.tensor([segment.id for segment in kept]))] = VOID
        return FusionResult(replace(truth, segment_ids=ids, segments=kept), ids)


class Seen(pl.Callback):
    """The images that this process validates with."""

    def __init__(self):
        self.names = []

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.names += [sample.file_name for sample in batch.samples]


def validate(*overrides):
    """(logged values, fractions, rows per category, images of this process) after one step of rate 0."""
    data, module = data_and_module(*TINY, *overrides)
    module.network.double()
    module.fusion = HalfOfTruth(data.val)
    seen = Seen()
    trainer = trainer_of(module, [FrozenStatistics(), ShareStatistics(), seen], limit_train_batches=1)
    trainer.fit(module, datamodule=data)
    return numbers(trainer.callback_metrics, ("val_",)), module.quality_values, module.category_rows(), seen.names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_processes", "num_images", "eval_batch_size"),
    [
        (3, 8, 2),
        (3, 2, 1),
        pytest.param(2, 7, 1, marks=pytest.mark.very_slow),
        pytest.param(3, 1, 1, marks=pytest.mark.very_slow),
    ],
)
def test_validation_equals_that_of_one_process(gloo, num_processes, num_images, eval_batch_size):
    overrides = [f"data.val.length={num_images}", f"+data.eval_batch_size={eval_batch_size}"]
    logged, values, rows, names = validate(*overrides)
    assert 0 < values["pq"] < 1
    answers = gloo.run(num_processes, validate, *overrides)
    assert sorted(name for answer in answers for name in answer[3]) == sorted(names)
    assert len(set(names)) == num_images
    for got_logged, got_values, got_rows, _ in answers:
        assert got_values == pytest.approx(values, rel=1e-12, nan_ok=True)  # sums of fractions in another order
        assert got_logged == pytest.approx(logged, rel=1e-7, nan_ok=True)
        for got, row in zip(got_rows, rows, strict=True):
            counts = {name: row[name] for name in ("name", "tp", "fp", "fn")}
            assert {name: got[name] for name in counts} == counts


class Buffers(pl.Callback):
    """The running statistics at the end of training and those that validation finds."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.trained = copy_of(pl_module.network.named_buffers())

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.validated = copy_of(pl_module.network.named_buffers())
        self.state = copy_of(pl_module.network.state_dict().items())


def copy_of(named):
    return {name: tensor.detach().clone() for name, tensor in named}


def train_unequal_statistics(averaged):
    """Two steps in which every process updates its own statistics; what it validated with, and what came of it."""
    data, module = data_and_module("experiment=deeperlab_scenes", "data.val.length=5")
    buffers = Buffers()
    average = [EMAWeightAveraging(decay=0.5)] if averaged else []
    strategy = DDPStrategy(broadcast_buffers=False)  # DDP's own exchange comes with the first batch of validation
    trainer = trainer_of(module, [*average, ShareStatistics(), buffers], limit_train_batches=2, strategy=strategy)
    trainer.fit(module, datamodule=data)
    return buffers.trained, buffers.validated, buffers.state, numbers(trainer.callback_metrics, ("val_",))


@pytest.mark.slow
@pytest.mark.parametrize("averaged", [False, True])
def test_all_validate_with_the_statistics_of_the_first(gloo, averaged):
    (trained, validated, state, logged), (other_trained, other_validated, _, _) = gloo.run(
        2, train_unequal_statistics, averaged
    )
    means = [name for name in trained if name.endswith("running_mean")]
    assert all(not torch.equal(trained[name], other_trained[name]) for name in means)
    assert list(validated) == list(other_validated)
    assert all(torch.equal(validated[name], other_validated[name]) for name in validated)
    if not averaged:
        assert all(torch.equal(validated[name], trained[name]) for name in validated)
    data, module = data_and_module("experiment=deeperlab_scenes", "data.val.length=5")
    module.network.load_state_dict(state)
    trainer = trainer_of(module, [])
    trainer.validate(module, datamodule=data, verbose=False)
    assert logged == pytest.approx(numbers(trainer.callback_metrics, ("val_",)), rel=1e-6, nan_ok=True)


def test_image_means_are_those_over_images_whatever_the_batches():
    means = ImageMeans(["first", "second"])
    for values, num_images in (((2.0, 5.0), 1), ((4.0, 1.0), 3)):
        means.update(dict(zip(("second", "first"), map(torch.tensor, values), strict=True)), num_images)
    # first: (1 * 5 + 3 * 1) / 4; second: (1 * 2 + 3 * 4) / 4
    assert {name: value.item() for name, value in means.compute().items()} == {"first": 2.0, "second": 3.5}
    means.reset()
    means.update({"first": torch.tensor(1.0), "second": torch.tensor(1.0)}, 2)
    assert means.compute()["first"] == 1


def exchange():
    """What the helpers make of numbers that depend on the rank, and whether they leave their arguments alone."""
    rank, _ = rank_and_size()
    value = torch.tensor([1.0 + rank, 10.0], requires_grad=True)
    total = sum_over_processes(value)
    means = mean_over_processes({"a": torch.tensor(2.0 * rank), "b": torch.tensor(1.0, dtype=torch.float64)})
    share = ImageMeans(["a"])
    if rank > 0:  # the first process has no image
        share.update({"a": torch.tensor(float(rank))}, rank)
    return total.tolist(), value.tolist(), {name: mean.item() for name, mean in means.items()}, share.compute()["a"]


def test_one_process_keeps_its_own_numbers():
    total, value, means, _ = exchange()
    assert total == value == [1.0, 10.0]
    assert means == {"a": 0.0, "b": 1.0}


@pytest.mark.slow
def test_sums_and_means_are_over_all_processes(gloo):
    for rank, (total, value, means, image_mean) in enumerate(gloo.run(3, exchange)):
        assert total == [1 + 2 + 3, 30.0]
        assert value == [1.0 + rank, 10.0]
        assert means == {"a": 2.0, "b": 1.0}
        assert image_mean == pytest.approx((1 * 1 + 2 * 2) / 3)


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_process_without_an_image_has_one_empty_batch(num_workers):
    data, _ = data_and_module(*TINY, "data.val.length=2", f"data.num_workers={num_workers}")
    data.trainer = type("Trainer", (), {"global_rank": 2, "world_size": 3})()
    (batch,) = data.val_dataloader()
    assert batch.samples == batch.truths == batch.image_sizes == []
    assert len(batch.images) == 0
