"""The networks of one or two runs, read from their checkpoints."""

import pytest
import torch
from untrained_runs import write_run

from panoptic.checkpoints import read_checkpoint
from panoptic.inference.networks import SecondRun, load_network, try_fusion
from panoptic.models.joined import JoinedNetworks
from panoptic.structures import Category

pytestmark = pytest.mark.slow

INSTANCE_HEADS = ["heatmap", "short_range", "middle_range", "long_range"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{name: (path of the checkpoint, module)} of a semantic run and a whole DeeperLab."""
    folder = tmp_path_factory.mktemp("runs")
    semantic = write_run(folder / "semantic", "heads=semantic", "fusion=semantic", seed=1)
    deeperlab = write_run(folder / "deeperlab", seed=2)
    best = "checkpoints/best.ckpt"
    return {"semantic": (folder / "semantic" / best, semantic), "deeperlab": (folder / "deeperlab" / best, deeperlab)}


def load(runs, name, second=None):
    path, _ = runs[name]
    return load_network(read_checkpoint(path), path, second)


@torch.no_grad()
def outputs_of(network, images):
    padded = torch.nn.functional.pad(images, (0, 1, 0, 1)) if not isinstance(network, JoinedNetworks) else images
    outputs, _ = network.eval()(padded, [(48, 64)])
    return {name: output.image(0, (48, 64)) for name, output in outputs.items()}


def test_a_second_network_adds_the_heads_that_are_asked_for(runs):
    images = torch.randint(0, 256, (1, 3, 48, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    joined = load(runs, "semantic", SecondRun(runs["deeperlab"][0], INSTANCE_HEADS))
    found = outputs_of(joined, images)
    semantic, deeperlab = (outputs_of(runs[name][1].network, images) for name in ("semantic", "deeperlab"))
    expected = {"semantic": semantic["semantic"], **{name: deeperlab[name] for name in INSTANCE_HEADS}}
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not torch.equal(semantic["semantic"], deeperlab["semantic"])


def test_one_network_has_the_weights_of_its_run(runs):
    network = load(runs, "deeperlab")
    expected = runs["deeperlab"][1].network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


def test_a_head_in_both_runs_is_an_error(runs):
    with pytest.raises(ValueError, match=r"both runs have heads \['semantic'\], expected each name in one"):
        load(runs, "semantic", SecondRun(runs["deeperlab"][0]))


@pytest.mark.parametrize("heads", [["instances"], ["heatmap", "mask"], []])
def test_heads_that_the_second_run_lacks_are_an_error(runs, heads):
    with pytest.raises(ValueError, match=r"expected with_heads to name heads of .*best\.ckpt, \['semantic', 'heatmap'"):
        load(runs, "semantic", SecondRun(runs["deeperlab"][0], heads))


def test_runs_of_other_categories_are_an_error(runs, tmp_path):
    path, _ = runs["deeperlab"]
    content = read_checkpoint(path)
    content["panoptic"]["categories"][0]["name"] = "heaven"
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(
        ValueError, match=r"two runs of the same categories, got \['sky', .*and \['heaven', .*other\.ckpt"
    ):
        load(runs, "semantic", SecondRun(tmp_path / "other.ckpt", INSTANCE_HEADS))


def test_options_name_the_second_run(runs):
    path, _ = runs["deeperlab"]
    options = {"with_run": str(path.parents[1]), "with_checkpoint": "best", "with_heads": None}
    assert SecondRun.of(options) == SecondRun(path)
    assert SecondRun.of({**options, "with_heads": "heatmap"}) == SecondRun(path, ["heatmap"])
    assert SecondRun.of({**options, "with_run": None}) is None
    with pytest.raises(ValueError, match=r"with_heads=heatmap is of a second run; give with_run=<folder> too"):
        SecondRun.of({**options, "with_run": None, "with_heads": "heatmap"})
    with pytest.raises(FileNotFoundError, match=r"checkpoint .*last\.ckpt does not exist"):
        SecondRun.of({**options, "with_checkpoint": "last"})


def needs_instances(outputs, categories, size=None):
    return outputs["instances"]


def test_a_fusion_that_lacks_an_output_fails_at_once_and_leaves_the_mode(runs):
    network = load(runs, "semantic").train()
    with pytest.raises(ValueError, match=r"heads \['semantic'\] and fusion do not fit: instances; choose heads= and"):
        try_fusion(network, needs_instances, [Category(0, "sky", False)])
    assert network.training
