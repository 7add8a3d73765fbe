"""The share of waiting, with steps and loads of known length."""

import time

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from panoptic.training.data_wait import DataWait


class SlowData(Dataset):
    def __init__(self, length, seconds):
        self.length, self.seconds = length, seconds

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        time.sleep(self.seconds)
        return torch.ones(1)


class SlowSteps(pl.LightningModule):
    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        time.sleep(self.seconds)
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        time.sleep(self.seconds)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Rows(pl.loggers.logger.Logger):
    """Keeps what is logged."""

    name = version = ""

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, metrics))

    def log_hyperparams(self, params):
        pass


class SlowSave(pl.Callback):
    """Takes its time when a batch starts, as writing a checkpoint does."""

    def on_train_batch_start(self, *_):
        time.sleep(0.05)


def fit(data, steps, *callbacks, workers=0, logger=False, validation=None, **settings):
    wait = DataWait()
    trainer = pl.Trainer(
        accelerator="cpu",
        callbacks=[wait, *callbacks],
        logger=logger,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        **{"max_epochs": 2, **settings},
    )
    trainer.fit(SlowSteps(steps), DataLoader(data, num_workers=workers), validation)
    return wait


def test_seconds_and_share_are_those_of_loading_and_of_steps():
    # 2 epochs of 5 batches: 10 loads of 30 ms, 10 steps of 10 ms; a busy machine adds to both, and nothing takes away.
    wait = fit(SlowData(5, 0.03), 0.01)
    assert 0.30 <= wait.waited < 0.60
    assert 0.10 <= wait.trained < 0.25
    assert wait.share == wait.waited / (wait.waited + wait.trained)
    assert wait.share > 0.55


@pytest.mark.slow
def test_a_worker_that_loads_during_the_step_leaves_no_wait():
    # 8 loads of 200 ms: 1.6 s, unless all but the first hide behind steps of 250 ms.
    assert fit(SlowData(8, 0.2), 0.25, max_epochs=1).waited >= 1.6
    assert fit(SlowData(8, 0.2), 0.25, workers=1, max_epochs=1).waited < 1.6


def test_validation_and_what_callbacks_do_is_no_wait():
    # 4 validations take 4 x 3 x (20 + 10) = 360 ms, the callback 10 x 50 ms, the steps 10 x 10 ms; loading no time.
    validation = DataLoader(SlowData(3, 0.02))
    wait = fit(SlowData(5, 0.0), 0.01, SlowSave(), validation=validation, val_check_interval=2)
    assert wait.waited < 0.3
    assert 0.6 <= wait.trained < 0.9


def test_the_share_is_printed_and_logged_at_the_end(capsys):
    logger = Rows()
    wait = fit(SlowData(3, 0.02), 0.005, logger=logger)
    assert f"waiting for data: {100 * wait.share:.1f} % of the training time; raise data.num_workers" in (
        capsys.readouterr().out
    )
    assert logger.rows[-1] == (6, {"data_wait": pytest.approx(wait.share, abs=1e-6)})


class Known(pl.Callback):
    """Gives the measured seconds at the end of the epoch."""

    def __init__(self, waited, trained):
        self.waited, self.trained = waited, trained

    def on_train_epoch_end(self, trainer, pl_module):
        wait = trainer.callbacks[0]
        wait.waited, wait.trained = self.waited, self.trained


@pytest.mark.parametrize(("waited", "advice"), [(4.9, ""), (5.0, "; raise data.num_workers")])
def test_more_workers_are_advised_from_five_percent_on(waited, advice, capsys):
    fit(SlowData(1, 0.0), 0.0, Known(waited, 100 - waited), max_epochs=1)
    assert f"waiting for data: {waited} % of the training time{advice}\n" in capsys.readouterr().out


def test_a_second_training_is_measured_anew_and_none_is_no_share():
    wait = fit(SlowData(2, 0.05), 0.0)
    wait.on_train_start(None, None)
    assert wait.share == 0.0
