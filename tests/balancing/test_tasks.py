"""Which losses are one task."""

import re

import pytest

from panoptic.balancing.tasks import group_losses

HEADS = {"semantic": ["semantic_l1"], "instances": ["instances_box", "instances_mask"], "ranking": ["ranking_l1"]}


def test_every_head_is_a_task_in_the_order_of_names():
    assert list(group_losses("head", HEADS).items()) == [
        ("instances", ["instances_box", "instances_mask"]),
        ("ranking", ["ranking_l1"]),
        ("semantic", ["semantic_l1"]),
    ]


def test_a_head_without_losses_is_no_task():
    assert list(group_losses("head", {**HEADS, "silent": []})) == ["instances", "ranking", "semantic"]


def test_every_loss_is_a_task_in_the_order_of_names():
    names = ["instances_box", "instances_mask", "ranking_l1", "semantic_l1"]
    assert list(group_losses("loss", HEADS).items()) == [(name, [name]) for name in names]


def test_patterns_take_losses_of_several_heads_in_the_order_of_heads():
    groups = group_losses({"things": ["ranking_*", "instances_*"], "stuff": "semantic_l?"}, HEADS)
    assert list(groups.items()) == [
        ("stuff", ["semantic_l1"]),
        ("things", ["instances_box", "instances_mask", "ranking_l1"]),
    ]


def test_patterns_of_one_task_may_take_a_loss_twice():
    groups = group_losses({"all": ["*", "semantic_l1"]}, HEADS)
    assert groups == {"all": ["semantic_l1", "instances_box", "instances_mask", "ranking_l1"]}


def test_patterns_heed_the_case_of_letters():
    with pytest.raises(ValueError, match=re.escape("no loss for ['Semantic_*']")):
        group_losses({"all": ["*", "Semantic_*"]}, HEADS)


def test_the_order_of_heads_does_not_change_the_order_of_tasks():
    for tasks in ("head", "loss"):
        there, back = group_losses(tasks, HEADS), group_losses(tasks, dict(reversed(HEADS.items())))
        assert list(there.items()) == list(back.items())


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("heads", """expected balancing.tasks "head", "loss" or {task: [patterns]}, got 'heads'"""),
        (
            {"all": ["*", "depth_*"]},
            "balancing.tasks.all=['*', 'depth_*']: no loss for ['depth_*'] in ['semantic_l1', ",
        ),
        ({"all": "*", "none": []}, "balancing.tasks.none=[]: no loss for an empty list in ['semantic_l1', "),
        ({"stuff": "s*", "things": "i*"}, "no task of ['stuff', 'things'] takes ['ranking_l1']; add a pattern"),
        ({}, "no task of [] takes ['semantic_l1', 'instances_box', 'instances_mask', 'ranking_l1']; add a pattern"),
        ({"all": "*", "box": "*_box"}, "expected each loss in one task, got {'instances_box': ['all', 'box']}"),
    ],
)
def test_refuses(tasks, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        group_losses(tasks, HEADS)
