"""Pictures, averaged weights and loggers in real trainings of a few steps."""

import csv
import json
import math
import time

import cv2
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from tiny_training import TINY, compose, data_and_module, plain_trainer
from wandb_records import read_records

from panoptic.__main__ import main
from panoptic.assembly import build_trainer
from panoptic.run_folder import RUN_FOLDER_VARIABLE
from panoptic.training.callbacks import CategoryScores, Pictures

pytestmark = pytest.mark.slow

SEMANTIC = ["heads=semantic", "fusion=semantic", "heads.semantic.filters=16"]


@pytest.fixture
def fresh_process(monkeypatch):
    """As if no run had been started before in this process, now and afterwards."""
    monkeypatch.setenv(RUN_FOLDER_VARIABLE, "is removed again at the end")
    monkeypatch.delenv(RUN_FOLDER_VARIABLE)


@pytest.mark.parametrize(
    ("overrides", "pictures", "image_size"),
    [
        ([], 2, (48, 64)),
        (["+data.eval_batch_size=2"], 3, (48, 64)),
        (["+data.eval_transform.longest_side=32"], 2, (48, 64)),
        (["+data.eval_transform.longest_side=32", "evaluate.size=network"], 2, (24, 32)),
    ],
)
def test_every_validation_writes_so_many_pictures(tmp_path, overrides, pictures, image_size):
    data, module = data_and_module(*SEMANTIC, *overrides)
    trainer = plain_trainer(Pictures(tmp_path, count=pictures), max_epochs=2, limit_val_batches=None)
    trainer.fit(module, datamodule=data)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000002", "step_000004"]
    for folder in tmp_path.iterdir():
        assert sorted(path.name for path in folder.iterdir()) == [f"{number}.png" for number in range(pictures)]
        for path in folder.iterdir():
            height, width = cv2.imread(str(path)).shape[:2]
            # 64 px are shown nine times, 32 px eighteen times as large: 576 a panel; gaps of 6 between the three
            assert width == 3 * 576 + 2 * 6
            assert height > 576 * image_size[0] / image_size[1]


def test_chosen_categories_are_logged_one_by_one():
    data, module = data_and_module(*SEMANTIC)
    trainer = plain_trainer(CategoryScores(["sky", "road"]), limit_val_batches=None)
    trainer.validate(module, datamodule=data, verbose=False)
    rows = {row["name"]: row for row in module.category_rows()}
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    for name in ("sky", "road"):
        for score in ("pq", "pc", "semantic_iou"):
            assert logged[f"val_{score}_{name}"] == pytest.approx(100 * rows[name][score], nan_ok=True)
    assert not any(name.endswith("_grass") for name in logged)


def test_an_unknown_category_to_log_is_named():
    data, module = data_and_module(*SEMANTIC)
    with pytest.raises(ValueError, match=r"logged_categories names \['cow'\], but the data set's categories are \["):
        plain_trainer(CategoryScores(["cow", "sky"])).validate(module, datamodule=data, verbose=False)


@pytest.mark.parametrize(("count", "written"), [(0, 0), (9, 3)])
def test_no_more_pictures_than_images_and_none_for_zero(tmp_path, count, written):
    data, module = data_and_module(*SEMANTIC)
    trainer = plain_trainer(Pictures(tmp_path, count=count), limit_val_batches=None)
    trainer.validate(module, datamodule=data, verbose=False)
    assert len(list(tmp_path.rglob("*.png"))) == written


@pytest.mark.parametrize(
    ("monitor", "scores", "best"),
    [
        ("val_pq", [30.0, 40.0, 50.0], 3),
        ("val_pq", [50.0, 30.0, 40.0], 1),
        ("val_miou", [50.0, 30.0, 40.0], 2),
    ],
)
def test_best_is_the_best_epoch_by_the_monitor_and_last_is_the_last_one(tmp_path, monitor, scores, best):
    config = compose(*SEMANTIC, "trainer.max_epochs=3", "pictures=0", f"monitor={monitor}")
    data, module = data_and_module(*SEMANTIC)
    module.on_validation_epoch_end = lambda: module.log_dict(
        {"val_pq": scores[module.current_epoch], "val_miou": 100 - scores[module.current_epoch]}
    )
    build_trainer(config, tmp_path).fit(module, datamodule=data)
    steps = {
        name: torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"]
        for name in ("best", "last")
    }
    assert steps == {"best": 2 * best, "last": 6}


class AverageOracle(pl.Callback):
    """The exponential moving average in two lines, and what validation sees of it."""

    def __init__(self, decay):
        self.decay = decay
        self.averages = {}
        self.rounds = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        now, step = floats_of(pl_module.state_dict()), trainer.global_step
        before = self.averages.get(step - 1, now)
        self.averages[step] = {name: self.decay * before[name] + (1 - self.decay) * now[name] for name in now}
        self.moved = any(not torch.allclose(now[name], self.averages[step][name]) for name in now)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if trainer.state.fn != TrainerFn.FITTING:
            return
        assert self.moved, "expected an average that differs from the weights"
        torch.testing.assert_close(floats_of(pl_module.state_dict()), self.averages[trainer.global_step])
        self.rounds += 1


