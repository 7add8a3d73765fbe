"""`panoptic plot`: what it reads, what it draws, and what it says when it cannot."""

import math

import cv2
import numpy as np
import pytest

from panoptic.__main__ import main
from panoptic.analysis.gradient_figures import (
    cosine_figure,
    gradient_figure,
    read_gradients,
    running_mean,
    weight_figure,
)

pytestmark = pytest.mark.slow

HEADER = "step,task,loss,weight,gradient_norm,gradient_mean_abs,cosine_instances,cosine_ranking,cosine_semantic\n"
PICTURES = ["cosines.png", "gradients.png", "weights.png"]


def rows_of(step):
    """Instances fall from 1e-3, semantic is fifty times as large, ranking reaches no features."""
    size = 1e-3 / (1 + step)
    cosine = 0.5 - step / 10
    return [
        f"{step},instances,2,1,{10 * size},{size},,,{cosine}",
        f"{step},ranking,1,1,,,,,",
        f"{step},semantic,3,0.25,{500 * size},{50 * size},{cosine},,",
    ]


@pytest.fixture
def run(tmp_path):
    """A run of 8 measured steps."""
    text = HEADER + "".join(f"{row}\n" for step in range(8) for row in rows_of(step))
    (tmp_path / "gradients.csv").write_text(text)
    return tmp_path


def curves_of(figure):
    """{name in the legend: (steps, values)} of the thick curves, and [(steps, values)] of the thin ones."""
    lines = figure.axes[0].get_lines()
    named = {line.get_label(): line.get_data() for line in lines if not line.get_label().startswith("_")}
    thin = [line.get_data() for line in lines if line.get_label().startswith("_") and len(line.get_xdata()) > 2]
    return named, thin


def test_a_log_has_the_columns_by_task(run):
    log = read_gradients(run / "gradients.csv")
    assert log.tasks == ["instances", "ranking", "semantic"]
    assert log.steps.tolist() == list(range(8))
    assert log.mean_absolute["instances"].tolist() == pytest.approx([1e-3 / (1 + step) for step in range(8)])
    assert np.isnan(log.mean_absolute["ranking"]).all()
    assert log.weights["semantic"].tolist() == [0.25] * 8
    assert list(log.cosines) == [("instances", "ranking"), ("instances", "semantic"), ("ranking", "semantic")]
    assert log.cosines["instances", "semantic"].tolist() == pytest.approx([0.5 - step / 10 for step in range(8)])


def test_a_line_that_is_being_written_is_left_out(run):
    path = run / "gradients.csv"
    path.write_text(path.read_text() + "8,instances,2,1,0.")
    assert read_gradients(path).steps.tolist() == list(range(8))


def test_the_mean_runs_over_a_centred_window_and_leaves_nan_out():
    values = np.array([1.0, 2.0, math.nan, 6.0, 8.0])
    # windows of 3: (1, 2), (1, 2), (2, 6), (6, 8), (6, 8)
    assert running_mean(values, 3).tolist() == [1.5, 1.5, 4.0, 7.0, 7.0]
    # windows of 2, the value before and its own: (1), (1, 2), (2), (6), (6, 8)
    assert running_mean(values, 2).tolist() == [1.0, 1.5, 2.0, 6.0, 7.0]
    assert running_mean(values, 1)[:2].tolist() == [1.0, 2.0]
    assert np.isnan(running_mean(values, 1)[2])


def test_figure_5_has_the_measured_values_and_their_running_mean(run):
    log = read_gradients(run / "gradients.csv")
    figure = gradient_figure(log, features="c5", window=3)
    named, thin = curves_of(figure)
    assert list(named) == ["instances", "ranking: none", "semantic"]
    assert [values.tolist() for _, values in thin] == [
        log.mean_absolute[task].tolist() for task in ("instances", "semantic")
    ]
    steps, values = named["semantic"]
    assert steps.tolist() == log.steps.tolist()
    assert values.tolist() == running_mean(log.mean_absolute["semantic"], 3).tolist()
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    assert axes.get_title() == "Gradients of unweighted losses at c5"
    assert axes.get_ylabel() == "mean absolute gradient (loss per unit of feature)"
    assert axes.get_xlabel() == "optimizer step (thin: measured; thick: running mean of 3)"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(named)


