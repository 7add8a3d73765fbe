"""The table of a sweep: numbers from closed forms, layouts, formats."""

import math
from itertools import product

import pytest
import scipy.stats
import yaml

from panoptic.configuration import config_folder
from panoptic.sweeps.layout import plain_layout, read_layout
from panoptic.sweeps.ledger import Ledger, Trial
from panoptic.sweeps.rendering import as_latex, as_markdown, as_text, difference_grid, quality_grid
from panoptic.sweeps.statistics import estimate, paired_differences, select
from panoptic.table import main

SWEEPS = config_folder().parent / "sweeps"
CONFIG = {
    "method": "grid",
    "metric": {"name": "val_pq", "goal": "maximize"},
    "parameters": {"keypoints": {"values": ["star", "rectangle"]}, "seed": {"values": [0, 1, 2]}},
}
# star: 10 11 15, rectangle: 9 11 13; differences rectangle - star: -1 0 -2
PQ = {
    ("star", 0): 10,
    ("star", 1): 11,
    ("star", 2): 15,
    ("rectangle", 0): 9,
    ("rectangle", 1): 11,
    ("rectangle", 2): 13,
}


def trials_of(values, **changes):
    return [
        Trial(
            **(
                {
                    "id": number,
                    "state": "done",
                    "parameters": {"keypoints": graph, "seed": seed},
                    "attempt": 1,
                    "metrics": {"val_pq": float(value), "val_pc": 2.0 * value},
                }
                | changes
            )
        )
        for number, ((graph, seed), value) in enumerate(values.items(), start=1)
    ]


def write_layout(folder, **changes):
    content = {
        "title": "Table 6",
        "columns": {"val_pq": "PQ"},
        "baseline": "Star",
        "rows": [
            {"name": "Star", "parameters": {"keypoints": "star"}, "paper": {"val_pq": 24.07}},
            {"name": "Rectangle", "parameters": {"keypoints": "rectangle"}, "paper": {"val_pq": 23.54}},
        ],
    }
    path = folder / "layout.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path


def test_mean_and_spread_are_those_of_the_sample():
    found = estimate([10.0, 11.0, 15.0])
    assert found.mean == 12.0
    assert found.spread == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert estimate([3.0]).spread is None
    assert estimate([]) is None


def test_the_interval_is_that_of_the_t_test():
    differences = [-1.0, 0.0, -2.0]
    expected = scipy.stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    assert estimate(differences).interval() == pytest.approx((expected.low, expected.high))
    assert estimate([1.0]).interval() is None


def test_differences_are_taken_between_trials_of_the_same_seed():
    trials = trials_of(dict(reversed(PQ.items())))
    star, rectangle = (select(trials, {"keypoints": graph}) for graph in ("star", "rectangle"))
    assert sorted(paired_differences(rectangle, star, "val_pq", ["seed"])) == [-2.0, -1.0, 0.0]
    without = [trial for trial in star if trial.parameters["seed"] != 2]
    assert sorted(paired_differences(rectangle, without, "val_pq", ["seed"])) == [-1.0, 0.0]


def test_two_trials_of_the_same_seed_are_no_pair():
    trials = trials_of(PQ)
    star = select(trials, {"keypoints": "star"})
    assert paired_differences(star, [*star, star[0]], "val_pq", ["seed"]) == [0.0, 0.0]


def test_the_table_has_the_paper_beside_ours(tmp_path):
    trials = trials_of(PQ)
    layout = read_layout(write_layout(tmp_path), CONFIG, trials)
    grid = quality_grid(layout, trials)
    assert grid.headings == ["", "n", "PQ", "PQ paper"]
    assert grid.rows == [["Star", "3", "12.00 ± 2.65", "24.07"], ["Rectangle", "3", "11.00 ± 2.00", "23.54"]]
    differences = difference_grid(layout, trials)
    # -1 ± t(0.975, 2) * 1 / sqrt(3) = -1 ± 4.3027 * 0.57735
    assert differences.rows == [["Rectangle", "3", "-1.00 [-3.48, +1.48]", "-0.53"]]


def test_trials_that_are_not_done_are_left_out_and_counted(tmp_path):
    trials = trials_of(PQ)
    trials[0] = trials_of({("star", 0): 99}, state="stopped")[0]
    trials += trials_of({("rectangle", 3): 99}, state="failed")
    grid = quality_grid(read_layout(write_layout(tmp_path), CONFIG, trials), trials)
    assert grid.rows[0][1:3] == ["2", "13.00 ± 2.83"]
    assert "left out: 1 stopped, 1 failed" in grid.notes


def test_a_row_without_trials_is_a_dash(tmp_path):
    trials = trials_of({key: value for key, value in PQ.items() if key[0] == "star"})
    layout = read_layout(write_layout(tmp_path), CONFIG, trials)
    assert quality_grid(layout, trials).rows[1] == ["Rectangle", "0", "-", "23.54"]
    assert difference_grid(layout, trials).rows == [["Rectangle", "0", "-", "-0.53"]]


def test_a_row_with_a_trial_that_diverged_is_a_dash(tmp_path):
    trials = trials_of(PQ | {("rectangle", 1): math.nan})
    layout = read_layout(write_layout(tmp_path), CONFIG, trials)
    assert quality_grid(layout, trials).rows[1] == ["Rectangle", "3", "-", "23.54"]
    assert difference_grid(layout, trials).rows == [["Rectangle", "3", "-", "-0.53"]]


