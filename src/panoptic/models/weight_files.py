"""Files of weights, of torch or safetensors."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


def read_tensors(path: Path, role: str) -> dict[str, Tensor]:
    """The tensors of a file by name.

    Args:
        path: a state dict, or a checkpoint with one under "state_dict" or "model"; torch or safetensors format.
        role: what the file is for, for errors, such as "backbone checkpoint".

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read, or is no dictionary.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{role} {path} does not exist")
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else _load_torch(path)
    except (RuntimeError, EOFError, LookupError, pickle.UnpicklingError, SafetensorError) as error:
        raise ValueError(f"{role} {path} cannot be read: {error or type(error).__name__}") from None
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ValueError(f"{role} {path}: expected a dictionary of tensors, got {type(content).__name__}")
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}


def _load_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)
