"""`panoptic check-data`: what it writes, what it says, and its exit status."""

import json

import cv2
import pytest
from PIL import Image
from tiny_coco import write_tiny_coco

from panoptic.__main__ import main
from panoptic.data.coco import CocoPanoptic

pytestmark = pytest.mark.slow


@pytest.fixture
def tiny(tmp_path):
    return write_tiny_coco(tmp_path / "data")


def words(tiny, tmp_path, *more):
    """The command for a data set whose two splits are one."""
    paths = [f"{split}.{key}={value}" for split in ("train", "val") for key, value in paths_of(tiny).items()]
    options = [f"data.{path}" for path in paths]
    command = ["check-data", "data=coco_panoptic", f"data.root={tmp_path}", "num_workers=0", f"out={tmp_path / 'out'}"]
    return [*command, *options, *more]


def paths_of(tiny):
    return {"panoptic_json": tiny.panoptic_json, "image_folder": tiny.image_folder}


def spoil(tiny):
    """A wrong area, a wrong box and, beyond what counting can put right, nothing."""
    content = tiny.content()
    content["annotations"][0]["segments_info"][0].update(area=1)
    content["annotations"][1]["segments_info"][1].update(bbox=[0, 0, 0, 0])
    tiny.rewrite(content)


def test_a_split_without_an_image_that_can_be_read_is_left_out_of_the_plot(tiny, tmp_path):
    broken = write_tiny_coco(tmp_path / "broken", count=1)
    (broken.png_folder / "100.png").write_bytes(b"")
    paths = [f"data.train.{key}={value}" for key, value in paths_of(broken).items()]
    assert main([*words(tiny, tmp_path), *paths]) == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [split["images_with_truth"] for split in report["splits"].values()] == [0, 5]
    assert report["num_errors"] == 1
    assert (tmp_path / "out" / "frequencies.png").is_file()


def test_a_clean_data_set_gives_status_0_and_everything_is_written(tiny, tmp_path, capsys):
    assert main(words(tiny, tmp_path)) == 0
    out = tmp_path / "out"
    report = json.loads((out / "report.json").read_text())
    assert (report["num_errors"], report["num_warnings"]) == (0, 2)
    assert list(report["splits"]) == ["train", "val"]
    assert report["splits"]["train"]["images"] == report["splits"]["train"]["images_read"] == 5
    cars = report["splits"]["val"]["categories"][0]
    # four images have a car of 4 x 6 pixels and a crowd of 4 x 2
    assert (cars["name"], cars["pixels"], cars["images"], cars["instances"]) == ("car", 4 * 32, 4, 4)
    assert cv2.imread(str(out / "frequencies.png")).shape[2] == 3
    assert sorted(path.name for path in (out / "pictures").iterdir() if "train" in path.name) == [
        *(f"train_crowded_{number}_1_instances.png" for number in (1, 2, 3, 4)),
        "train_rarest_1_car.png",
        "train_rarest_2_tree.png",
    ]
    height, width, _ = cv2.imread(str(out / "pictures" / "train_rarest_1_car.png")).shape
    assert width % 17 == 0  # the image (12, 17), magnified, above its legend
    assert height > width // 17 * 12
    printed = capsys.readouterr().out
    assert "0 errors, 2 warnings" in printed
    assert "toothbrush" in printed


def test_errors_give_status_1_and_are_all_in_the_report(tiny, tmp_path, capsys):
    (tiny.image_folder / "101_photo.png").unlink()
    Image.new("L", (17, 12)).save(tiny.png_folder / "103.png")
    assert main(words(tiny, tmp_path, "split=val")) == 1
    (split,) = json.loads((tmp_path / "out" / "report.json").read_text())["splits"].values()
    assert split["images_read"] == 3
    assert [(error["kind"], error["file"].rpartition("/")[2]) for error in split["errors"]] == [
        ("missing file", "101_photo.png"),
        ("unreadable file", "103.png"),
    ]
    assert "2 errors, 1 warnings" in capsys.readouterr().out


