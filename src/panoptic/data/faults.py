"""Faults of data sets: raised where they are met, or all recorded, as Python's own warnings can be.

A reader that can go on without the faulty part calls `report`, one that cannot raises. Training meets the first fault
as an exception; whoever checks a data set reads it within `recorded_faults` and is told of all, by the same messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

First = TypeVar("First")
Second = TypeVar("Second")


class Kind(StrEnum):
    """What sort of fault, for tables and machines."""

    MISSING_FILE = "missing file"
    STRAY_FILE = "file without entry"
    UNREADABLE = "unreadable file"
    FORMAT = "not as in the format"
    REPEATED = "repeated entry"
    UNKNOWN_CATEGORY = "unknown category"
    UNKNOWN_IMAGE = "entry of an unknown image"
    ID_WITHOUT_ENTRY = "id without entry"
    ENTRY_WITHOUT_PIXELS = "entry without pixels"
    SIZE = "sizes differ"
    AREA = "wrong area"
    BOX = "wrong box"
    OUTSIDE = "outside the image"
    TURNED = "turned photograph"
    ALL_VOID = "image all void"
    NO_INSTANCES = "thing without instances"
    NO_PIXELS = "stuff without pixels"
    CATEGORIES_DIFFER = "categories differ"
    OTHER = "other"


class DataError(ValueError):
    """A fault of a data set's files.

    Args:
        message: names the file.
        kind: of the fault.
        file: the faulty one.
    """

    def __init__(self, message: str, *, kind: Kind = Kind.OTHER, file: Path | str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.file = file


class MissingFileError(DataError, FileNotFoundError):
    """A fault of a data set that lacks a file, or has one too many; arguments as `DataError`."""


@dataclass(frozen=True)
class Finding:
    """A fault as it was recorded.

    Args:
        kind: value of a `Kind`.
        file: the faulty one, None where it is not known apart from the message.
        message: as training would show it.
        is_error: training stops at it; else it is a warning.
    """

    kind: str
    file: str | None
    message: str
    is_error: bool = True


_RECORD: ContextVar[list[Finding] | None] = ContextVar("recorded_faults", default=None)


@contextmanager
def recorded_faults() -> Iterator[list[Finding]]:
    """Record faults within the block instead of raising them; one that cannot be left out ends the block quietly."""
    findings: list[Finding] = []
    token = _RECORD.set(findings)
    try:
        yield findings
    except (ValueError, OSError) as error:
        findings.append(_finding(error))
    finally:
        _RECORD.reset(token)


def report(error: DataError) -> None:
    """Raise the error; while faults are recorded, record it and return."""
    findings = _RECORD.get()
    if findings is None:
        raise error
    findings.append(_finding(error))


def report_each(error: DataError, messages: Iterable[tuple[Path | str, str]]) -> None:
    """Raise the error, which counts what it is about; while faults are recorded, record each of them.

    Args:
        error: with their number and the first of them.
        messages: (file, what is wrong) of each.
    """
    if _RECORD.get() is None:
        raise error
    for file, message in messages:
        report(DataError(message, kind=error.kind, file=file))


@contextmanager
def reported() -> Iterator[None]:
    """Errors of the block are raised; while faults are recorded, they are recorded, and what follows is reached."""
    try:
        yield
    except (ValueError, OSError) as error:
        findings = _RECORD.get()
        if findings is None:
            raise
        findings.append(_finding(error))


def read_bytes(path: Path) -> bytes:
    """What a file holds.

    Raises:
        FileNotFoundError: no such file, or a link that leads nowhere.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        message = f"no file {path}, or a link that leads nowhere; add the file, or remove what names it"
        raise MissingFileError(message, kind=Kind.MISSING_FILE, file=path) from error


def read_text(path: Path) -> str:
    """The text of a file, of UTF-8, without the mark that editors on Windows put before the first line.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"expected a text of UTF-8 in {path}, got: {error}; save it so"
        raise DataError(message, kind=Kind.UNREADABLE, file=path) from error


def is_recording() -> bool:
    """Whether faults are recorded; for warnings that take time to find out."""
    return _RECORD.get() is not None


def warn(error: DataError) -> None:
    """Record what training does not stop at; nothing happens unless faults are recorded."""
    findings = _RECORD.get()
    if findings is not None:
        findings.append(_finding(error, is_error=False))


def read_both(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """What both readers return; while faults are recorded, those of the second are heard even if the first fails."""
    try:
        value = first()
    except (ValueError, OSError):
        if _RECORD.get() is not None:
            with reported():
                second()
        raise
    return value, second()


def _finding(error: ValueError | OSError, *, is_error: bool = True) -> Finding:
    """The record of any error; the system's own know their file too."""
    if isinstance(error, DataError):
        return Finding(error.kind.value, None if error.file is None else str(error.file), str(error), is_error)
    if isinstance(error, OSError) and error.filename is not None:
        kind = Kind.MISSING_FILE if isinstance(error, FileNotFoundError) else Kind.UNREADABLE
        return Finding(kind.value, str(error.filename), str(error), is_error)
    return Finding(Kind.OTHER.value, None, str(error), is_error)
