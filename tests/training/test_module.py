"""The module in real trainings of a few steps."""

from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from batch_norms import norms
from tiny_training import compose, data_and_module, plain_trainer

from panoptic.assembly import build_trainer
from panoptic.checkpoints import CHECKPOINT_FORMAT
from panoptic.data.scenes import CATEGORIES, Scenes
from panoptic.metrics import PanopticQuality
from panoptic.models.heads.semantic import SemanticHead
from panoptic.models.network import ImageOutputs
from panoptic.structures import VOID, Category, FusionResult, PanopticMap, Sample
from panoptic.training.module import PanopticModule

LAMBDAS = {"semantic_cross_entropy": 2.0, "heatmap_cross_entropy": 0.5, "short_range_l1": 0.0}
LOSSES = [
    "semantic_cross_entropy",
    "heatmap_cross_entropy",
    "short_range_l1",
    "middle_range_l1",
    "long_range_l1",
]


class Recorder(pl.Callback):
    """Notes the module's record of every step before backward, and gradient norms before clipping."""

    def __init__(self):
        self.totals, self.losses, self.weights, self.slopes, self.norms = [], [], [], [], []

    def on_before_backward(self, trainer, pl_module, loss):
        record = pl_module.step_record
        self.totals.append(loss.item())
        self.losses.append({name: value.item() for name, value in record.losses.items()})
        self.weights.append({name: value.item() for name, value in record.weights.items()})
        assert [tensor.shape[0] for tensor in record.shared] == [2]
        self.slopes.append(
            {
                name: torch.autograd.grad(value, record.shared, retain_graph=True)[0].abs().sum().item()
                for name, value in record.losses.items()
            }
        )

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self.norms.append(torch.stack([gradient.norm() for gradient in gradients]).norm().item())