def test_without_a_layout_every_combination_is_a_row():
    layout = plain_layout("mine", CONFIG, trials_of(PQ))
    assert [row.name for row in layout.rows] == ["keypoints=rectangle", "keypoints=star"]
    assert quality_grid(layout, trials_of(PQ)).headings == ["", "n", "val_pq"]
    assert difference_grid(layout, trials_of(PQ)) is None


def test_numbers_order_rows_by_value():
    config = CONFIG | {"parameters": {"x": {"values": [10, 9, 0.5]}}}
    trials = [Trial(number, "done", {"x": x}, 1, metrics={"val_pq": 1.0}) for number, x in enumerate([10, 9, 0.5])]
    assert [row.name for row in plain_layout("mine", config, trials).rows] == ["x=0.5", "x=9", "x=10"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colums": {}}, "unknown key 'colums', did you mean 'columns'"),
        ({"seeds": ["sed"]}, "unknown parameter 'sed', did you mean 'seed'"),
        ({"baseline": "Sta"}, "unknown baseline 'Sta', did you mean 'Star'"),
        ({"rows": [{"name": "Star"}]}, "expected a row with name and parameters, got"),
        (
            {"rows": [{"name": "a", "parameters": {}, "papre": {}}]},
            "unknown key of a row 'papre', did you mean 'paper'",
        ),
        (
            {"rows": [{"name": "a", "parameters": {"keypoint": 1}}]},
            "unknown parameter of row 'a' 'keypoint', did you mean",
        ),
        ({"rows": [{"name": "a", "parameters": {"keypoints": "sta"}}]}, "row 'a' has keypoints=sta, but the sweep has"),
        (
            {"rows": [{"name": "a", "parameters": {}, "paper": {"val_qp": 1}}], "baseline": "a"},
            "unknown paper's number of row 'a' 'val_qp', did you mean 'val_pq'",
        ),
        ({"columns": {"val_qp": "PQ"}}, "unknown column 'val_qp', did you mean 'val_pq'"),
    ],
)
def test_what_is_wrong_with_a_layout_is_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as raised:
        read_layout(write_layout(tmp_path, **changes), CONFIG, trials_of(PQ))
    assert "layout.yaml" in str(raised.value)


@pytest.mark.parametrize(("text", "message"), [("- a", "expected a mapping with title"), ("a: [", "is not valid yaml")])
def test_a_layout_that_is_no_mapping_is_refused(tmp_path, text, message):
    (tmp_path / "layout.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_layout(tmp_path / "layout.yaml", CONFIG, [])


@pytest.mark.parametrize("path", sorted((SWEEPS / "tables").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_layout_of_the_repository_fits_its_sweep(path):
    config = yaml.safe_load((SWEEPS / path.name).read_text())
    values = {name: node["values"] for name, node in config["parameters"].items()}
    names = yaml.safe_load(path.read_text())["columns"]
    grid = [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]
    metrics = dict.fromkeys(names, 1.0)
    trials = [Trial(number, "done", parameters, 1, metrics=metrics) for number, parameters in enumerate(grid, start=1)]
    layout = read_layout(path, config, trials)
    assert all(select(trials, row.parameters) for row in layout.rows)
    assert difference_grid(layout, trials) is not None


def test_formats(tmp_path):
    trials = trials_of(PQ)
    grid = quality_grid(read_layout(write_layout(tmp_path, note="50 % of a_b"), CONFIG, trials), trials)
    assert as_text(grid).splitlines()[:4] == [
        "Table 6",
        "           n            PQ  PQ paper",
        "------------------------------------",
        "Star       3  12.00 ± 2.65     24.07",
    ]
    assert "| Star | 3 | 12.00 ± 2.65 | 24.07 |" in as_markdown(grid).splitlines()
    assert r"Star & 3 & 12.00 $\pm$ 2.65 & 24.07 \\" in as_latex(grid).splitlines()
    assert r"\begin{tabular}{lrrr}" in as_latex(grid)


def fill(folder, path):
    ledger = Ledger(folder)
    ledger.adopt(CONFIG, path)
    for (graph, seed), value in PQ.items():
        trial = ledger.claim(lambda _, graph=graph, seed=seed: {"keypoints": graph, "seed": seed}, None)
        ledger.record(trial, state="done", metrics={"val_pq": value, "val_pc": 2.0 * value}, history=[value])
    ledger.close()


def test_the_command_finds_the_layout_beside_the_sweep_file(tmp_path, capsys):
    fill(tmp_path / "out", SWEEPS / "deeperlab_table6_keypoint_graph.yaml")
    assert main([str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "DeeperLab, Table 6" in out
    assert "46.44" in out
    assert "-1.00 [-3.48, +1.48]" in out


def test_the_command_takes_a_sweep_file_and_a_layout(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("")
    fill(tmp_path / "runs" / "mine", tmp_path / "mine.yaml")
    assert main(["mine.yaml", "--layout", str(write_layout(tmp_path)), "--format", "markdown"]) == 0
    assert "| Star | 3 | 12.00 ± 2.65 | 24.07 |" in capsys.readouterr().out
    assert main(["mine"]) == 0
    assert "keypoints=star" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.yaml"], "no such sweep file: none.yaml"),
        (["none"], "runs/none is not the folder of a sweep"),
        (["here", "--layout", "none.yaml"], "no such layout: none.yaml"),
    ],
)
def test_what_the_command_cannot_find_is_named(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "here", tmp_path / "mine.yaml")
    with pytest.raises(FileNotFoundError, match=message):
        main(arguments)
