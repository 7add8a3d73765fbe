"""The real command in processes of its own: how it is started, on which tiny scenes, and what it left."""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = Path(sys.executable).parent
TINY = [
    "experiment=deeperlab_scenes",
    "data.train.length=18",
    "data.val.length=3",
    "data.train.size=[48,64]",
    "data.batch_size=6",
    "data.num_workers=0",
    "decoder.filters=16",
    "scheduler.warmup_steps=0",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.log_every_n_steps=1",
    "pictures=2",
]
FROZEN = "+callbacks.frozen._target_=recorded_training.FrozenStatistics"


def environment(**own):
    """As in a shell: without what a run of this process left, and with this folder to import from."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PANOPTIC_", "PYTEST_", "SLURM_", "TORCHELASTIC_", "PL_", "WANDB_"))
        and name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
    }
    fixed = {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}
    return {**kept, **fixed, **own}


def start(command, log, **own):
    """A process in a session of its own, whose output goes to the file `log`."""
    with log.open("w") as file:
        return subprocess.Popen(
            [str(word) for word in command],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(**own),
            start_new_session=True,
        )


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def csv_rows(run):
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def columns(run, names):
    """{name: values in the order of the file} of `metrics.csv`."""
    return {name: [float(row[name]) for row in csv_rows(run) if row[name]] for name in names}