class WithoutThings(Scenes):
    """Scenes whose things are unlabelled; the last of every two has no label at all."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        kept = [s for s in sample.panoptic_map.segments if index % 2 == 0 and not CATEGORIES[s.category_id].is_thing]
        ids = sample.panoptic_map.segment_ids
        listed = torch.isin(ids, torch.tensor([segment.id for segment in kept], dtype=torch.int64))
        emptied = PanopticMap(torch.where(listed, ids, VOID), kept)
        return Sample(sample.image, sample.image_id, sample.file_name, emptied, None, sample.original_size)


def test_the_step_record_belongs_to_the_step_and_is_still_attached():
    data, module = data_and_module(loss_weights={})
    recorder = Recorder()
    plain_trainer(recorder).fit(module, datamodule=data)
    assert len(recorder.totals) == 2
    assert recorder.losses[0] != recorder.losses[1]
    for total, losses, weights, slopes in zip(
        recorder.totals, recorder.losses, recorder.weights, recorder.slopes, strict=True
    ):
        assert list(losses) == list(weights) == LOSSES
        assert set(weights.values()) == {1.0}
        assert total == pytest.approx(sum(losses.values()))
        assert all(slope > 0 for slope in slopes.values()), slopes


def test_loss_weights_multiply_their_losses_and_others_weigh_one():
    data, module = data_and_module(loss_weights=LAMBDAS)
    recorder = Recorder()
    plain_trainer(recorder).fit(module, datamodule=data)
    for total, losses, weights in zip(recorder.totals, recorder.losses, recorder.weights, strict=True):
        assert weights == {**dict.fromkeys(LOSSES, 1.0), **LAMBDAS}
        # unweighted: 0 * short_range_l1 is left out of the sum, not out of the record
        assert losses["short_range_l1"] > 0
        assert total == pytest.approx(
            2 * losses["semantic_cross_entropy"]
            + 0.5 * losses["heatmap_cross_entropy"]
            + losses["middle_range_l1"]
            + losses["long_range_l1"]
        )


def test_a_loss_that_no_head_produces_is_refused():
    with pytest.raises(ValueError, match=r"loss_weights names \['semantic_l1'\], but heads produce \['heatmap_cross_"):
        data_and_module("+loss_weights.semantic_l1=2")


def test_an_unknown_size_to_score_at_is_refused():
    with pytest.raises(ValueError, match='expected score_at "original" or "network", got \'huge\''):
        data_and_module("evaluate.size=huge")


def test_images_without_things_or_labels_train():
    data, module = data_and_module()
    data.train = WithoutThings("train", 4, (48, 64), "easy")
    recorder = Recorder()
    plain_trainer(recorder).fit(module, datamodule=data)
    assert np.isfinite(recorder.norms).all()
    assert np.isfinite(recorder.totals).all()
    assert all(losses["long_range_l1"] == 0 for losses in recorder.losses)
    assert all(parameter.isfinite().all() for parameter in module.parameters())


@torch.no_grad()
def quality_by_hand(data, module, longest_side):
    """PQ in percent, one image after another, without the module's own step, transform and resizing."""
    quality = PanopticQuality(module.categories)
    module.eval()
    for index in range(len(data.val)):
        sample = data.val[index]
        height, width = sample.size
        factor = longest_side / max(height, width)
        size = (round(factor * height), round(factor * width))
        pixels = sample.image.permute(1, 2, 0).numpy()
        resized = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
        padded = [side + (1 - side) % 16 for side in size]
        image = torch.zeros(1, 3, *padded, dtype=torch.uint8)
        image[0, :, : size[0], : size[1]] = torch.from_numpy(resized).permute(2, 0, 1)
        outputs, _ = module.network(image, [size])
        fused = module.fusion(ImageOutputs(outputs, 0, size), module.categories).panoptic_map
        ids = fused.segment_ids.numpy().astype(np.int32)
        ids = cv2.resize(ids, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        present = [segment for segment in fused.segments if (ids == segment.id).any()]
        quality.update(PanopticMap(torch.from_numpy(ids).long(), present), sample.panoptic_map)
    return 100 * quality.compute()["pq"].item()


class SkyOverRoad(SemanticHead):
    """Sees sky above and road below, with a border that the features move up and down."""

    def forward(self, features, outputs):
        output = super().forward(features, outputs)
        rows = torch.linspace(1, -1, output.values.shape[-2])[:, None]
        slope = torch.stack([rows, -rows, *[0 * rows - 1] * (output.values.shape[1] - 2)])
        return replace(output, values=output.values + 8 * slope)


@pytest.mark.parametrize("longest_side", [64, 48, 96])
def test_val_pq_equals_the_quality_of_the_fused_maps_computed_by_hand(longest_side):
    overrides = ["heads=semantic", "fusion=semantic", f"+data.eval_transform.longest_side={longest_side}"]
    head = f"heads.semantic._target_={SkyOverRoad.__module__}.{SkyOverRoad.__name__}"
    data, module = data_and_module("data.val.length=10", *overrides, head)
    for part in norms(module.network):
        part.momentum = 1.0  # statistics of the one batch: features that differ from pixel to pixel
    plain_trainer(max_steps=1).fit(module, datamodule=data)
    trainer = plain_trainer(limit_val_batches=None)
    trainer.validate(module, datamodule=data, verbose=False)
    logged = float(trainer.callback_metrics["val_pq"])
    assert logged > 1
    assert logged == pytest.approx(quality_by_hand(data, module, longest_side), abs=1e-4)
    assert module.quality_values["pq"] == pytest.approx(logged / 100)


def test_scoring_at_the_networks_size_compares_with_the_resized_truth():
    data, module = data_and_module("+data.eval_transform.longest_side=32", "evaluate.size=network", "fusion=semantic")
    module.fusion = partial(truth_as_prediction, iter([data.eval_transform(data.val[index]) for index in range(3)]))
    trainer = plain_trainer(limit_val_batches=None)
    trainer.validate(module, datamodule=data, verbose=False)
    assert float(trainer.callback_metrics["val_pq"]) == pytest.approx(100)


def truth_as_prediction(samples, outputs, categories, size):
    truth = next(samples).panoptic_map
    assert truth.size == outputs["semantic"].shape[-2:] == size
    return FusionResult(truth, torch.zeros(truth.size, dtype=torch.int64))


def test_gradients_are_clipped_as_configured(tmp_path):
    assert build_trainer(compose(), tmp_path).gradient_clip_val == 10.0
    overrides = ["trainer.gradient_clip_val=0.5", "optimizer=sgd", "optimizer.weight_decay=0", "optimizer.lr=1.0"]
    data, module = data_and_module(*overrides)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    recorder = Recorder()
    plain_trainer(recorder, gradient_clip_val=0.5, max_steps=1).fit(module, datamodule=data)
    steps = [(after.detach() - old).norm() for after, old in zip(module.parameters(), before, strict=True)]
    assert recorder.norms[0] > 1
    assert torch.stack(steps).norm().item() == pytest.approx(0.5, rel=1e-3)


def test_a_checkpoint_holds_what_a_later_evaluation_needs(tmp_path):
    overrides = ["++loss_weights.long_range_l1=0.5"]
    data, module = data_and_module(*overrides)
    trainer = plain_trainer(max_steps=1)
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    content = torch.load(tmp_path / "one.ckpt", weights_only=True)
    own = content["panoptic"]
    assert own["format"] == CHECKPOINT_FORMAT
    assert own["config"] == compose(*overrides)
    entries = [{**entry, "colour": tuple(entry["colour"])} for entry in own["categories"]]
    assert [Category(**entry) for entry in entries] == data.categories
    assert tuple(own["statistics"]["mean"]) == data.image_statistics.mean
    assert tuple(own["statistics"]["std"]) == data.image_statistics.std
    _, other = data_and_module()
    other.load_state_dict(content["state_dict"])
    for one, two in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("scheduler", ["poly", None])
def test_the_schedule_counts_optimizer_steps(scheduler):
    data, module = data_and_module("optimizer=sgd", "optimizer.lr=1.0e-3")
    assert isinstance(module, PanopticModule)
    if scheduler is None:
        module.scheduler = None
    trainer = plain_trainer(accumulate_grad_batches=2, max_epochs=3)
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 3  # 4 images, 2 a batch, 2 batches a step, 3 epochs
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    assert rate == (0.0 if scheduler else 1e-3)


def test_a_schedule_without_an_end_of_training_is_refused():
    data, module = data_and_module()
    with pytest.raises(ValueError, match=r"a schedule needs an end of training; set trainer.max_epochs"):
        plain_trainer(max_epochs=-1).fit(module, datamodule=data)


def test_the_graph_of_a_step_is_let_go():
    data, module = data_and_module()
    plain_trainer().fit(module, datamodule=data)
    assert module.step_record is None