@pytest.mark.parametrize(("largest", "scale"), [(9.9, "linear"), (10.0, "linear"), (10.1, "log")])
def test_the_scale_is_logarithmic_beyond_a_decade(tmp_path, largest, scale):
    rows = [f"{step},instances,1,1,1,{value},,," for step, value in enumerate((1.0, largest))]
    (tmp_path / "gradients.csv").write_text(HEADER + "\n".join(rows) + "\n")
    axes = gradient_figure(read_gradients(tmp_path / "gradients.csv"), features="c5").axes[0]
    assert axes.get_yscale() == scale
    if scale == "linear":
        assert axes.get_ylim()[0] == 0


def test_cosines_of_pairs_are_drawn_around_zero(run):
    figure = cosine_figure(read_gradients(run / "gradients.csv"), features="c5", window=1)
    named, _ = curves_of(figure)
    assert list(named) == ["instances, ranking: none", "instances, semantic", "ranking, semantic: none"]
    assert named["instances, semantic"][1].tolist() == pytest.approx([0.5 - step / 10 for step in range(8)])
    low, high = figure.axes[0].get_ylim()
    assert (low, high) == pytest.approx((-0.55, 0.55))  # a tenth more than the largest


def test_one_task_has_no_cosines(run):
    figure = cosine_figure(read_gradients(run / "gradients.csv", ["semantic"]), features="c5")
    assert [text.get_text() for text in figure.axes[0].texts] == ["one task alone"]


def test_equal_weights_stay_visible(run):
    figure = weight_figure(read_gradients(run / "gradients.csv"))
    lines = figure.axes[0].get_lines()
    assert [line.get_ydata().tolist() for line in lines] == [[1.0] * 8, [1.0] * 8, [0.25] * 8]
    widths = [line.get_linewidth() for line in lines]
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == 3


def test_the_command_draws_three_pictures_of_the_chosen_tasks(run, capsys):
    (run / "config.yaml").write_text("callbacks: {gradient_telemetry: {level: c5}}\n")
    assert main(["plot", f"run={run}", "tasks=[semantic,instances]"]) == 0
    assert "8 steps of semantic, instances: gradients, cosines, weights" in capsys.readouterr().out
    assert sorted(path.name for path in (run / "plots").iterdir()) == PICTURES
    picture = cv2.imread(str(run / "plots" / "gradients.png")).reshape(-1, 3)[:, ::-1]
    colours = {tuple(colour) for colour in picture}
    assert {(31, 119, 180), (255, 127, 14)} <= colours  # the first two of the palette
    assert (44, 160, 44) not in colours  # the third


def test_pictures_are_drawn_anew_into_any_folder(run, tmp_path):
    out = tmp_path / "a" / "b"
    for _ in range(2):
        assert main(["plot", f"run={run}", f"out={out}", "tasks=semantic"]) == 0
    assert sorted(path.name for path in out.iterdir()) == PICTURES
    assert not (run / "plots").exists()


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (None, ["run=/nowhere"], "run=/nowhere: no such folder"),
        (None, [], "has no gradients.csv; train with callbacks=gradient_telemetry"),
        ("", [], "has no row yet; wait for the first measured step"),
        (HEADER, [], "has no row yet; wait for the first measured step"),
        (HEADER + "0,a,1", [], "has no row yet"),
        ("step,loss\n0,1\n", [], "expected columns"),
        (None, ["window=0"], "expected window=null or a whole number of at least 1, got 0"),
        (None, ["window=much"], "expected window=null or a whole number of at least 1, got 'much'"),
        ("rows", ["tasks=[semantik]"], "expected tasks among ['instances', 'ranking', 'semantic'], got ['semantik']"),
        ("rows", ["tasks=[]"], "expected tasks among ['instances', 'ranking', 'semantic'], got []"),
        (None, ["levels=c5"], "'levels' is not a key"),
    ],
)
def test_what_cannot_be_drawn_says_why(tmp_path, capsys, content, arguments, message):
    if content is not None:
        text = HEADER + "\n".join(rows_of(0)) + "\n" if content == "rows" else content
        (tmp_path / "gradients.csv").write_text(text)
    given = arguments if "run=/nowhere" in arguments else [f"run={tmp_path}", *arguments]
    assert main(["plot", *given]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "plots").exists()
