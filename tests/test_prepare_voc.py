import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_voc import CAR, OF_SBD, objects_of, sbd_classes_of, write_sbd_classes, write_tiny_sbd, write_tiny_voc

from panoptic.data.voc import VOC2012, voc_colour

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "prepare_voc.py"))
ADDED = ("ImageSets/Segmentation/trainaug.txt", "SegmentationClassAug", "SegmentationObjectAug")


@pytest.fixture
def voc(tmp_path):
    return write_tiny_voc(tmp_path / "VOC2012")


@pytest.fixture
def sbd(tmp_path):
    return write_tiny_sbd(tmp_path / "dataset")


def prepare(voc, sbd, *more):
    return SCRIPT["main"]([str(voc), "--sbd", str(sbd), "--subset", *more])


def test_trainaug_is_train_and_sbd_without_val(voc, sbd, capsys):
    assert prepare(voc, sbd) == 0
    # SBD's second image is in the challenge's val
    assert (voc / ADDED[0]).read_text() == f"2007_000032\n{OF_SBD}\n"
    assert "2 images in trainaug, 1 of them annotated by SBD\n0 pixels of objects" in capsys.readouterr().out
    assert [path.name for path in (voc / "SegmentationClassAug").iterdir()] == [f"{OF_SBD}.png"]


@pytest.mark.parametrize("labels", ["semantic", "panoptic"])
def test_the_pngs_give_what_sbds_own_files_give(voc, sbd, labels):
    assert prepare(voc, sbd) == 0
    for by_png, by_mat in zip(*(VOC2012(voc, "trainaug", labels=labels, sbd=s) for s in (None, sbd)), strict=True):
        assert by_png.panoptic_map.segments == by_mat.panoptic_map.segments
        assert by_png.panoptic_map.segment_ids.equal(by_mat.panoptic_map.segment_ids)


def test_the_pngs_have_the_official_palette(voc, sbd):
    assert prepare(voc, sbd) == 0
    for folder, values in (("Class", sbd_classes_of(OF_SBD)), ("Object", objects_of(OF_SBD, void=0))):
        with Image.open(voc / f"Segmentation{folder}Aug" / f"{OF_SBD}.png") as image:
            assert np.array_equal(np.array(image), values)
            assert [tuple(c) for c in np.reshape(image.getpalette(), (-1, 3))] == [voc_colour(v) for v in range(256)]


def test_objects_whose_classes_disagree_are_void_there_and_counted(voc, sbd, capsys):
    classes = sbd_classes_of(OF_SBD)
    classes[2, 2:4] = CAR + 1
    write_sbd_classes(sbd, OF_SBD, classes)
    assert prepare(voc, sbd) == 0
    assert "2 pixels of objects are void" in capsys.readouterr().out
    ids = VOC2012(voc, "trainaug")[1].panoptic_map.segment_ids
    assert ids[2, 1:5].tolist() == [255, 0, 0, 1]


def test_without_sbd_the_challenges_folder_is_checked_alone(voc, capsys):
    assert SCRIPT["main"]([str(voc), "--subset"]) == 0
    assert capsys.readouterr().out == "1 images in train\n1 images in val\n2 images in trainval\n1 images in test\n"
    (voc / "ImageSets" / "Segmentation" / "test.txt").unlink()  # another download
    assert SCRIPT["main"]([str(voc), "--subset"]) == 0
    (voc / "SegmentationObject" / "2007_000033.png").unlink()
    assert SCRIPT["main"]([str(voc), "--subset"]) == 1
    assert "no ground truth in SegmentationClass and SegmentationObject" in capsys.readouterr().err


def test_other_numbers_of_images_than_the_official_ones_are_an_error(voc, sbd, capsys):
    assert SCRIPT["main"]([str(voc), "--sbd", str(sbd)]) == 1
    error = capsys.readouterr().err
    assert "expected images: 1464 in train, got 1; 1449 in val, got 1; 2913 in trainval, got 2; 1456 in test" in error
    assert "Fetch the files again, or say --subset if it is meant" in error
    assert not any((voc / name).exists() for name in ADDED)


def test_the_official_numbers_add_up():
    official = SCRIPT["OFFICIAL"]
    assert official["train"] + official["val"] == official["trainval"]
    # SBD has 11355 images; what it shares with val is not in trainaug, what train has alone is
    assert official["trainaug"] < official["SBD's train"] + official["SBD's val"] == 11355
    SCRIPT["check_counts"](official)
    with pytest.raises(ValueError, match=r"expected images: 10582 in trainaug, got 10581\. Fetch"):
        SCRIPT["check_counts"]({**official, "trainaug": 10581})


@pytest.mark.parametrize("name", ADDED)
def test_what_is_there_already_is_not_overwritten(voc, sbd, capsys, name):
    (voc / name).mkdir()
    assert prepare(voc, sbd) == 1
    assert "exists already; remove it to make it anew" in capsys.readouterr().err
    assert list((voc / name).iterdir()) == []


def break_annotation(voc, sbd):
    path = sbd / "inst" / f"{OF_SBD}.mat"
    path.write_bytes(path.read_bytes()[:300])


def make_unknown(voc, sbd):
    write_sbd_classes(sbd, OF_SBD, np.full((15, 11), 33, np.uint8))


def resize(voc, sbd):
    write_sbd_classes(sbd, OF_SBD, np.zeros((4, 5), np.uint8))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (break_annotation, f"{OF_SBD}.mat"),
        (
            lambda voc, sbd: (sbd / "cls" / f"{OF_SBD}.mat").unlink(),
            f"{OF_SBD}.mat, or a link that leads nowhere; expected an annotation of SBD",
        ),
        (make_unknown, "unknown class 33 in"),
        (resize, f"annotations of {OF_SBD} in"),
        (lambda voc, sbd: (sbd / "val.txt").unlink(), "val.txt; there are: train"),
        (lambda voc, sbd: (voc / "JPEGImages" / f"{OF_SBD}.jpg").unlink(), "1 images of trainaug are not in"),
        (lambda voc, sbd: shutil.rmtree(voc / "JPEGImages"), "no folder"),
    ],
)
def test_bad_files_are_an_error_and_nothing_is_left_half_done(voc, sbd, capsys, harm, message):
    harm(voc, sbd)
    before = sorted(voc.rglob("*"))
    assert prepare(voc, sbd) == 1
    assert message in capsys.readouterr().err
    assert sorted(voc.rglob("*")) == before
