"""What the configuration of a run's start becomes: rates, schedules and lengths in images, profilers, the report."""

import io

import pytest
import pytorch_lightning as pl
from rich.console import Console
from tiny_training import TINY, compose, data_and_module, plain_trainer

from panoptic.__main__ import main
from panoptic.assembly import build_trainer, start_report
from panoptic.training.data_wait import DataWait
from panoptic.training.module import PanopticModule

SEMANTIC = ["heads=semantic", "fusion=semantic", "heads.semantic.filters=16"]


class Rates(pl.Callback):
    """The learning rate by the images that were seen before the step."""

    def __init__(self):
        self.by_images, self.seen = {}, 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.seen % (len(batch.samples) * trainer.accumulate_grad_batches) == 0:
            self.by_images[self.seen] = trainer.optimizers[0].param_groups[0]["lr"]
        self.seen += len(batch.samples)


def rates(tmp_path, *overrides):
    """Of a training as the command would run it."""
    overrides = [*SEMANTIC, "optimizer=sgd", "optimizer.lr=0.01", "data.train.length=24", "pictures=0", *overrides]
    data, module = data_and_module(*overrides)
    trainer = build_trainer(compose(*overrides, "trainer.limit_val_batches=0"), tmp_path)
    found = Rates()
    trainer.callbacks.append(found)
    trainer.fit(module, datamodule=data)
    return found.by_images


@pytest.mark.slow
def test_in_images_a_changed_batch_keeps_schedule_and_length(tmp_path):
    in_images = ["scheduler.warmup_images=12", "max_images=48", "trainer.max_epochs=-1"]
    twos = rates(tmp_path / "2", "data.batch_size=2", *in_images)
    assert sorted(twos) == list(range(0, 48, 2))
    for number, batch in enumerate((["data.batch_size=4"], ["data.batch_size=2", "trainer.accumulate_grad_batches=2"])):
        found = rates(tmp_path / f"4_{number}", *batch, *in_images)
        assert found == pytest.approx({seen: twos[seen] for seen in range(0, 48, 4)})


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "factor"), [("none", 1), ("linear", 1.5), ("sqrt", 1.5**0.5)])
def test_the_first_rate_is_scaled_by_the_images_of_a_step(rule, factor, tmp_path):
    # 4 x 3 images a step, 8 are the reference.
    overrides = ["data.batch_size=4", "trainer.accumulate_grad_batches=3", f"lr_scaling={rule}"]
    assert rates(tmp_path, *overrides)[0] == pytest.approx(0.01 * factor)


def test_by_default_nothing_is_scaled_and_the_trainers_lengths_hold(tmp_path):
    config = compose()
    _, module = data_and_module()
    assert isinstance(module, PanopticModule)
    assert module.optimizer.keywords["lr"] == config["optimizer"]["lr"]
    assert "images_per_step" not in module.scheduler.keywords
    trainer = build_trainer(config, tmp_path)
    assert (trainer.max_epochs, trainer.max_steps) == (1, -1)
    assert isinstance(trainer.callbacks[0], DataWait)


def test_a_schedule_of_the_users_own_needs_no_images():
    """torch's take the optimizer and a number of steps."""
    cosine = "+scheduler={_target_: torch.optim.lr_scheduler.CosineAnnealingLR, _partial_: true, eta_min: 0.5}"
    data, module = data_and_module(*SEMANTIC, "~scheduler", cosine)
    trainer = plain_trainer()
    trainer.fit(module, datamodule=data)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.5)


@pytest.mark.parametrize(("choice", "expected"), [("null", "PassThroughProfiler"), ("simple", "SimpleProfiler")])
def test_the_profiler_is_the_configurations_and_writes_into_the_run(choice, expected, tmp_path):
    trainer = build_trainer(compose(f"trainer.profiler={choice}"), tmp_path)
    assert type(trainer.profiler).__name__ == expected
    assert choice == "null" or trainer.profiler.dirpath == tmp_path / "profile"


def report_of(*overrides):
    _, module = data_and_module(*overrides)
    console = Console(file=io.StringIO(), width=120)
    for part in start_report(compose(*overrides), module):
        console.print(part)
    return console.file.getvalue(), module


def test_the_report_lists_every_part_the_rate_and_the_length():
    images = ["max_images=31", "trainer.max_epochs=-1", "data.batch_size=4"]
    text, module = report_of("lr_scaling=linear", "optimizer.lr=0.25", *images)
    for name in ("backbone", "decoder", *module.network.heads, "total"):
        assert f"│ {name} " in text
    assert "rest" not in text
    assert f" {sum(parameter.numel() for parameter in module.parameters()):,} " in text
    assert "one image of 49x65" in text  # the crop of 48x64, padded as the decoder wants it
    assert "learning rate: 0.25 x 0.5 = 0.125 (lr_scaling=linear, 4 images per step)" in text
    assert "training ends after 8 steps, 31 images" in text


@pytest.mark.slow
def test_running_out_of_memory_ends_the_command_with_what_to_lower(tmp_path, monkeypatch, capsys):
    def step(self, batch, batch_idx):
        raise MemoryError("Unable to allocate 8.00 EiB")

    monkeypatch.setattr(PanopticModule, "training_step", step)
    assert main(["train", *TINY, *SEMANTIC, "data.batch_size=4", f"run={tmp_path / 'run'}"]) == 1
    error = capsys.readouterr().err
    assert "panoptic train: out of memory (Unable to allocate 8.00 EiB); lower one of these:" in error
    assert "data.batch_size=2 trainer.accumulate_grad_batches=2, now 4 and 1" in error
    assert not (tmp_path / "run").exists()
