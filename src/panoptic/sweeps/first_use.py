"""Importing W&B's engine without scipy.stats, which takes a second to load and which only its random searches use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class _AtFirstUse(ModuleType):
    """Stands for a module until something of it is used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def loaded_at_first_use(name: str) -> Iterator[None]:
    """Let modules that are imported within the block import another one without loading it."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = _AtFirstUse(name)
    try:
        yield
    finally:
        del sys.modules[name]
