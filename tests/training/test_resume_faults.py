"""What a resumed run takes up, refuses and leaves out, each by a real training of a few steps."""

import resource
import subprocess
import sys
import warnings

import pytest
import torch
from killed_training import differences, end_of, train, train_until

from panoptic.checkpoints import CHECKPOINT_FORMAT, read_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture
def killed(tmp_path):
    """The folder of a run that was killed in its second epoch, after 8 steps."""
    train_until("forward", 9, tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["best.ckpt", "last.ckpt", "step_00000006.ckpt", "step_00000008.ckpt"]
    return tmp_path / "run"


@pytest.mark.parametrize("damage", ["half", "empty", "flipped"])
def test_a_damaged_checkpoint_is_left_out_by_name(killed, whole, capsys, damage):
    newest = killed / "checkpoints" / "step_00000008.ckpt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 255
    newest.write_bytes({"half": content[: len(content) // 2], "empty": b"", "flipped": bytes(content)}[damage])
    with pytest.warns(UserWarning, match="left out on resuming: .*step_00000008.ckpt"):
        assert train(killed, "resume=auto") == 0
    assert f"going on from step 6, {killed / 'checkpoints' / 'step_00000006.ckpt'}" in capsys.readouterr().out
    assert differences(end_of(killed), whole) == []


def test_from_a_checkpoint_by_its_path_alone(killed, whole, monkeypatch):
    from killed_training import SMALL

    from panoptic.__main__ import main

    assert main(["train", *SMALL, f"resume={killed / 'checkpoints' / 'step_00000006.ckpt'}"]) == 0
    assert differences(end_of(killed), whole) == []


def test_into_a_new_folder_the_old_one_stays(killed, whole, tmp_path):
    before = {path: path.read_bytes() for path in killed.rglob("*") if path.is_file()}
    assert train(tmp_path / "fork", f"resume={killed / 'checkpoints' / 'last.ckpt'}") == 0
    assert {path: path.read_bytes() for path in killed.rglob("*") if path.is_file()} == before
    assert differences(end_of(tmp_path / "fork")["last"], whole["last"]) == []
    losses, all_losses = (
        [row for row in end["metrics"] if "train_loss" in row] for end in (end_of(tmp_path / "fork"), whole)
    )
    assert losses == all_losses[5:]


def test_another_folder_that_exists_is_refused(killed, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    assert train(tmp_path / "other", f"resume={killed / 'checkpoints' / 'last.ckpt'}") == 1
    assert "other exists; a run never overwrites one" in capsys.readouterr().err


def test_another_configuration_is_shown_and_refused_unless_accepted(killed, capsys):
    changes = ["optimizer.lr=0.5", "+loss_weights.semantic_cross_entropy=2"]
    assert train(killed, "resume=auto", *changes) == 1
    error = capsys.readouterr().err
    assert "step_00000008.ckpt was written with another configuration (then -> now):\n" in error
    assert "\n  optimizer.lr: 0.001 -> 0.5\n" in error
    assert "\n  loss_weights.semantic_cross_entropy: (not there) -> 2\n" in error
    assert "accept_changes=true" in error
    assert train(killed, "resume=auto", *changes, "accept_changes=true") == 0
    assert "optimizer.lr: 0.001 -> 0.5" in capsys.readouterr().out
    names = {path.name for path in killed.iterdir()}
    assert {"config.yaml", "config_until_step_8.yaml", "environment_until_step_8.json"} <= names


def test_where_and_how_it_runs_may_differ(killed, whole):
    assert train(killed, "resume=auto", "data.num_workers=1", "checkpoint_every=100") == 0
    assert differences(end_of(killed), whole) == []


def test_auto_needs_a_folder(capsys):
    from panoptic.__main__ import main

    assert main(["train", "resume=auto"]) == 1
    assert "resume=auto needs the run's folder; give run=" in capsys.readouterr().err


def test_a_missing_metrics_file_is_an_error_not_a_gap(killed, capsys):
    (killed / "metrics.csv").unlink()
    assert train(killed, "resume=auto") == 1
    assert "expected at least" in capsys.readouterr().err


def test_a_checkpoint_of_the_first_format_is_taken_up(killed, whole):
    for path in (killed / "checkpoints").glob("*.ckpt"):
        content = torch.load(path, weights_only=True)
        content["panoptic"]["format"] = 1
        del content["loggers"]
        torch.save(content, path)
    assert train(killed, "resume=auto") == 0
    assert differences(end_of(killed)["last"], whole["last"]) == []


def test_a_checkpoint_of_a_later_format_is_refused_by_name(killed):
    path = killed / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    content["panoptic"]["format"] = CHECKPOINT_FORMAT + 1
    torch.save(content, path)
    with pytest.raises(ValueError, match=f"last.ckpt has checkpoint format {CHECKPOINT_FORMAT + 1}, expected 1 to"):
        read_checkpoint(path)


HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "a+") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    lock.truncate(0); lock.write("process 123 on there"); lock.flush()
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_runs_with_one_folder(killed, whole, capsys):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, killed / ".lock"], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    try:
        assert train(killed, "resume=auto") == 1
        assert f"{killed} is in use by another run (process 123 on there)" in capsys.readouterr().err
    finally:
        holder.kill()
        holder.wait()
    assert train(killed, "resume=auto") == 0
    assert differences(end_of(killed), whole) == []


def test_a_full_disk_ends_the_run_and_harms_no_checkpoint(tmp_path, whole, capsys):
    train_until("forward", 4, tmp_path / "run")
    saved = tmp_path / "run" / "checkpoints" / "step_00000002.ckpt"
    before = saved.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        assert train(tmp_path / "run", "resume=auto") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = capsys.readouterr().err
    assert "could not write the checkpoint" in error
    assert "File too large" in error
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert saved.read_bytes() == before
    assert train(tmp_path / "run", "resume=auto") == 0
    assert differences(end_of(tmp_path / "run"), whole) == []


def test_the_wandb_run_goes_on_under_its_id(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = ["logger=wandb", "logger.wandb.mode=offline"]
    try:
        train_until("forward", 9, tmp_path / "run", *logger)
        wandb.finish()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert train(tmp_path / "run", "resume=auto", *logger) == 0
    finally:
        wandb.finish()
    runs = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    ids = {path.name.rpartition("-")[2] for path in runs}
    assert len(runs) == 2
    assert len(ids) == 1
    assert {path.stem for run in runs for path in run.glob("*.wandb")} == {f"run-{ids.pop()}"}


@pytest.mark.very_slow  # W&B tries for a minute and a half
def test_wandb_that_cannot_be_reached_is_an_error_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "3")
    assert train(tmp_path / "run", "logger=wandb") == 1
    assert "panoptic train: " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_was_there_stays_when_the_run_fails_at_once(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_bytes(b"kept")
    assert train(tmp_path / "photos", "resume=auto", "scheduler.warmup_steps=1000") == 1
    assert "expected 0 <= warmup_steps < total steps" in capsys.readouterr().err
    assert (tmp_path / "photos" / "mine.jpg").read_bytes() == b"kept"
    assert train(tmp_path / "new", "scheduler.warmup_steps=1000") == 1
    assert not (tmp_path / "new").exists()