def floats_of(state):
    """Weights and running statistics, copied; neither counters nor metrics."""
    return {k: v.clone() for k, v in state.items() if k.startswith("network.") and v.is_floating_point()}


def test_the_moving_average_is_validated_and_saved_as_the_best(tmp_path):
    overrides = [*SEMANTIC, "callbacks=moving_average", "callbacks.moving_average.decay=0.75"]
    overrides += ["trainer.max_epochs=2", "pictures=0", "optimizer.lr=0.01"]
    data, module = data_and_module(*overrides)
    trainer = build_trainer(compose(*overrides), tmp_path)
    oracle = AverageOracle(0.75)
    trainer.callbacks.append(oracle)
    trainer.fit(module, datamodule=data)
    assert oracle.rounds == 2 * 3
    content = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    torch.testing.assert_close(floats_of(content["state_dict"]), oracle.averages[content["global_step"]])
    assert main(["evaluate", f"run={tmp_path}", "pictures=0"]) == 0
    losses = [float(row["val_semantic_cross_entropy"]) for row in csv_rows(tmp_path / "metrics.csv") if row["val_pq"]]
    found = trainer.validate(module, datamodule=data, ckpt_path=str(tmp_path / "checkpoints/best.ckpt"), verbose=False)
    assert found[0]["val_semantic_cross_entropy"] == pytest.approx(losses[content["global_step"] // 2 - 1])


def csv_rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


LOGGED = ["train_loss", "train_semantic_cross_entropy", "val_semantic_cross_entropy", "val_pq"]
LOGGING = [*TINY, *SEMANTIC, "pictures=2", "trainer.log_every_n_steps=1"]


def test_tensorboard_has_the_values_of_the_csv_file_and_the_pictures(tmp_path, fresh_process):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    assert main(["train", *LOGGING, "logger=tensorboard", f"run={run}"]) == 0
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    rows = csv_rows(run / "metrics.csv")
    for name in LOGGED:
        expected = [float(row[name]) for row in rows if row[name]]
        assert expected
        assert all(math.isfinite(value) for value in expected)
        assert [event.value for event in events.Scalars(name)] == pytest.approx(expected)
    assert len(events.Scalars("train_loss")) == 2
    assert sorted(events.Tags()["images"]) == ["prediction_0", "prediction_1"]
    picture = events.Images("prediction_0")[0]
    assert (picture.width, picture.step) == (3 * 576 + 2 * 6, 2)


def test_wandb_without_an_account_has_the_values_of_the_csv_file_and_the_pictures(tmp_path, fresh_process, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    run = tmp_path / "run"
    try:
        assert main(["train", *LOGGING, "logger=wandb", "logger.wandb.mode=offline", f"run={run}"]) == 0
    finally:
        wandb.finish()
    (offline,) = (run / "wandb").glob("offline-run-*")
    rows = csv_rows(run / "metrics.csv")
    expected = {name: [float(row[name]) for row in rows if row[name]] for name in LOGGED}
    logged = wandb_history(next(offline.glob("*.wandb")))
    deadline = time.monotonic() + 60  # W&B writes from a process of its own, on a busy machine a while longer
    while any(len(logged.get(name, [])) < len(expected[name]) for name in LOGGED) and time.monotonic() < deadline:
        time.sleep(0.5)
        logged = wandb_history(next(offline.glob("*.wandb")))
    for name in LOGGED:
        assert logged[name] == pytest.approx(expected[name])
    pictures = sorted(path.name for path in offline.rglob("*.png"))
    assert {name[: len("prediction_0")] for name in pictures} == {"prediction_0", "prediction_1"}
    assert logged["weight_semantic_cross_entropy"] == [1.0, 1.0]
    table = json.loads(sorted(offline.rglob("val_categories*.table.json"))[-1].read_text())
    values = {
        row["name"]: row["pq"] for row in (dict(zip(table["columns"], cells, strict=True)) for cells in table["data"])
    }
    assert len(values) == 11
    known = [value for value in values.values() if isinstance(value, float) and not math.isnan(value)]
    assert 100 * sum(known) / len(known) == pytest.approx(float(rows[-1]["val_pq"]))
    assert wandb_config(next(offline.glob("*.wandb")))["backbone"]["name"] == "test_resnet"


def wandb_history(path):
    """{name: values in the order they were logged} of an offline run's file."""
    values = {}
    for record in read_records(path):
        for item in record.history.item:
            values.setdefault(item.key or "/".join(item.nested_key), []).append(json.loads(item.value_json))
    return values


def wandb_config(path):
    """The configuration in an offline run's file."""
    values = {}
    for record in read_records(path):
        for item in [*record.config.update, *record.run.config.update]:
            values[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    return values
