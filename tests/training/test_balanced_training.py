"""Strategies of balancing in real trainings of a few steps: hooks, precision, refusals."""

from itertools import pairwise

import pytest
import pytorch_lightning as pl
import torch
from killed_training import SHORT, train, train_until
from tiny_training import data_and_module, plain_trainer

from panoptic.__main__ import main
from panoptic.assembly import check_balancing
from panoptic.balancing.fixed import FixedBalancer

pytestmark = pytest.mark.slow

SMALL_DEEPERLAB = ["experiment=deeperlab_scenes", "scheduler.warmup_steps=0"]


def parameters_of(module):
    return {name: value.detach().clone() for name, value in module.named_parameters()}


class NotFinite(FixedBalancer):
    """Sees an infinite loss in one of its calls."""

    def __init__(self, *arguments, bad, **options):
        super().__init__(*arguments, **options)
        self.bad, self.calls = bad, 0

    def forward(self, losses, shared, reducer):
        self.calls += 1
        if self.calls == self.bad:
            losses = {name: loss / 0 if name.startswith("heatmap") else loss for name, loss in losses.items()}
        return super().forward(losses, shared, reducer)


class NoteParameters(pl.Callback):
    def __init__(self):
        self.after = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.after.append(parameters_of(pl_module))


def train_with_a_bad_loss(on_nan, **settings):
    data, module = data_and_module(*SMALL_DEEPERLAB, "data.train.length=8")
    module.balancer = NotFinite(module.network.losses_of_heads, bad=2, on_nan=on_nan)
    noted = NoteParameters()
    plain_trainer(noted, **settings).fit(module, datamodule=data)
    return noted.after


def same(one, other):
    return all(torch.equal(one[name], value) for name, value in other.items())


def test_a_step_with_a_loss_that_is_not_finite_is_left_out():
    with pytest.warns(UserWarning, match="loss of task heatmap is not finite.* leaves this step out"):
        after = train_with_a_bad_loss("skip")
    assert [same(*pair) for pair in pairwise(after)] == [True, False, False]
    assert all(value.isfinite().all() for value in after[-1].values())


def test_a_bad_batch_leaves_out_the_whole_step_it_is_accumulated_into():
    with pytest.warns(UserWarning, match="loss of task heatmap is not finite"):
        after = train_with_a_bad_loss("skip", accumulate_grad_batches=2)
    assert [same(*pair) for pair in pairwise(after)] == [True, True, False]


def test_a_loss_that_is_not_finite_ends_the_training_by_its_tasks_name():
    with pytest.raises(ValueError, match=r"the loss of task heatmap is not finite.*balancing\.on_nan=skip"):
        train_with_a_bad_loss("raise")


def test_the_second_look_of_famo_sees_what_the_first_did_and_leaves_no_trace():
    data, module = data_and_module(*SMALL_DEEPERLAB, "balancing=famo")
    seen = {}

    class Look(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            buffers = {name: value.clone() for name, value in pl_module.network.named_buffers()}
            state = torch.get_rng_state()
            seen["again"] = pl_module._again()
            seen["losses"] = pl_module.weighted(pl_module.step_record.losses)
            seen["kept"] = all(torch.equal(buffers[n], v) for n, v in pl_module.network.named_buffers())
            seen["random"] = torch.equal(state, torch.get_rng_state())

    plain_trainer(Look(), limit_train_batches=1).fit(module, datamodule=data)
    assert seen["kept"]
    assert seen["random"]
    for name, loss in seen["losses"].items():
        torch.testing.assert_close(seen["again"][name], loss.detach())


def test_the_second_look_samples_the_same_regions():
    data, module = data_and_module("experiment=oanet_scenes", "scheduler.warmup_steps=0", "balancing=famo")
    pairs = []

    class Look(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            pairs.append((pl_module._again(), pl_module.weighted(pl_module.step_record.losses)))

    plain_trainer(Look(), limit_train_batches=1).fit(module, datamodule=data)
    for again, losses in pairs:
        for name, loss in losses.items():
            torch.testing.assert_close(again[name], loss.detach())


def test_famo_moves_when_a_step_is_done_and_not_before():
    data, module = data_and_module(*SMALL_DEEPERLAB, "balancing=famo")
    plain_trainer(limit_train_batches=1).fit(module, datamodule=data)
    assert module.balancer.logits.abs().sum() > 0


@pytest.mark.parametrize("strategy", ["uncertainty", "pcgrad", "grad_norm"])
def test_bf16_mixed_trains(strategy):
    data, module = data_and_module(*SMALL_DEEPERLAB, f"balancing={strategy}")
    before = parameters_of(module)
    plain_trainer(precision="bf16-mixed").fit(module, datamodule=data)
    after = parameters_of(module)
    assert all(value.isfinite().all() for value in after.values())
    assert not same(before, after)


def test_what_is_learned_beside_the_network_has_no_weight_decay():
    data, module = data_and_module(*SMALL_DEEPERLAB, "balancing=uncertainty", "optimizer.weight_decay=0.1")
    trainer = plain_trainer(limit_train_batches=1)
    trainer.fit(module, datamodule=data)
    decays = {id(p): group["weight_decay"] for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert decays[id(module.balancer.log_variances)] == 0.0
    assert {decays[id(p)] for p in module.network.parameters()} == {0.1}
    assert len(decays) == len(list(module.parameters()))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["balancing=pcgrad", "heads=semantic", "fusion=semantic"], "no two heads of .'semantic'. read the same"),
        (
            ["balancing=mgda", *SMALL_DEEPERLAB, "trainer.accumulate_grad_batches=2"],
            "MGDAWeighting.* is not exact with",
        ),
        (["balancing=famo", *SMALL_DEEPERLAB, "trainer.accumulate_grad_batches=2"], "per_micro_batch=true"),
    ],
)
def test_what_cannot_be_is_refused_before_a_run_begins(overrides, message):
    _, module = data_and_module(*overrides)
    with pytest.raises(ValueError, match=message):
        check_balancing(module, module.config)


@pytest.mark.parametrize("strategy", ["uncertainty", "random_weighting", "fixed"])
def test_what_is_exact_when_accumulated_is_welcome(strategy):
    _, module = data_and_module(*SMALL_DEEPERLAB, f"balancing={strategy}", "trainer.accumulate_grad_batches=2")
    check_balancing(module, module.config)


@pytest.mark.slow
def test_accumulated_weights_of_each_batch_are_accepted_on_demand(tmp_path):
    choices = [*SMALL_DEEPERLAB, *SHORT, "balancing=mgda", "trainer.max_epochs=1", f"run={tmp_path / 'run'}"]
    assert main(["train", *choices, "trainer.accumulate_grad_batches=2", "balancing.per_micro_batch=true"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", ["balancing=random_weighting", "balancing.tasks=loss"], ids=["another strategy", "other tasks"]
)
def test_the_state_of_another_balancer_is_refused(tmp_path, capsys, change):
    choices = [*SMALL_DEEPERLAB, "balancing=uncertainty"]
    train_until("forward", 5, tmp_path / "run", *choices)
    if change == "balancing.tasks=loss":
        change = "balancing.tasks={all: [semantic_*, heatmap_*], rest: ['*_range_*']}"
    assert (
        train(tmp_path / "run", *choices[:2], "balancing=uncertainty", change, "resume=auto", "accept_changes=true")
        == 1
    )
    assert "the checkpoint was trained with balancing" in capsys.readouterr().err
