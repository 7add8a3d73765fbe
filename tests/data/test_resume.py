import pytest
import pytorch_lightning as pl
import torch
from noise_data import Noise, datamodule
from torch import nn

pytestmark = pytest.mark.slow


class Recorder(pl.LightningModule):
    """Learns nothing worth knowing, but notes which samples came, and saves checkpoints where it is told to."""

    def __init__(self, hook=None, step=None, path=None):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.hook, self.step, self.path = hook, step, path
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, [sample.image_id for sample in batch.samples], batch.images.sum().item()))
        return self.layer(torch.ones(1, 1)).sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def _save(self, hook):
        if hook == self.hook and self.global_step == self.step and not self.trainer.sanity_checking:
            self.trainer.save_checkpoint(self.path)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self._save("train_batch_end")

    def on_validation_end(self):
        self._save("validation_end")

    def on_train_epoch_end(self):
        self._save("train_epoch_end")


def fit(module, data, path, checkpoint=None, **settings):
    trainer = pl.Trainer(
        default_root_dir=path,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **{"max_epochs": 4, **settings},
    )
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    return module.seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("hook", "step"),
    [
        ("train_batch_end", 2),  # an epoch has 3 batches
        ("train_batch_end", 3),
        ("train_batch_end", 4),
        ("train_batch_end", 5),
        ("train_batch_end", 6),
        ("validation_end", 3),
        ("validation_end", 6),
        ("train_epoch_end", 3),
        ("train_epoch_end", 6),
    ],
)
def test_a_resumed_run_goes_on_with_the_very_next_samples(tmp_path, hook, step, num_workers):
    checkpoint = tmp_path / "saved.ckpt"
    whole = fit(Recorder(hook, step, checkpoint), datamodule(num_workers=num_workers), tmp_path)
    assert [epoch for epoch, _, _ in whole] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    resumed = fit(Recorder(), datamodule(num_workers=num_workers), tmp_path, checkpoint)
    assert resumed == whole[step:]


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_was_resumed_can_be_resumed_again(tmp_path):
    first, second = tmp_path / "first.ckpt", tmp_path / "second.ckpt"
    whole = fit(Recorder("train_batch_end", 4, first), datamodule(), tmp_path)
    fit(Recorder("train_batch_end", 5, second), datamodule(), tmp_path, first)
    assert fit(Recorder(), datamodule(), tmp_path, second) == whole[5:]


@pytest.mark.filterwarnings("ignore")
def test_validation_in_the_middle_of_an_epoch_does_not_lose_the_place(tmp_path):
    checkpoint, settings = tmp_path / "saved.ckpt", {"val_check_interval": 2}
    whole = fit(Recorder("validation_end", 5, checkpoint), datamodule(), tmp_path, **settings)
    assert fit(Recorder(), datamodule(), tmp_path, checkpoint, **settings) == whole[5:]


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_between_two_optimizer_steps_does_not_lose_the_place(tmp_path):
    checkpoint, settings = tmp_path / "saved.ckpt", {"accumulate_grad_batches": 2, "max_epochs": 2}
    # 35 images: 5 batches an epoch; after the first step come two batches before the next, the last save is between
    whole = fit(Recorder("train_batch_end", 1, checkpoint), datamodule(Noise(35)), tmp_path, **settings)
    assert fit(Recorder(), datamodule(Noise(35)), tmp_path, checkpoint, **settings) == whole[3:]


@pytest.mark.filterwarnings("ignore")
def test_a_shortened_epoch_resumes_too(tmp_path):
    checkpoint, settings = tmp_path / "saved.ckpt", {"limit_train_batches": 2}
    whole = fit(Recorder("train_batch_end", 3, checkpoint), datamodule(), tmp_path, **settings)
    assert len(whole) == 8
    assert fit(Recorder(), datamodule(), tmp_path, checkpoint, **settings) == whole[3:]
