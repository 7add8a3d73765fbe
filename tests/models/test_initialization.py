"""Weights to begin with: of torchvision's Mask R-CNN and of our own runs."""

import re

import pytest
import torch
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor

from panoptic.__main__ import main
from panoptic.assembly import build_data, build_module
from panoptic.configuration import load_config, resolved
from panoptic.models.build import build_network
from panoptic.models.initialization import initialize_from
from panoptic.run_folder import RUN_FOLDER_VARIABLE
from panoptic.structures import Category, ImageStatistics

pytestmark = pytest.mark.slow

CATEGORIES = [Category(number, f"name {number}", is_thing=number > 1) for number in range(7)]
SMALL = ["backbone.name=resnet18", "backbone.output_stride=32"]
HEAD = "_parts.0.heads.instances"


def make_network(*overrides, categories=CATEGORIES, seed=1):
    torch.manual_seed(seed)
    config = resolved(load_config("train", [*SMALL, *overrides, "heads.instances.box_filters=64"]))
    return build_network(config, categories, ImageStatistics())


@pytest.fixture(scope="module")
def theirs():
    """A Mask R-CNN for five things, on a small ResNet, with few filters where there are most."""
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=torch.nn.BatchNorm2d)
    layers = {
        "box_head": TwoMLPHead(256 * 7**2, 64),
        "box_predictor": FastRCNNPredictor(64, 6),
        "mask_predictor": MaskRCNNPredictor(256, 256, 6),
    }
    return MaskRCNN(backbone, **layers)


