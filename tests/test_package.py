"""The package from outside: a built wheel from any folder, and commands that Lightning starts again per process."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from panoptic.run_folder import RUN_FOLDER_VARIABLE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
CONSOLE_SCRIPT = [str(Path(sys.executable).with_name("panoptic"))]
MODULE = [sys.executable, "-m", "panoptic"]
TWO_PROCESSES = [
    "experiment=deeperlab_scenes",
    "data.train.length=8",
    "data.val.length=3",
    "data.train.size=[33,49]",
    "data.num_workers=0",
    "decoder.filters=16",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "trainer.devices=2",
    "trainer.log_every_n_steps=1",
    "scheduler.warmup_steps=0",
    "pictures=3",
]


def run_command(command, folder, **variables):
    """Standard output and error of a command that must succeed, in another folder than the sources."""
    environment = {key: value for key, value in os.environ.items() if key != RUN_FOLDER_VARIABLE}
    done = subprocess.run(
        command, cwd=folder, env={**environment, **variables}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("start", [CONSOLE_SCRIPT, MODULE], ids=["console_script", "module"])
def test_two_processes_make_one_run(start, tmp_path):
    output, errors = run_command([*start, "train", *TWO_PROCESSES, "run=run"], tmp_path)
    assert "Starting with 2 processes" in errors
    assert output.count("run folder:") == 1
    assert "sync_dist" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if not row["data_wait"]]
    # one training step of 8 images, its validation, and at the end that of the best checkpoint: each logged once
    assert [bool(row["train_loss"]) for row in rows] == [True, False, False]
    assert [bool(row["val_pq"]) for row in rows] == [False, True, True]
    assert len(list((tmp_path / "run" / "pictures").rglob("*.png"))) == 2  # process 0 sees two of the three images


def test_a_built_wheel_carries_the_configuration(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    run_command(build, ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "site")]
    run_command([*install, str(wheel)], tmp_path)
    composed, _ = run_command(
        [*MODULE, "train", "--cfg", "experiment=deeperlab_scenes"], tmp_path, PYTHONPATH=str(tmp_path / "site")
    )
    assert yaml.safe_load(composed)["backbone"]["name"] == "test_resnet"
    where = [sys.executable, "-c", "import panoptic.configuration as c; print(c.config_folder())"]
    folder, _ = run_command(where, tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert Path(folder.strip()) == tmp_path / "site" / "panoptic" / "conf"
