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

from panoptic.analysis.tables import category_table, quality_table
from panoptic.assembly import build_data, build_module, precision
from panoptic.checkpoints import find_checkpoint, read_checkpoint, without_weights
from panoptic.configuration import parse_overrides, resolved
from panoptic.data.panoptic_writer import PanopticWriter
from panoptic.library_messages import leave_out_untrue_messages
from panoptic.training.callbacks import Pictures, WritePredictions
from panoptic.training.module import PanopticModule


def main(argv: Sequence[str]) -> int:
    """Evaluate as configured; returns the exit status."""
    composed = parse_overrides("evaluate", "Score a trained run on held-out images; writes evaluation.json.", argv)
    if composed is None:
        return 0
    options = resolved(composed)
    path = find_checkpoint(options["run"], options["checkpoint"])
    content = read_checkpoint(path)
    config = _with_changes(content["panoptic"]["config"], options)
    data = build_data(config)
    module = build_module(config, data)
    _check_same_categories(module, content, path)
    module.load_state_dict(content["state_dict"])
    folder = _create_folder(Path(options["out"] or Path(options["run"]) / f"evaluation_{options['split']}"))
    target = folder / "predictions.json"
    writer = PanopticWriter(target, data.categories) if options["write_predictions"] else None
    with writer or nullcontext():
        _run(module, data, options, folder, writer)
    report = report_of(module)
    (folder / "evaluation.json").write_text(json.dumps(report, indent=2))
    console = Console()
    console.print(quality_table(module.quality_values, title=f"{path}: {options['split']}"))
    console.print(category_table(report["categories"], title="per category"))
    print(f"numbers: {folder / 'evaluation.json'}\npictures: {folder / 'pictures'}")
    return 0


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


def _create_folder(folder: Path) -> Path:
    folder = folder.expanduser()
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise FileExistsError(f"{folder} exists; an evaluation never overwrites one, choose another out=") from None
    return folder


def _with_changes(config: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The run's configuration, without sources of weights, with `evaluate.size` and the changes of data and fusion."""
    node, fusion = (OmegaConf.to_container(OmegaConf.merge(config[name], options[name])) for name in ("data", "fusion"))
    assert isinstance(node, dict)
    if options["split"] not in ("val", "test") or node.get(options["split"]) is None:
        raise ValueError(f"the run's data has no split {options['split']!r} to evaluate; choose val or give data.test")
    return {
        **without_weights(config),
        "fusion": fusion,
        "data": {**node, "val": node[options["split"]]},
        "evaluate": {"size": options["size"]},
    }


def _check_same_categories(module: PanopticModule, content: dict[str, Any], path: Path) -> None:
    trained = [entry["name"] for entry in content["panoptic"]["categories"]]
    here = [category.name for category in module.categories]
    if trained != here:
        raise ValueError(f"{path} was trained on categories {trained}, but the data has {here}")


def _number(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else value
