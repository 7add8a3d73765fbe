"""JSON files of long lists, which wait on disk while they grow: memory does not grow with them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class JsonList:
    """A list for a JSON file, one entry a line of a file of its own until it is written.

    Args:
        path: of that file, which is made anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_bytes(b"")

    def append(self, entry: Any) -> None:
        """Add what `json` can write."""
        with self._path.open("ab") as file:
            file.write(json.dumps(entry).encode() + b"\n")

    def __iter__(self) -> Iterator[bytes]:
        """The entries as JSON."""
        with self._path.open("rb") as file:
            for line in file:
                yield line.rstrip(b"\n")

    def remove(self) -> None:
        """Remove the file."""
        self._path.unlink()


def write_json_lists(path: Path, lists: Mapping[str, JsonList]) -> None:
    """Write an object of lists, `{"images": [...], ...}`; the file appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            for number, (name, entries) in enumerate(lists.items()):
                file.write((b", " if number else b"{") + json.dumps(name).encode() + b": [")
                for place, entry in enumerate(entries):
                    file.write((b", " if place else b"") + entry)
                file.write(b"]")
            file.write(b"}")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
