"""The real command over processes and nodes: one log, one W&B run, one set of pictures, the numbers of one process."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_runs import FROZEN, SCRIPTS, TINY, columns, csv_rows, environment, free_port, start

from panoptic.__main__ import main

ROOT = Path(__file__).parents[2]
MULTINODE = ROOT / "scripts" / "multinode.sh"
SLURM = ROOT / "scripts" / "slurm.sbatch"
LAUNCHERS = {"script": [SCRIPTS / "panoptic"], "module": [sys.executable, "-m", "panoptic"]}
TWO = ["trainer=ddp", "trainer.devices=2"]
LIMIT = 300
PATH = f"{SCRIPTS}:/usr/local/bin:/usr/bin:/bin"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process that the others are compared with."""
    run = tmp_path_factory.mktemp("alone") / "run"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main(["train", *TINY, FROZEN, f"run={run}"]) == 0
    torch.set_num_threads(threads)
    return run


def check_same_numbers(run, expected):
    """Every number of `metrics.csv` but measured times, in fp32: Adam's steps enlarge the rounding of gradients."""
    names = set(csv_rows(expected)[0]) - {"data_wait"}
    assert {"train_loss", "train_long_range_l1", "weight_long_range_l1", "val_long_range_l1", "val_pc"} <= names
    found, wanted = columns(run, names), columns(expected, names)
    assert len(wanted["train_loss"]) == 3
    for name, values in wanted.items():
        assert found[name] == pytest.approx(values, rel=1e-4), name


def check_one_of_each(run, output):
    """One log, one set of pictures and one report."""
    steps = [int(row["step"]) for row in csv_rows(run) if row["train_loss"]]
    assert steps == [0, 1, 2]
    assert sorted(
        str(path.relative_to(run / "pictures")) for path in run.rglob("*.png") if "wandb" not in path.parts
    ) == [
        "step_000003/0.png",
        "step_000003/1.png",
    ]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert output.count(f"run folder: {run}") == 1
    assert output.count("best checkpoint, val") == 1


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["script", pytest.param("module", marks=pytest.mark.very_slow)])
def test_two_processes_make_one_run_with_the_numbers_of_one(alone, launcher, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log.txt"
    wandb = ["logger=wandb", "logger.wandb.mode=offline"]
    process = start([*LAUNCHERS[launcher], "train", *TINY, FROZEN, *TWO, *wandb, f"run={run}"], log)
    assert process.wait(LIMIT) == 0, log.read_text()
    check_one_of_each(run, log.read_text())
    check_same_numbers(run, alone)
    assert len(list(tmp_path.rglob("offline-run-*"))) == 1
    assert len(list(tmp_path.rglob("*.wandb"))) == 1
    assert list(tmp_path.rglob("metrics*.csv")) == [run / "metrics.csv"]


@pytest.mark.very_slow
def test_two_nodes_make_one_run_with_the_numbers_of_one(alone, tmp_path):
    run, port = tmp_path / "run", free_port()
    logs = [tmp_path / "node 0.txt", tmp_path / "node 1.txt"]
    nodes = [start(multinode(rank, port, *TINY, FROZEN, f"run={run}"), log, PATH=PATH) for rank, log in enumerate(logs)]
    assert [node.wait(LIMIT) for node in nodes] == [0, 0], [log.read_text() for log in logs]
    check_one_of_each(run, "".join(log.read_text() for log in logs))
    check_same_numbers(run, alone)
    assert sorted(tmp_path.iterdir()) == [*logs, run]


def multinode(rank, port, *overrides):
    """One process on one of two nodes, which are both this machine."""
    options = ["--nodes", 2, "--processes", 1, "--rank", rank, "--master", f"127.0.0.1:{port}"]
    return [MULTINODE, *options, *overrides]


def test_the_script_explains_itself():
    done = subprocess.run([MULTINODE, "--help"], capture_output=True, text=True, check=True)
    assert "usage: scripts/multinode.sh --nodes N --processes P --rank R --master HOST[:PORT]" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nodes", "2"], "expected --processes"),
        (["--nodes"], "expected a value after --nodes"),
        (["--nodes", "2", "--processes", "1", "--rank", "2", "--master", "host"], "expected --rank 0 to 1, got 2"),
        (["--nodes", "two", "--processes", "1", "--rank", "0", "--master", "host"], "number for --nodes, got two"),
        (["--nodes", "2", "--processes", "1", "--rank", "0", "--master", "host"], "expected run=, the same folder"),
        (["--node", "2"], "unknown option --node"),
    ],
)
def test_wrong_arguments_are_explained(arguments, message):
    done = subprocess.run([MULTINODE, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr


SRUN = """#!{python}
# Starts two tasks, as SLURM would on a node with two GPUs.
import os, subprocess, sys
assert sys.argv[1] == "--kill-on-bad-exit=1", sys.argv
tasks = [
    subprocess.Popen(sys.argv[2:], env={{**os.environ, "SLURM_PROCID": str(task), "SLURM_LOCALID": str(task)}})
    for task in range(2)
]
sys.exit(max(task.wait() for task in tasks))
"""


@pytest.mark.very_slow
def test_a_slurm_job_makes_one_run_and_its_second_start_goes_on(alone, tmp_path):
    (tmp_path / "srun").write_text(SRUN.format(python=sys.executable))
    (tmp_path / "srun").chmod(0o755)
    slurm = {"JOB_ID": "812", "JOB_NAME": "job", "JOB_NUM_NODES": "1", "NTASKS_PER_NODE": "2", "NTASKS": "2"}
    slurm |= {"NODEID": "0", "NODELIST": "127.0.0.1", "JOB_NODELIST": "127.0.0.1", "NNODES": "1"}
    own = environment(PATH=f"{tmp_path}:{PATH}", **{f"SLURM_{name}": value for name, value in slurm.items()})
    own["MASTER_PORT"] = str(free_port())

    def submit(*overrides):
        command = ["bash", SLURM, *TINY, FROZEN, *overrides]
        done = subprocess.run(
            command, cwd=tmp_path, env=own, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run = tmp_path / "runs" / "job-812"
    check_one_of_each(run, submit())
    check_same_numbers(run, alone)
    assert "going on from step 3" in submit("trainer.max_epochs=2", "accept_changes=true")
    assert [int(row["step"]) for row in csv_rows(run) if row["train_loss"]] == [0, 1, 2, 3, 4, 5]
