"""`panoptic evaluate`: score a trained run on held-out images."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import OmegaConf
from rich.console import Console

from panoptic.analysis.tables import category_table, instance_table, quality_table
from panoptic.assembly import build_data, build_module, precision, try_out
from panoptic.checkpoints import find_checkpoint, read_checkpoint, without_weights
from panoptic.configuration import options_and_fusion, parse_overrides, with_fusion
from panoptic.data.datamodule import PanopticDataModule
from panoptic.data.panoptic_writer import PanopticWriter
from panoptic.inference.networks import SecondRun, load_network
from panoptic.inference.test_time import TestTime
from panoptic.library_messages import leave_out_untrue_messages
from panoptic.run_folder import whole_folder
from panoptic.structures import ImageStatistics
from panoptic.training.callbacks import Pictures, WritePredictions
from panoptic.training.module import PanopticModule


def main(argv: Sequence[str]) -> int:
    """Evaluate as configured; returns the exit status."""
    composed = parse_overrides("evaluate", "Score a trained run on held-out images; writes evaluation.json.", argv)
    if composed is None:
        return 0
    options, fusion = options_and_fusion(composed)
    if options["perfect"] and options["with_run"] is not None:
        raise ValueError("perfect= is of the heads of one run; leave with_run= out")
    path = find_checkpoint(options["run"], options["checkpoint"])
    content = read_checkpoint(path)
    config = _with_changes(with_fusion(content["panoptic"]["config"], fusion), options)
    data = build_data(config)
    data.train.image_statistics = ImageStatistics(**content["panoptic"]["statistics"])
    _check_same_categories(data, content, path)
    module = build_module(config, data, load_network(content, path, SecondRun.of(options)))
    try_out(module)
    with whole_folder(Path(str(options["out"] or f"{options['run']}/evaluation_{options['split']}"))) as folder:
        report = _evaluate(module, data, {**options, "fusion": fusion}, folder)
    console = Console()
    title = ", ".join(filter(None, [f"{path}: {options['split']}", str(TestTime.of(options))]))
    console.print(quality_table(module.quality_values, title=title))
    console.print(category_table(report["categories"], title="per category"))
    if "mask_ap" in module.quality_values:
        console.print(instance_table(report["categories"], title="instances and semantic map"))
    print(f"evaluation: {folder}")
    return 0


def _evaluate(
    module: PanopticModule, data: PanopticDataModule, options: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Score, and write the report into the folder."""
    writer = PanopticWriter(folder / "predictions.json", data.categories) if options["write_predictions"] else None
    with writer or nullcontext():
        _run(module, data, options, folder, writer)
    report = {"options": options, **report_of(module)}
    (folder / "evaluation.json").write_text(json.dumps(report, indent=2))
    return report


def report_of(module: PanopticModule) -> dict[str, Any]:
    """Every number of the tables as fractions, null where there is none."""
    return {
        "all": {name: _number(value) for name, value in module.quality_values.items()},
        "categories": [{name: _number(value) for name, value in row.items()} for row in module.category_rows()],
    }


def _run(module: PanopticModule, data: Any, options: dict[str, Any], folder: Path, writer: Any) -> None:
    leave_out_untrue_messages()
    callbacks: list[pl.Callback] = [Pictures(folder / "pictures", count=options["pictures"])]
    if writer is not None:
        callbacks.append(WritePredictions(writer.add))
    trainer = pl.Trainer(
        accelerator="auto",
        devices=1,
        precision=precision("auto"),
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.validate(module, datamodule=data, verbose=False)


def _with_changes(config: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The run's configuration, without sources of weights, with options of `evaluate` and changes of the data."""
    node = OmegaConf.to_container(OmegaConf.merge(config["data"], options["data"]))
    assert isinstance(node, dict)
    if options["split"] not in ("val", "test") or node.get(options["split"]) is None:
        raise ValueError(f"the run's data has no split {options['split']!r} to evaluate; choose val or give data.test")
    return {
        **without_weights(config),
        "data": {**node, "val": node[options["split"]], "train": node[options["split"]]},  # train may be elsewhere
        "evaluate": {key: options[key] for key in ("size", "perfect", "output_stride", "scales", "flip")},
    }


def _check_same_categories(data: PanopticDataModule, content: dict[str, Any], path: Path) -> None:
    trained = [entry["name"] for entry in content["panoptic"]["categories"]]
    here = [category.name for category in data.categories]
    if trained != here:
        raise ValueError(f"{path} was trained on categories {trained}, but the data has {here}")


def _number(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else value
