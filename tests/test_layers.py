"""Imports point down only, and siblings do not import each other."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "panoptic"
PURE = {"structures", "id_lookup"}
LAYERS = {
    "structures": {"id_lookup"},
    "id_lookup": set(),
    "targets": PURE,
    "losses": PURE,
    "fusion": PURE,
    "drawing": PURE,
    "metrics": PURE,
    "instantiation": set(),
    "models": PURE | {"instantiation", "targets", "losses", "fusion"},
    "balancing": PURE,
    "data": PURE | {"targets"},
    "conversion": PURE | {"data"},
    "checkpoints": PURE,
    "inference": PURE | {"checkpoints", "instantiation", "fusion", "models"},
    "training": PURE | {"checkpoints", "fusion", "drawing", "metrics", "models", "balancing"},
    "analysis": PURE | {"metrics"},
    "sweeps": set(),
}
ENTRY_POINTS = {
    "train",
    "training_run",
    "evaluate",
    "predict",
    "score",
    "sweep",
    "table",
    "plot",
    "check_data",
    "convert",
    "assembly",
    "configuration",
    "library_messages",
    "resume",
    "run_folder",
    "__main__",
    "__init__",
}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imported_rooms(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return {name.split(".")[1] for name in names if name.startswith("panoptic.")}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path):
    room = room_of(path)
    if room in ENTRY_POINTS:
        return
    assert room in LAYERS, f"{room} is a new room; give it a place in LAYERS"
    upwards = imported_rooms(path) - LAYERS[room] - {room}
    assert not upwards, f"{room} must not import {sorted(upwards)}"


@pytest.mark.parametrize(
    "room",
    [
        "targets",
        "losses",
        "fusion",
        "metrics",
        "drawing",
        "models",
        "balancing",
        "inference",
        "analysis",
        "sweeps",
        "conversion",
    ],
)
def test_lightning_is_known_to_data_and_training_alone(room):
    for path in (SOURCE / room).rglob("*.py"):
        assert "pytorch_lightning" not in path.read_text(), path