def test_a_split_that_cannot_be_opened_leaves_the_others_checked(tiny, tmp_path):
    assert main(words(tiny, tmp_path, "data.train.panoptic_json=nowhere.json")) == 1
    splits = json.loads((tmp_path / "out" / "report.json").read_text())["splits"]
    assert [split["opened"] for split in splits.values()] == [False, True]
    assert splits["train"]["errors"][0]["message"].startswith("no file nowhere.json; expected a JSON")
    assert (tmp_path / "out" / "frequencies.png").is_file()


def test_splits_of_other_categories_give_status_1(tiny, tmp_path):
    content = tiny.content()
    content["categories"][0]["name"] = "comb"
    other = tiny.panoptic_json.with_name("other.json")
    other.write_text(json.dumps(content))
    changes = [f"data.val.panoptic_json={other}", f"data.val.png_folder={tiny.png_folder}"]
    assert main(words(tiny, tmp_path, *changes)) == 1
    (error,) = json.loads((tmp_path / "out" / "report.json").read_text())["errors"]
    assert error["message"] == "categories of val are not those of train; these differ: ['comb', 'toothbrush']"


def test_fix_writes_a_new_json_that_has_no_error(tiny, tmp_path, capsys):
    spoil(tiny)
    before = tiny.panoptic_json.read_bytes()
    new = tmp_path / "new.json"
    assert main(words(tiny, tmp_path, "split=train", f"fix={new}")) == 1
    assert "segments changed" in capsys.readouterr().out
    assert tiny.panoptic_json.read_bytes() == before
    fixed = CocoPanoptic(new, tiny.image_folder, tiny.png_folder)
    assert [fixed[index].file_name for index in range(5)] == [f"{100 + i}_photo.png" for i in range(5)]
    with pytest.raises(ValueError, match=r"segment 16777215 of image 100 .* has area 1, but 155 pixels by .*100\.png"):
        CocoPanoptic(tiny.panoptic_json, tiny.image_folder)[0]


def test_fix_refuses_what_counting_does_not_put_right(tiny, tmp_path, capsys):
    spoil(tiny)
    (tiny.image_folder / "101_photo.png").unlink()
    new = tmp_path / "new.json"
    assert main(words(tiny, tmp_path, "split=train", f"fix={new}")) == 1
    assert (
        "counts areas and boxes of a panoptic JSON anew and nothing else, but it has 1 other" in capsys.readouterr().err
    )
    assert not new.exists()


def test_fix_refuses_another_format(tmp_path, capsys):
    scenes = ["data=scenes", "data.train.length=2", "data.train.size=[33,47]", "num_workers=0", "split=train"]
    assert main(["check-data", *scenes, f"out={tmp_path / 'out'}", f"fix={tmp_path / 'new.json'}"]) == 1
    assert "train is not in COCO panoptic format" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["split=test"], "expected split= among ['train', 'val'], got ['test']"),
        (["split=[val,dev]"], "expected split= among ['train', 'val'], got ['dev']"),
        (["fix=new.json"], "expected one split= and a file that does not exist for fix="),
        (["split=val", "fix={json}"], "expected one split= and a file that does not exist for fix="),
        (["out={folder}"], "exists; results are never overwritten; choose another out="),
        (["num_workers=many"], "expected a whole number for num_workers, got 'many'"),
        (["splits=val"], "'splits' is not a key"),
    ],
)
def test_what_cannot_be_done_says_why_and_writes_nothing(tiny, tmp_path, capsys, given, message):
    given = [word.format(json=tiny.panoptic_json, folder=tiny.image_folder) for word in given]
    assert main(words(tiny, tmp_path, *given)) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_without_a_data_set_it_says_how_to_give_one(capsys):
    assert main(["check-data"]) == 1
    assert "give data=<name>, such as data=coco_panoptic" in capsys.readouterr().err
    assert main(["check-data", "data=coco_panoptic"]) == 1
    assert "give data.root=..., it has no default" in capsys.readouterr().err
