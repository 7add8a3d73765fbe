"""The ledger of a sweep: one SQLite file that several processes may draw trials from, whole after kill -9."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VERSION = 1
STATES = ("pending", "running", "done", "failed", "stopped")
"""`stopped` is ended early by the engine; its metrics up to then count."""

_TABLES = """
CREATE TABLE IF NOT EXISTS sweep (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trials (
    id INTEGER PRIMARY KEY, state TEXT NOT NULL, parameters TEXT NOT NULL, attempt INTEGER NOT NULL, owner TEXT,
    pid INTEGER, started REAL, ended REAL, error TEXT, metrics TEXT NOT NULL, history TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS events (trial INTEGER, attempt INTEGER, state TEXT, time REAL);
"""


@dataclass(frozen=True)
class Trial:
    """A row of the ledger.

    Attributes:
        id: counts from 1.
        state: one of STATES.
        parameters: values by name.
        attempt: how often it was started; more than 1 after a process died that ran it.
        pid: of the trial's process.
        started: of the latest attempt, in seconds since the epoch.
        ended: likewise.
        error: the last lines of a failed one.
        metrics: the last value of each column of its metrics.csv.
        history: every value of the sweep's metric.
    """

    id: int
    state: str
    parameters: dict[str, Any]
    attempt: int
    pid: int | None = None
    started: float | None = None
    ended: float | None = None
    error: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    history: list[float] = field(default_factory=list)


class Ledger:
    """The trials of one folder.

    A trial belongs to the process that claimed it for as long as that process holds the lock on its file in `owners/`.
    The system lets go of the lock when the process ends, however it ends.

    Args:
        folder: of the sweep; `ledger.sqlite` is made in it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger.sqlite"
        self.owners = folder / "owners"
        self.owners.mkdir(parents=True, exist_ok=True)
        self.owner = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lock = (self.owners / self.owner).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._database = _connect(self.path)
        with self._transaction():
            for statement in _TABLES.split(";"):
                self._database.execute(statement)

    def close(self) -> None:
        """Let go of the file and of the trials that still run."""
        self._database.close()
        (self.owners / self.owner).unlink(missing_ok=True)
        self._lock.close()

    def adopt(self, deciding: Mapping[str, Any], path: Path) -> None:
        """Make the folder that of a sweep, or check that it is.

        Args:
            deciding: the part of the sweep file that decides the trials.
            path: of the sweep file.

        Raises:
            ValueError: the folder holds the trials of another sweep; the message says what differs.
        """
        with self._transaction():
            stored = dict(self._database.execute("SELECT key, value FROM sweep").fetchall())
            if stored and stored["version"] != str(VERSION):
                raise ValueError(f"{self.path} has version {stored['version']}, expected {VERSION}; use a new --folder")
            if stored and (
                changes := list(_differences(json.loads(stored["config"]), json.loads(json.dumps(deciding))))
            ):
                raise ValueError(
                    f"{self.path.parent} holds the trials of another sweep, {stored['path']}: "
                    f"{'; '.join(changes[:5])}; choose another --folder"
                )
            values = {"version": str(VERSION), "config": json.dumps(deciding), "path": str(path.resolve())}
            self._database.executemany("INSERT OR REPLACE INTO sweep VALUES (?, ?)", values.items())

    def trials(self) -> list[Trial]:
        """All trials, by id."""
        return read_trials(self._database)

    def claim(self, draw: Callable[[Sequence[Trial]], dict[str, Any] | None], max_trials: int | None) -> Trial | None:
        """Take a trial: one that waits or was left by a dead process, else a new one.

        Args:
            draw: parameters of a new trial from those that there are; None where there are no more.
            max_trials: in the ledger, all states together.

        Returns:
            The trial, running, and owned by this process; None where there is none to take.
        """
        with self._transaction():
            rows = self._database.execute("SELECT id, state, owner FROM trials WHERE state IN ('pending', 'running')")
            for trial_id, state, owner in rows.fetchall():
                if state == "pending" or not self._is_alive(owner):
                    return self._start(trial_id)
            trials = self.trials()
            if max_trials is not None and len(trials) >= max_trials:
                return None
            parameters = draw(trials)
            if parameters is None:
                return None
            cursor = self._database.execute(
                "INSERT INTO trials (state, parameters, attempt, metrics, history) "
                "VALUES ('pending', ?, 0, '{}', '[]')",
                (json.dumps(parameters),),
            )
            assert cursor.lastrowid is not None
            return self._start(cursor.lastrowid)

    def record(self, trial: Trial, **columns: Any) -> bool:
        """Write columns of a trial that this process runs; a new `state` other than running ends it.

        Returns:
            False where the trial is not this process's any more; nothing is written then.
        """
        values = {key: json.dumps(value) if key in ("metrics", "history") else value for key, value in columns.items()}
        names = ", ".join(f"{key} = ?" for key in values)
        with self._transaction():
            changed = self._database.execute(
                f"UPDATE trials SET {names} WHERE id = ? AND attempt = ? AND owner = ? AND state = 'running'",
                (*values.values(), trial.id, trial.attempt, self.owner),
            ).rowcount
            if changed and "state" in columns:
                self._note(trial.id, trial.attempt, columns["state"])
        return changed == 1

    def retry_failed(self) -> int:
        """Let failed trials be taken again; returns how many."""
        with self._transaction():
            return self._database.execute("UPDATE trials SET state = 'pending' WHERE state = 'failed'").rowcount

    def _start(self, trial_id: int) -> Trial:
        self._database.execute(
            "UPDATE trials SET state = 'running', attempt = attempt + 1, owner = ?, pid = NULL, started = ?, "
            "ended = NULL, error = NULL, metrics = '{}', history = '[]' WHERE id = ?",
            (self.owner, time.time(), trial_id),
        )
        trial = next(trial for trial in self.trials() if trial.id == trial_id)
        self._note(trial.id, trial.attempt, "running")
        return trial

    def _note(self, trial_id: int, attempt: int, state: str) -> None:
        self._database.execute("INSERT INTO events VALUES (?, ?, ?, ?)", (trial_id, attempt, state, time.time()))

    def _is_alive(self, owner: str) -> bool:
        try:
            with (self.owners / owner).open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")


def read_trials(database: sqlite3.Connection) -> list[Trial]:
    """All trials of an open ledger, by id."""
    rows = database.execute(
        "SELECT id, state, parameters, attempt, pid, started, ended, error, metrics, history FROM trials ORDER BY id"
    )
    return [
        Trial(
            number,
            state,
            json.loads(parameters),
            attempt,
            pid,
            started,
            ended,
            error,
            json.loads(last),
            json.loads(all_),
        )
        for number, state, parameters, attempt, pid, started, ended, error, last, all_ in rows
    ]


def read_ledger(folder: Path) -> tuple[dict[str, Any], Path, list[Trial]]:
    """The deciding part of the sweep file, its path, and the trials.

    Raises:
        FileNotFoundError: the folder has no ledger.
        ValueError: no sweep was started in it.
    """
    path = folder / "ledger.sqlite"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not the folder of a sweep: it has no ledger.sqlite")
    database = _connect(path)
    try:
        stored = dict(database.execute("SELECT key, value FROM sweep").fetchall())
        if "config" not in stored:
            raise ValueError(f"{path} has no sweep yet; run panoptic sweep with this folder")
        return json.loads(stored["config"]), Path(stored["path"]), read_trials(database)
    finally:
        database.close()


def _connect(path: Path) -> sqlite3.Connection:
    """Open a ledger; a write that a dead process left half done is rolled back by that."""
    # isolation_level None: transactions are begun by hand, see Ledger._transaction
    database = sqlite3.connect(path, timeout=120, isolation_level=None)
    try:
        database.execute("PRAGMA schema_version").fetchone()
    except sqlite3.DatabaseError as error:
        database.close()
        raise ValueError(
            f"{path} cannot be read as a ledger: {error}; use a new --folder or restore the file"
        ) from None
    return database


def _differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else str(key))
    elif old != new:
        yield f"{name} is {json.dumps(old)} there and {json.dumps(new)} in the file"
