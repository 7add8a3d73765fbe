"""The sweeps of OANet's and the Fusion Scheme's tables: each row is a trial per seed, and differs as the table says."""

import pytest
from table_rows import check_differences, check_same, check_trials, networks_of, paper_numbers, rows_of

from panoptic.configuration import config_folder

pytestmark = pytest.mark.slow

SWEEPS = config_folder().parent / "sweeps"
FILES = sorted([*SWEEPS.glob("oanet_table*.yaml"), *SWEEPS.glob("fusion_scheme_table*.yaml")])
TABLES = {"_".join(path.stem.split("_")[:-1]): path for path in FILES}
LAMBDA = {"loss_weights.semantic_cross_entropy"}
FUSION = {"fusion._target_"}


def test_each_table_that_can_be_trained_has_its_sweep():
    names = [path.stem for path in FILES]
    tables = [f"oanet_table{number}_" for number in range(1, 6)]
    tables += ["fusion_scheme_table1_", "fusion_scheme_table2_"]
    assert [sum(name.startswith(table) for name in names) for table in tables] == [1] * 7


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_trial_belongs_to_one_row_and_each_row_has_three(path):
    check_trials(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_row_builds_with_the_same_schedule_and_data(path):
    check_same(path, "optimizer", "scheduler", "trainer", "balancing", "data")
    for _, config, _ in networks_of(path):
        data = config["data"]
        assert (data["batch_size"], data["train"]["length"], data["val"]["length"]) == (4, 1800, 100)


RANKING_LAYERS = {"heads.ranking.layers._target_", "heads.ranking.layers.kernel_size"}
DIFFERENCES = {
    "oanet_table1": [("0.2", "0.25", LAMBDA), ("0.25", "1.0", LAMBDA)],
    "oanet_table2_object": [("stuff", "stuff and objects", {"heads.semantic.object_context"})],
    "oanet_table3": [
        ("baseline", "w/spatial ranking module", FUSION),
        ("baseline, larger backbone", "w/spatial ranking module, larger backbone", FUSION),
        ("baseline", "baseline, larger backbone", {"backbone.name"}),
        (
            "baseline",
            "w/pano-instance GT",
            {
                "heads.instances.instances_from",
                "heads.ranking.instances_from",
                "sharing._target_",
                "sharing.separate",
            },
        ),
    ],
    "oanet_table4": [
        ("no", "res1-res5", {"sharing._target_"}),
        ("res1-res5", "+ skip-connection", {"sharing._target_", "sharing.separate"}),
    ],
    "oanet_table5": [
        ("1x1", "3x3", {"heads.ranking.layers.kernel_size"}),
        ("3x3", "1x7 + 7x1", RANKING_LAYERS),
    ],
    "fusion_scheme_table1": [
        (
            "Unified baseline",
            "+ ASP and RP",
            {"heads.semantic.branch._target_", "heads.semantic.branch.rates"},
        ),
        ("+ ASP and RP", "+ fusion", FUSION | {"fusion.min_area", "fusion.score_threshold"}),
    ],
    "fusion_scheme_table2": [("before", "after", FUSION | {"fusion.min_area", "fusion.score_threshold"})],
}


@pytest.mark.parametrize("table", sorted(DIFFERENCES))
def test_rows_differ_as_the_table_says_and_in_nothing_else(table):
    check_differences(TABLES[table], DIFFERENCES[table])


def test_single_tasks_leave_the_other_head_out():
    _, configs, _ = rows_of(TABLES["fusion_scheme_table1"])
    heads = {name: sorted(config["heads"]) for name, config in configs.items()}
    assert heads["Mask R-CNN alone"] == ["instances"]
    assert heads["semantic head alone"] == ["semantic"]
    assert heads["+ fusion"] == ["instances", "semantic"]
    alone, both = configs["Mask R-CNN alone"]["heads"], configs["+ fusion"]["heads"]
    assert alone["instances"] == both["instances"]
    assert configs["semantic head alone"]["heads"]["semantic"] == both["semantic"]


def paper(table):
    return paper_numbers(TABLES[table])


def test_rows_that_tables_share_have_the_same_numbers():
    shared = [
        paper("oanet_table1")["0.25"],
        paper("oanet_table2_object")["stuff and objects"],
        paper("oanet_table4")["+ skip-connection"],
    ]
    assert shared[0] == shared[1] == shared[2]
    baseline = paper("oanet_table3")["baseline"]
    assert {name: baseline[name] for name in shared[0]} == shared[0]
    ranked = paper("oanet_table3")["w/spatial ranking module"]
    kernel = paper("oanet_table5")["1x7 + 7x1"]
    assert {name: ranked[name] for name in kernel} == kernel


def test_the_papers_numbers_differ_by_what_its_text_says():
    """OANet, Sec. 4.3: object context 0.5, sharing 0.7; Fusion Scheme, Sec. V: ASP and RP about 1.5, fusion 3."""
    context, sharing = paper("oanet_table2_object"), paper("oanet_table4")
    assert context["stuff and objects"]["val_pq"] - context["stuff"]["val_pq"] == pytest.approx(0.5)
    assert sharing["+ skip-connection"]["val_pq"] - sharing["no"]["val_pq"] == pytest.approx(0.7)
    parts = {name: row.get("val_semantic_map_miou") for name, row in paper("fusion_scheme_table1").items()}
    assert parts["+ ASP and RP"] - parts["Unified baseline"] == pytest.approx(1.5, abs=0.25)
    assert parts["+ fusion"] - parts["+ ASP and RP"] == pytest.approx(3, abs=0.25)
