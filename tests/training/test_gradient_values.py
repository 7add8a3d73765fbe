"""What telemetry makes of one step's gradients, on graphs small enough for the answer to be written down."""

import math

import pytest
import torch

from panoptic.training.gradient_telemetry import GradientsFile, TaskGradients, features_at, sum_gradients
from panoptic.training.module import StepRecord


def record_of(losses, levels, weights=None):
    return StepRecord(losses, weights or {name: torch.ones(()) for name in losses}, [], levels)


def test_values_of_two_tasks_on_one_tensor():
    # gradients (3, 4) and (0, -2): norms 5 and 2, cosine -8 / 10, mean absolute values 3.5 and 1
    z = torch.tensor([1.0, 1.0], requires_grad=True)
    losses = {"a_one": 3 * z[0] + 4 * z[1], "b_one": -2 * z[1]}
    weights = {"a_one": torch.tensor(0.5), "b_one": torch.tensor(4.0)}
    found = TaskGradients.of(sum_gradients(record_of(losses, {}, weights), [["a_one"], ["b_one"]], [z]))
    assert found.losses.tolist() == [7.0, -2.0]
    assert found.weights.tolist() == [0.5, 4.0]
    assert found.norms.tolist() == [5.0, 2.0]
    assert found.mean_absolute.tolist() == [3.5, 1.0]
    assert found.cosines.flatten().tolist() == pytest.approx([1.0, -0.8, -0.8, 1.0])


def test_the_weight_of_several_losses_is_the_factor_of_their_sum():
    z = torch.ones(2, requires_grad=True)
    losses = {"a_one": 3 * z[0], "a_two": z[1]}
    weights = {"a_one": torch.tensor(1.0), "a_two": torch.tensor(5.0)}
    found = TaskGradients.of(sum_gradients(record_of(losses, {}, weights), [["a_one", "a_two"]], [z]))
    assert found.weights.tolist() == [2.0]  # (1 * 3 + 5 * 1) / (3 + 1)


def test_of_a_zero_loss_the_weight_is_the_mean_and_there_is_no_gradient():
    z = torch.ones(2, requires_grad=True)
    losses = {"a_one": 0 * z.sum(), "b_one": z.sum()}
    weights = {"a_one": torch.tensor(3.0), "b_one": torch.tensor(1.0)}
    found = TaskGradients.of(sum_gradients(record_of(losses, {}, weights), [["a_one"], ["b_one"]], [z]))
    assert found.weights.tolist() == [3.0, 1.0]
    assert math.isnan(found.norms[0])
    assert math.isnan(found.mean_absolute[0])
    assert found.cosines.isnan().tolist() == [[True, True], [True, False]]


def test_a_task_without_loss_in_a_batch_has_no_gradient():
    z = torch.ones(2, requires_grad=True)
    found = TaskGradients.of(sum_gradients(record_of({"b_one": z.sum()}, {}), [["a_one"], ["b_one"]], [z]))
    assert found.losses.tolist() == [0.0, 2.0]
    assert found.norms.isnan().tolist() == [True, False]


def test_paths_that_do_not_share_a_level_have_one_each():
    # the first task reaches 2 elements with gradient 3, the second one 4 with gradient 1; they never meet
    first, second = torch.ones(2, requires_grad=True), torch.ones(4, requires_grad=True)
    levels = {"a": {"c5": first}, "b": {"c5": second}, "c": {"c5": second}}
    record = record_of({"a_one": 3 * first.sum(), "b_one": second.sum()}, levels)
    features = features_at(record, "c5")
    assert [id(tensor) for tensor in features] == [id(first), id(second)]
    found = TaskGradients.of(sum_gradients(record, [["a_one"], ["b_one"]], features))
    assert found.mean_absolute.tolist() == [3.0, 1.0]
    assert found.norms.tolist() == pytest.approx([3 * math.sqrt(2), 2.0])
    assert found.cosines.isnan().tolist() == [[False, True], [True, False]]


def test_gradients_too_small_for_half_precision_are_measured():
    z = torch.ones(3, dtype=torch.float16, requires_grad=True)
    record = record_of({"a_one": 1e-8 * z.float().sum()}, {})  # the least half is 6e-8
    found = TaskGradients.of(sum_gradients(record, [["a_one"]], [z]))
    assert found.mean_absolute.item() == pytest.approx(1e-8, rel=1e-3)


def test_a_level_after_nothing_that_learns_is_refused():
    record = record_of({"a_one": torch.ones((), requires_grad=True)}, {"a": {"c2": torch.ones(2)}})
    with pytest.raises(ValueError, match="level=c2 has no gradient: everything before it is frozen"):
        features_at(record, "c2")


def gradients_of(value):
    """Two tasks whose every number is the same."""
    return TaskGradients(*(torch.full((2,), value) for _ in range(4)), torch.full((2, 2), value))


def test_rows_after_the_resumed_step_and_half_a_line_go(tmp_path):
    path = tmp_path / "gradients.csv"
    file = GradientsFile(path, ["a", "b"])
    file.keep_before(0)
    for step in (0, 5, 10):
        file.append(step, gradients_of(step + 0.5))
    path.write_text(path.read_text() + "15,a,0.2")
    again = GradientsFile(path, ["a", "b"])
    again.keep_before(10)
    again.append(10, gradients_of(7.0))
    assert path.read_text().splitlines() == [
        "step,task,loss,weight,gradient_norm,gradient_mean_abs,cosine_a,cosine_b",
        "0,a,0.5,0.5,0.5,0.5,,0.5",
        "0,b,0.5,0.5,0.5,0.5,0.5,",
        "5,a,5.5,5.5,5.5,5.5,,5.5",
        "5,b,5.5,5.5,5.5,5.5,5.5,",
        "10,a,7,7,7,7,,7",
        "10,b,7,7,7,7,7,",
    ]


def test_a_file_of_other_tasks_is_refused_unless_none_of_its_rows_stay(tmp_path):
    path = tmp_path / "gradients.csv"
    file = GradientsFile(path, ["a", "b"])
    file.keep_before(0)
    file.append(0, gradients_of(1.0))
    with pytest.raises(ValueError, match=r"has columns .*cosine_b.*, expected .*its tasks are others; move it away"):
        GradientsFile(path, ["a", "c"]).keep_before(3)
    GradientsFile(path, ["a", "c"]).keep_before(0)
    assert path.read_text().splitlines()[0].endswith("cosine_a,cosine_c")
