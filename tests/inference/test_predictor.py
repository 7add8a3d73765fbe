"""Predictions of a checkpoint of one training step, from arrays and from files of every kind."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from batch_norms import norms
from experiment_steps import data_and_module, fit_steps
from PIL import Image

from panoptic.data.images import read_image
from panoptic.inference.predictor import Predictor, as_image

pytestmark = pytest.mark.slow

TINY = [
    "backbone.name=test_resnet",
    "decoder.filters=16",
    "keypoints.radius=6.0",
    "data.train.length=2",
    "data.val.length=3",
    "data.train.size=[48,64]",
    "data.batch_size=2",
    "data.num_workers=0",
    "+data.eval_transform.longest_side=56",
]


class Results(pl.Callback):
    """What `validation_step` returned, image by image."""

    def __init__(self):
        self.maps = []

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.maps += [result.panoptic_map for result in outputs]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(data, maps that validation made of the val images, checkpoint) after one step."""
    data, module = data_and_module(*TINY)
    for part in norms(module.network):
        part.momentum = 1.0  # statistics of the one batch: features that differ from pixel to pixel
    results = Results()
    trainer = fit_steps(data, module, 1, results)
    path = tmp_path_factory.mktemp("checkpoints") / "one.ckpt"
    trainer.save_checkpoint(path)
    return data, results.maps, path


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor.from_checkpoint(trained[2], device="cpu")


@pytest.fixture
def pixels():
    """(75, 101, 3) of smooth colours with noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    noisy = cv2.resize(coarse, (101, 75)).astype(int) + rng.integers(-9, 10, (75, 101, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def assert_equal_maps(one, other):
    assert torch.equal(one.segment_ids, other.segment_ids)
    assert [replace(s, score=None) for s in one.segments] == [replace(s, score=None) for s in other.segments]
    scores = [segment.score or 0 for segment in other.segments]
    assert [segment.score or 0 for segment in one.segments] == pytest.approx(scores, abs=1e-5)


def test_predictions_are_those_of_validation(trained, predictor):
    data, maps, _ = trained
    assert len(maps) == 3
    assert max(len(panoptic_map.segments) for panoptic_map in maps) > 2
    assert any(segment.score is not None for panoptic_map in maps for segment in panoptic_map.segments)
    for index, expected in enumerate(maps):
        found = predictor(data.val[index].image)
        assert found.size == (48, 64)
        assert_equal_maps(found, expected)


def test_a_file_an_array_and_a_tensor_give_the_same_map(predictor, pixels, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    expected = predictor(pixels)
    assert expected.size == (75, 101)
    for image in (path, str(path), torch.from_numpy(pixels).permute(2, 0, 1), np.asfortranarray(pixels)):
        assert_equal_maps(predictor(image), expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 17), (75, 101), (130, 64)])
def test_the_map_has_the_size_of_the_image_and_segments_that_are_there(predictor, size):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    before = image.copy()
    panoptic_map = predictor(image)
    assert panoptic_map.size == size
    ids, areas = panoptic_map.segment_ids.unique(return_counts=True)
    assert dict(zip(ids.tolist(), areas.tolist(), strict=True)) == {s.id: s.area for s in panoptic_map.segments}
    assert {segment.category_id for segment in panoptic_map.segments} <= set(range(len(predictor.categories)))
    assert (image == before).all()


def test_categories_are_those_of_the_training(trained, predictor):
    assert list(predictor.categories) == trained[0].categories


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1"])
def test_a_file_of_any_mode_becomes_rgb(pixels, tmp_path, mode):
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).convert(mode).save(path)
    image = as_image(path)
    assert image.shape == (3, 75, 101)
    assert image.dtype == torch.uint8
    if mode == "RGBA":
        assert (image.permute(1, 2, 0).numpy() == pixels).all()
    if mode in ("L", "LA", "1"):
        assert torch.equal(image[0], image[1])
        assert torch.equal(image[0], image[2])
        assert len(image.unique()) > 1


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_read_as_in_training(pixels, tmp_path, channels):
    path = tmp_path / "photo.png"
    values = pixels if channels == 3 else pixels[..., 0]
    cv2.imwrite(str(path), values.astype(np.uint16) * 257)
    difference = int(np.abs(as_image(path).permute(1, 2, 0).numpy().astype(int) - read_image(path)).max())
    assert difference <= 1


def test_a_photograph_is_turned_as_its_exif_data_says(pixels, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a turn of 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    turned = as_image(tmp_path / "photo.png")
    assert (turned.permute(1, 2, 0).numpy() == np.rot90(pixels, -1)).all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((5, 7), np.uint8),
        np.zeros((5, 7, 4), np.uint8),
        np.zeros((5, 7, 3), np.float32),
        torch.zeros(5, 7, 3, dtype=torch.uint8),
        torch.zeros(3, 5, 7),
        torch.zeros(1, 3, 5, 7, dtype=torch.uint8),
    ],
    ids=["grey", "alpha", "float array", "channels last", "float tensor", "batch"],
)
def test_arrays_of_another_shape_or_type_are_refused(predictor, image):
    with pytest.raises(ValueError, match=r"expected an? \((H, W, 3|3, H, W)\) uint8 .*, got"):
        predictor(image)


def test_files_that_are_no_photographs_are_named(predictor, pixels, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"image .*none\.jpg does not exist"):
        predictor(tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(ValueError, match=r"text\.jpg is not an image that can be read"):
        predictor(tmp_path / "text.jpg")
    Image.fromarray(pixels).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.png is damaged"):
        predictor(tmp_path / "cut.png")


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"checkpoint .*none\.ckpt does not exist"):
        Predictor.from_checkpoint(tmp_path / "none.ckpt")


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1, 2]])
def test_a_checkpoint_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other\.ckpt is not a checkpoint of this package"):
        Predictor.from_checkpoint(tmp_path / "other.ckpt")


@pytest.mark.parametrize("content", [b"not a checkpoint", b"hello world", b"", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_checkpoint_at_all_is_named(tmp_path, content):
    (tmp_path / "other.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.ckpt"):
        Predictor.from_checkpoint(tmp_path / "other.ckpt")


def with_changes(path, folder, change):
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, folder / "changed.ckpt")
    return folder / "changed.ckpt"


def test_a_checkpoint_of_another_format_is_refused(trained, tmp_path):
    changed = with_changes(trained[2], tmp_path, lambda content: content["panoptic"].update(format=7))
    with pytest.raises(ValueError, match=r"changed\.ckpt has checkpoint format 7, expected 1"):
        Predictor.from_checkpoint(changed)


def test_weights_that_do_not_fit_their_configuration_are_refused(trained, tmp_path):
    changed = with_changes(
        trained[2], tmp_path, lambda content: content["panoptic"]["config"]["decoder"].update(filters=8)
    )
    with pytest.raises(ValueError, match=r"weights in .*changed\.ckpt do not fit the network of its configuration"):
        Predictor.from_checkpoint(changed)


def test_weights_of_the_backbone_come_from_the_checkpoint_alone(trained, predictor, pixels, tmp_path):
    """The file that training started from may be gone."""
    changed = with_changes(
        trained[2],
        tmp_path,
        lambda content: content["panoptic"]["config"]["backbone"].update(checkpoint=str(tmp_path / "gone.pth")),
    )
    assert_equal_maps(Predictor.from_checkpoint(changed, device="cpu")(pixels), predictor(pixels))
