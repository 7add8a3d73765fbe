"""Tables of qualities, as printed text."""

import io
import math

import pytest
import torch
from drawn import draw
from rich.console import Console

from panoptic.analysis.tables import category_table, instance_table, percent, quality_table
from panoptic.metrics import PanopticQuality, ParsingCovering, SemanticIoU
from panoptic.metrics.rows import join_category_rows
from panoptic.structures import Category

CATEGORIES = [Category(id=0, name="road [wet]", is_thing=False), Category(id=1, name="car", is_thing=True)]


def printed(table):
    """The words of each line of the table."""
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(table)
    return [[word for word in line.split() if word not in "│┃"] for line in console.export_text().splitlines()]


def rows_of(prediction, target):
    metrics = PanopticQuality(CATEGORIES), ParsingCovering(CATEGORIES), SemanticIoU(CATEGORIES)
    for metric in metrics:
        metric.update(prediction, target)
    return [metric.per_category() for metric in metrics]


@pytest.mark.parametrize(("fraction", "text"), [(0.12345, "12.35"), (1.0, "100.00"), (None, "-"), (math.nan, "-")])
def test_percent(fraction, text):
    assert percent(fraction) == text


def test_the_quality_table_has_all_things_and_stuff():
    values = {"pq": 0.5, "pq_things": torch.tensor(0.25), "pq_stuff": math.nan, "pc": 0.75, "miou": 1.0}
    lines = printed(quality_table(values, title="run 7"))
    assert lines[0] == ["run", "7"]
    assert ["all", "50.00", "-", "-", "75.00", "100.00"] in lines
    assert ["things", "25.00", "-", "-", "-", "-"] in lines
    assert ["stuff", "-", "-", "-", "-", "-"] in lines


def test_values_without_any_quality_are_an_error():
    with pytest.raises(ValueError, match=r"expected at least one of .*'pq'.*, got \['loss'\]"):
        quality_table({"loss": 1.0}, title="")


def test_the_category_table_shows_what_the_rows_have():
    target = draw("aab", "aab", categories={"a": 0, "b": 1})
    rows = join_category_rows(*rows_of(draw("aaa", "aab", categories={"a": 0, "b": 1}), target))
    lines = printed(category_table(rows, title="per category"))
    # road: 4 of 5 pixels; car: 1 of 2, no match
    assert ["road", "[wet]", "stuff", "80.00", "80.00", "100.00", "80.00", "80.00", "1", "0", "0"] in lines
    assert ["car", "thing", "0.00", "0.00", "0.00", "50.00", "50.00", "0", "1", "1"] in lines


def test_the_category_table_of_one_metric():
    target = draw("aab", categories={"a": 0, "b": 1})
    lines = printed(category_table(rows_of(target, target)[0], title=""))
    assert ["car", "thing", "100.00", "100.00", "100.00", "1", "0", "0"] in lines


def test_rows_of_different_categories_are_an_error():
    quality, covering, semantic = rows_of(draw("a"), draw("a"))
    with pytest.raises(ValueError, match="rows of the same categories"):
        join_category_rows(quality, covering[::-1], semantic)


def test_mask_ap_has_columns_where_there_is_one():
    values = {"pq": 0.5, "mask_ap": 0.25, "mask_ap50": math.nan, "semantic_map_miou": 0.75}
    lines = printed(quality_table(values, title=""))
    heading = next(line for line in lines if "PQ" in line)
    assert heading[-7:] == ["mIoU", "AP", "AP50", "mIoU", "of", "semantic", "map"]
    assert ["all", "50.00", "-", "-", "-", "-", "25.00", "-", "75.00"] in lines
    assert ["things", *["-"] * 8] in lines


def test_the_instance_table_has_mask_ap_and_the_category_table_has_not():
    target = draw("aab", categories={"a": 0, "b": 1})
    rows = [
        {**row, "mask_ap": 0.25, "mask_ap50": math.nan, "semantic_map_iou": 0.5} for row in rows_of(target, target)[0]
    ]
    assert ["car", "thing", "25.00", "-", "50.00"] in printed(instance_table(rows, title=""))
    assert ["car", "thing", "100.00", "100.00", "100.00", "1", "0", "0"] in printed(category_table(rows, title=""))