@pytest.fixture(scope="module")
def file(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "theirs.pth"
    torch.save(theirs.state_dict(), path)
    return path


def values_of(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


@torch.no_grad()
def test_torchvisions_weights_load_completely(theirs, file):
    network = make_network("decoder=fpn", "heads=mask_rcnn")
    report = initialize_from(network, file)
    count = len(network.state_dict())
    assert f"{count} of {count} tensors loaded; 0 of another shape left as they were []; 0 not in the file []" in report
    assert report.endswith("0 of the file unused []")
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    path = network.eval().paths[0]
    expected = theirs.eval().backbone(images)
    for (level, found), wanted in zip(path.decoder(path.backbone(images)).items(), expected.values(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4, msg=lambda text, level=level: level + text)
    state, own = theirs.state_dict(), network.state_dict()
    for part in ("rpn.head.bbox_pred.weight", "roi_heads.box_head.fc6.weight", "roi_heads.mask_head.3.0.bias"):
        assert torch.equal(own[f"{HEAD}.{part}"], state[part])


def old_names(state):
    """As torchvision wrote them before 0.13, and offers them for download."""
    renamed = {}
    for name, value in state.items():
        old = re.sub(r"(inner_blocks|layer_blocks)\.(\d)\.0\.", r"\1.\2.", name).replace("conv.0.0.", "conv.")
        old = re.sub(r"mask_head\.(\d)\.0\.", lambda match: f"mask_head.mask_fcn{int(match[1]) + 1}.", old)
        renamed[old] = value
    return {name: value for name, value in renamed.items() if not name.endswith("num_batches_tracked")}


def test_files_of_old_names_load_the_same(theirs, file, tmp_path):
    old = old_names(theirs.state_dict())
    for name in ("rpn.head.conv.weight", "roi_heads.mask_head.mask_fcn4.bias", "backbone.fpn.layer_blocks.3.weight"):
        assert name in old
    torch.save({"model": old}, tmp_path / "old.pth")
    one, other = (make_network("decoder=fpn", "heads=mask_rcnn", seed=seed) for seed in (1, 2))
    initialize_from(one, file)
    report = initialize_from(other, tmp_path / "old.pth")
    assert "0 not in the file []; 0 of the file unused []" in report
    torch.testing.assert_close(dict(other.named_parameters()), dict(one.named_parameters()), rtol=0, atol=0)


def test_last_layers_of_other_classes_are_listed_and_kept(file):
    network = make_network("decoder=fpn", "heads=mask_rcnn", categories=CATEGORIES[:5])
    before = values_of(network)
    report = initialize_from(network, file)
    assert "; 6 of another shape left as they were [" in report
    last = [f"{HEAD}.roi_heads.{name}" for name in ("box_predictor.cls_score", "box_predictor.bbox_pred")]
    last.append(f"{HEAD}.roi_heads.mask_predictor.mask_fcn_logits")
    assert f"{last[0]}.weight (6, 64) into (4, 64)" in report
    for name in last:
        assert f"{name}.weight (" in report
        assert f"{name}.bias (" in report
        assert torch.equal(network.state_dict()[f"{name}.weight"], before[f"{name}.weight"])
    assert not torch.equal(
        network.state_dict()[f"{HEAD}.rpn.head.conv.0.0.weight"], before[f"{HEAD}.rpn.head.conv.0.0.weight"]
    )


def test_what_the_file_lacks_is_reported_and_kept(file):
    network = make_network("decoder=fpn", "heads=fusion_scheme")
    before = values_of(network)
    report = initialize_from(network, file)
    names = [name for name in before if name.startswith("_parts.0.heads.semantic.")]
    assert f"{len(names)} not in the file [{names[0]}, " in report
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in names)


def test_the_convolution_of_the_rpn_moves_into_oanets_decoder(theirs, file):
    network = make_network("decoder=fpn_rpn_features", "heads=oanet")
    initialize_from(network, file)
    assert torch.equal(
        network.state_dict()["_parts.0.decoder.rpn_features.0.weight"], theirs.state_dict()["rpn.head.conv.0.0.weight"]
    )


def test_two_backbones_begin_alike(theirs, file):
    network = make_network("decoder=fpn_rpn_features", "heads=oanet", "sharing=none")
    initialize_from(network, file)
    first, second = (path.backbone.body.conv1.weight for path in network.paths)
    assert first is not second
    assert torch.equal(first, second)
    assert torch.equal(first, theirs.backbone.body.conv1.weight)


def test_a_checkpoint_of_another_run_of_ours(tmp_path):
    source = make_network("decoder=fpn", "heads=mask_rcnn", seed=5)
    state = {f"network.{name}": value for name, value in source.state_dict().items()}
    torch.save({"state_dict": state | {"balancer.step": torch.zeros(1)}, "epoch": 3}, tmp_path / "best.ckpt")
    same, other = make_network("decoder=fpn", "heads=mask_rcnn"), make_network("decoder=fpn", "heads=fusion_scheme")
    report = initialize_from(same, tmp_path / "best.ckpt")
    assert f"weights from {tmp_path / 'best.ckpt'}: {len(state)} of {len(state)} tensors loaded" in report
    assert report.endswith("0 of the file unused []")
    torch.testing.assert_close(same.state_dict(), source.state_dict(), rtol=0, atol=0)
    assert f"{len(state)} of {len(other.state_dict())} tensors loaded" in initialize_from(other, tmp_path / "best.ckpt")


def test_a_file_of_which_nothing_matches_is_refused(tmp_path):
    torch.save({"features.0.weight": torch.zeros(2)}, tmp_path / "other.pth")
    network = make_network("decoder=fpn", "heads=mask_rcnn")
    message = (
        r"init_from: none of the 1 tensors in .*other.pth \(such as 'features.0.weight'\) matches one of the network "
        r"\(such as '_parts.0.backbone"
    )
    with pytest.raises(ValueError, match=message):
        initialize_from(network, tmp_path / "other.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"init_from: .*none.pth does not exist"):
        initialize_from(make_network("decoder=fpn", "heads=mask_rcnn"), tmp_path / "none.pth")


@pytest.mark.parametrize("content", [b"", b"no weights"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"init_from: .*broken.pth cannot be read"):
        initialize_from(make_network("decoder=fpn", "heads=mask_rcnn"), tmp_path / "broken.pth")


RUN = [
    "backbone.name=test_resnet",
    "heads=semantic",
    "fusion=semantic",
    "decoder.filters=16",
    "heads.semantic.filters=16",
    "data.train.length=4",
    "data.val.length=2",
    "data.train.size=[48,64]",
    "data.batch_size=2",
    "data.num_workers=0",
    "trainer.max_epochs=1",
    "scheduler.warmup_steps=0",
    "pictures=0",
]


@pytest.fixture
def weights(tmp_path):
    """Weights of the network of `RUN`, all different from those of its seed."""
    config = resolved(load_config("train", RUN))
    torch.manual_seed(77)
    network = build_network(config, build_data(config).categories, ImageStatistics())
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_a_configuration_begins_with_the_weights_it_names(weights, capsys):
    config = resolved(load_config("train", [*RUN, f"init_from={weights}"]))
    module = build_module(config, build_data(config))
    torch.testing.assert_close(module.network.state_dict(), torch.load(weights), rtol=0, atol=0)
    assert f"weights from {weights}: " in capsys.readouterr().out
    assert module.config["init_from"] == str(weights)


@pytest.mark.slow
def test_a_run_that_goes_on_or_is_evaluated_needs_no_weights_to_begin_with(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(RUN_FOLDER_VARIABLE, raising=False)
    run = [*RUN, f"run={tmp_path / 'run'}", f"init_from={weights}"]
    assert main(["train", *run]) == 0
    assert f"weights from {weights}: " in capsys.readouterr().out
    weights.unlink()
    monkeypatch.delenv(RUN_FOLDER_VARIABLE, raising=False)
    assert main(["train", *run, "resume=auto", "trainer.max_epochs=2", "accept_changes=true"]) == 0
    assert "weights from" not in capsys.readouterr().out
    assert main(["evaluate", f"run={tmp_path / 'run'}", "split=val", f"out={tmp_path / 'evaluation'}"]) == 0
    monkeypatch.delenv(RUN_FOLDER_VARIABLE, raising=False)
    assert main(["train", *run[:-2], f"run={tmp_path / 'again'}", f"init_from={weights}"]) == 1
    assert f"init_from: {weights} does not exist" in capsys.readouterr().err
