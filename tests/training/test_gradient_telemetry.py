"""Telemetry of task gradients: what is written, and that training does not feel it."""

import copy
import csv
import itertools

import pytest
import pytorch_lightning as pl
import torch
from killed_training import differences, end_of, train, train_until
from tiny_training import compose, data_and_module, plain_trainer
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from panoptic.assembly import build_data, build_module
from panoptic.instantiation import build
from panoptic.training.gradient_telemetry import GradientTelemetry, check_level
from panoptic.training.metrics_file import MetricsFile

pytestmark = pytest.mark.slow

OANET = [
    "decoder=fpn_rpn_features_small",
    "decoder.filters=16",
    "heads=oanet_small",
    "fusion=spatial_ranking_small",
    "backbone.output_stride=32",
]
SEMANTIC = ["heads=semantic", "fusion=semantic", "heads.semantic.filters=16"]


class FrozenStatistics(pl.Callback):
    """Batch norm with the statistics it started with: those of a batch depend on how it is split."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        for module in pl_module.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def measured(folder, *callbacks, overrides=(), **settings):
    """The rows of a tiny training, and its module."""
    data, module = data_and_module(*overrides)
    plain_trainer(*callbacks, default_root_dir=folder, **settings).fit(module, datamodule=data)
    return rows_of(folder), module


def rows_of(folder):
    with (folder / "gradients.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(row):
    return {name: float(value) for name, value in row.items() if name != "task" and value}


@pytest.mark.slow
@pytest.mark.parametrize("level", [None, "c5"])
def test_the_first_row_is_that_of_explicit_gradients(tmp_path, level):
    rows, _ = measured(tmp_path, GradientTelemetry(1, level), max_steps=1)
    data, module = data_and_module()
    batch = next(iter(data.train_dataloader()))
    network = copy.deepcopy(module.network).train()
    outputs, features = network(batch.images, batch.image_sizes)
    losses = network.losses(outputs, features, batch)
    tensor = features["semantic"].levels[level or "decoder"]
    tasks = sorted(network.heads)
    gradients = {}
    for task in tasks:
        loss = sum(losses[name] for name in network.losses_of_heads[task])
        gradients[task] = torch.autograd.grad(loss, tensor, retain_graph=True)[0].flatten()
    assert [row["task"] for row in rows] == tasks
    for row in rows:
        names = network.losses_of_heads[row["task"]]
        gradient = gradients[row["task"]]
        expected = {
            "step": 0,
            "loss": sum(losses[name].item() for name in names),
            "weight": module.loss_weights.get(names[0], 1.0),
            "gradient_norm": float(gradient.norm()),
            "gradient_mean_abs": float(gradient.abs().mean()),
        }
        for other in set(tasks) - {row["task"]}:
            expected[f"cosine_{other}"] = float(F.cosine_similarity(gradient, gradients[other], dim=0))
        assert numbers(row) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.slow
def test_what_a_task_does_not_reach_is_empty(tmp_path):
    data, module = data_and_module(*OANET)
    trainer = plain_trainer(GradientTelemetry(1, "c5"), default_root_dir=tmp_path)
    trainer.logger = MetricsFile(tmp_path)
    trainer.fit(module, datamodule=data)
    rows = rows_of(tmp_path)
    assert [row["task"] for row in rows[:3]] == ["instances", "ranking", "semantic"]
    for row in rows:
        present = [name for name in row if row[name]]
        if row["task"] == "ranking":  # its head reads logits and boxes that are detached
            assert present == ["step", "task", "loss", "weight"]
        else:
            other = {"instances": "semantic", "semantic": "instances"}[row["task"]]
            values = ["loss", "weight", "gradient_norm", "gradient_mean_abs", f"cosine_{other}"]
            assert present == ["step", "task", *values]
    with (tmp_path / "metrics.csv").open() as file:
        logged = next(row for row in csv.DictReader(file) if row["gradient_norm_semantic"])
    assert {name for name in logged if "gradient" in name} == {
        *(f"gradient_{what}_{task}" for what in ("norm", "mean_abs") for task in ("instances", "semantic")),
        "gradient_cosine_instances_semantic",
    }
    assert float(logged["gradient_norm_semantic"]) == pytest.approx(float(rows[2]["gradient_norm"]))
    assert logged["step"] == "0"


@pytest.mark.slow
def test_multiples_of_optimizer_steps_are_written(tmp_path):
    overrides = ["data.train.length=10", *SEMANTIC]
    rows, _ = measured(tmp_path, GradientTelemetry(2, "c5"), overrides=overrides)
    assert [row["step"] for row in rows] == ["0", "2", "4"]


@pytest.mark.slow
def test_batches_that_are_accumulated_are_written_as_one_of_all_their_images(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    lengths = ["data.train.length=12"]
    whole, _ = measured(
        tmp_path / "one", FrozenStatistics(), GradientTelemetry(1), overrides=[*lengths, "data.batch_size=4"]
    )
    parts, _ = measured(
        tmp_path / "two",
        FrozenStatistics(),
        GradientTelemetry(1),
        overrides=[*lengths, "data.batch_size=2"],
        accumulate_grad_batches=2,
    )
    assert [row["step"] for row in parts[::5]] == ["0", "1", "2"]
    for part, row in zip(parts[:5], whole[:5], strict=True):
        assert part["task"] == row["task"]
        assert numbers(part) == pytest.approx(numbers(row), rel=1e-4, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("level", [None, "c2"])
def test_training_is_the_same_to_the_bit(tmp_path, level):
    def parameters(*callbacks):
        data, module = data_and_module("data.train.length=6")
        plain_trainer(*callbacks, default_root_dir=tmp_path).fit(module, datamodule=data)
        return module.state_dict()

    plain, watched = parameters(), parameters(GradientTelemetry(1, level))
    assert len(rows_of(tmp_path)) == 3 * 5
    assert all(torch.equal(watched[name], value) for name, value in plain.items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_killed_training_that_goes_on_writes_the_same_file(tmp_path):
    watch = ["callbacks=gradient_telemetry", "callbacks.gradient_telemetry.every=1"]
    watch += ["callbacks.gradient_telemetry.level=c5"]
    assert train(tmp_path / "whole", *watch) == 0
    train_until("step done", 6, tmp_path / "killed", *watch)
    steps = [int(row["step"]) for row in rows_of(tmp_path / "killed")]
    assert steps == list(range(6))  # checkpoint_every=2: the run goes on from step 4, and writes two rows again
    assert train(tmp_path / "killed", *watch, "resume=auto") == 0
    files = [(tmp_path / name / "gradients.csv").read_text() for name in ("killed", "whole")]
    assert files[0] == files[1]
    assert differences(end_of(tmp_path / "killed"), end_of(tmp_path / "whole")) == []


def test_it_goes_with_a_moving_average():
    both = compose("callbacks=[moving_average,gradient_telemetry]", "callbacks.gradient_telemetry.every=7")["callbacks"]
    assert list(both) == ["moving_average", "gradient_telemetry"]
    assert build(both["gradient_telemetry"]).every == 7
    assert compose()["callbacks"] == {}


def test_every_level_of_the_check_is_one_of_the_features():
    for overrides in ([], OANET):
        data, module = data_and_module(*overrides)
        batch = next(iter(data.train_dataloader()))
        _, features = module.network(batch.images, batch.image_sizes)
        (levels,) = {tuple(of_head.levels) for of_head in features.values()}
        for level in levels:
            check_level(module.network, level)
        with pytest.raises(ValueError, match="c9: no such level") as error:
            check_level(module.network, "c9")
        assert str(error.value).endswith(f"there are {list(levels)}")


def test_an_unknown_level_stops_the_training_at_its_start(tmp_path):
    with pytest.raises(ValueError, match=r"telemetry.level=c7: no such level; there are \['c1', .*'decoder'\]"):
        measured(tmp_path, GradientTelemetry(1, "c7"), overrides=SEMANTIC)


def test_one_head_shares_nothing_and_has_to_name_a_level(tmp_path):
    with pytest.raises(ValueError, match=r"no two heads of \['semantic'\] read the same; give callbacks.gradient_tele"):
        measured(tmp_path, GradientTelemetry(1), overrides=SEMANTIC)


def test_tasks_that_do_not_fit_are_refused_under_the_callbacks_own_name(tmp_path):
    telemetry = GradientTelemetry(1, "c5", tasks={"all": ["semantik_*"]})
    with pytest.raises(ValueError, match=r"callbacks.gradient_telemetry.tasks.all=\['semantik_\*'\]: no loss for"):
        measured(tmp_path, telemetry, overrides=SEMANTIC)


def test_a_step_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"gradient_telemetry\.every of at least 1 step, got 0"):
        GradientTelemetry(0)


def test_losses_are_tasks_where_asked(tmp_path):
    config = compose(*OANET)
    data = build_data(config)
    module = build_module(config, data)
    telemetry = GradientTelemetry(1, "c5", tasks="loss")
    trainer = plain_trainer(telemetry, default_root_dir=tmp_path, max_steps=1)
    trainer.fit(module, datamodule=data)
    rows = rows_of(tmp_path)
    assert [row["task"] for row in rows] == sorted(module.network.loss_names)
    for one, other in itertools.combinations(rows, 2):
        assert one[f"cosine_{other['task']}"] == other[f"cosine_{one['task']}"]
