"""What Mask R-CNN finds, and when it looks."""

import pytest
import torch
from mask_rcnn_inputs import SIZES, TARGETS, make_features, make_head

from panoptic.models.heads.mask_rcnn import MaskRCNNOutput
from panoptic.structures import Detections


def test_training_computes_no_detections(monkeypatch):
    head, features = make_head(), make_features()

    def fail(*_):
        raise AssertionError("detections were computed")

    monkeypatch.setattr(head, "_detect", fail)
    output = head(features, {})
    head.losses(output, features, TARGETS)
    with pytest.raises(AssertionError, match="detections were computed"):
        _ = output.detections


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_detections_keep_their_promises(scale):
    """Boxes far outside of the image too: with the larger scale, most are."""
    head = make_head(score_threshold=0.2, max_detections=9).eval()
    with torch.no_grad():
        head.roi_heads.box_predictor.bbox_pred.weight.mul_(scale)
        head.rpn.head.bbox_pred.weight.mul_(scale)
    output = head(make_features(), {})
    for index, (height, width) in enumerate(SIZES):
        found = output.image(index, (height, width))
        assert isinstance(found, Detections)
        assert found.image_size == (height, width)
        assert 0 < len(found) <= 9
        assert found.masks.shape == (len(found), 28, 28)
        assert 0 <= found.masks.min() <= found.masks.max() <= 1
        assert not found.masks.requires_grad
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
        assert found.scores.min() > 0.2
        assert set(found.category_ids.tolist()) <= {1, 3}
        assert found.boxes.min() >= 0
        assert (found.boxes[:, 2] <= width).all()
        assert (found.boxes[:, 3] <= height).all()
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()


def test_class_channels_are_the_things_in_order():
    head = make_head().eval()
    with torch.no_grad():
        head.roi_heads.box_predictor.cls_score.bias.copy_(torch.tensor([-30.0, -30.0, 30.0]))
    assert all((found.category_ids == 3).all() for found in head(make_features(), {}).detections)


def test_nothing_above_the_threshold_is_no_detection():
    found = make_head(score_threshold=1.0).eval()(make_features(), {}).image(2, SIZES[2])
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.masks.shape == (0, 28, 28)


@pytest.mark.parametrize("part", ["rpn.head.cls_logits", "roi_heads.box_predictor.cls_score"])
def test_a_network_that_has_diverged_is_an_error(part):
    head = make_head().eval()
    with torch.no_grad():
        head.get_submodule(part).bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="expected finite outputs of every head, got nan or infinity"):
        _ = head(make_features(), {}).detections


def test_perfect_detections_are_the_instances():
    head, features = make_head(), make_features()
    perfect = head.as_outputs(TARGETS, features)
    for index, (target, size) in enumerate(zip(TARGETS, SIZES, strict=True)):
        found = perfect.image(index, size)
        assert found is perfect.detections[index]
        assert found.image_size == size
        assert torch.equal(found.boxes, target.boxes)
        assert torch.equal(found.category_ids, target.category_ids)
        assert (found.scores == 1).all()
        for mask, full, (x1, y1, x2, y2) in zip(found.masks, target.full_masks(size), target.boxes.long(), strict=True):
            assert torch.equal(mask, full[y1:y2, x1:x2].float())


def test_an_output_says_nothing_of_how_it_detects():
    output = MaskRCNNOutput([torch.zeros(1, 3, 2, 2)], [torch.zeros(1, 12, 2, 2)], lambda _: [])
    assert "detect" not in repr(output)
