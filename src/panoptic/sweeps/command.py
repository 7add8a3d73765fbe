"""The command line of a trial: W&B's macros filled in, as `wandb agent` fills them."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MACROS = (
    "env",
    "interpreter",
    "program",
    "args",
    "args_no_equals",
    "args_no_hyphens",
    "args_no_boolean_flags",
    "args_append_hydra",
    "args_override_hydra",
    "args_json",
)
"""What may stand in `${..}` in a sweep file's command, beside `${envvar:NAME}`."""

COMPOSED = ("train", "evaluate", "predict")
"""Commands of this package that take `key=value` overrides of a composed configuration."""

_MACRO = re.compile(r"\$\{(\w+)\}")
_UNQUOTED = re.compile(r"[\w/.@:+-]+")
"""Paths that Hydra takes without quotes."""
_WANDB_MODE = "logger.wandb.mode="
_VARIABLE = re.compile(r"\$\{envvar:(\w+)\}")


def macros_in(command: Sequence[str]) -> list[str]:
    """The names of the macros of a command, `${envvar:NAME}` left out."""
    return [name for word in command for name in _MACRO.findall(word)]


def command_line(command: Sequence[str], program: str, parameters: Mapping[str, Any]) -> list[str]:
    """The command line of a trial.

    Args:
        command: words; one that is a macro stands for any number of words.
        program: what `${program}` stands for.
        parameters: of the trial, in the order of the command line.

    Returns:
        Words as for `subprocess.Popen`. `${interpreter}` is the running Python, so that a trial sees the same packages.
    """
    words = {"env": ["/usr/bin/env"], "interpreter": [sys.executable], "program": [program], **_arguments(parameters)}
    line: list[str] = []
    for word in command:
        macro = _MACRO.fullmatch(word)
        if macro is not None:
            line += words[macro[1]]
        else:
            line.append(_VARIABLE.sub(lambda match: os.environ.get(match[1], match[1]), word))
    return line


@dataclass(frozen=True)
class Composition:
    """What a command line of this package composes its configuration from.

    Attributes:
        command: "train", "evaluate" or "predict".
        overrides: `key=value`, and options that are not known here.
        config_dir: of `--config-dir`.
    """

    command: str
    overrides: list[str]
    config_dir: str | None


def composition(line: Sequence[str]) -> Composition | None:
    """What a command line composes; None where it is not a command of this package that takes overrides."""
    for index, word in enumerate(line[:-1]):
        if Path(word).name == "panoptic" and line[index + 1] in COMPOSED:
            parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
            parser.add_argument("--config-dir")
            options, overrides = parser.parse_known_args(list(line[index + 2 :]))
            return Composition(line[index + 1], overrides, options.config_dir)
    return None


def resumes(line: Sequence[str]) -> bool:
    """Whether a command line is of `panoptic train`, which goes on in its run folder with `resume=auto`."""
    composed = composition(line)
    return composed is not None and composed.command == "train"


def trial_line(line: Sequence[str], folder: Path) -> list[str]:
    """The command line of a trial on this machine.

    `panoptic train` is told its run folder, to go on in it, and to use W&B without a server unless the command or
    WANDB_MODE says otherwise. Other programs find their folder in the environment.
    """
    if not resumes(line):
        return list(line)
    path = str(folder)
    if not _UNQUOTED.fullmatch(path):
        path = "'" + path.replace("'", r"\'") + "'"
    added = [f"run={path}", "resume=auto"]
    if "logger=wandb" in line and not any(word.startswith(_WANDB_MODE) for word in line):
        added.append(_WANDB_MODE + os.environ.get("WANDB_MODE", "offline"))
    return [*line, *added]


def _arguments(parameters: Mapping[str, Any]) -> dict[str, list[str]]:
    pairs = [f"{name}={value}" for name, value in parameters.items()]
    return {
        "args": [f"--{pair}" for pair in pairs],
        "args_no_equals": [word for name, value in parameters.items() for word in (f"--{name}", str(value))],
        "args_no_hyphens": pairs,
        "args_no_boolean_flags": [
            f"--{name}" if value is True else f"--{name}={value}"
            for name, value in parameters.items()
            if value is not False
        ],
        "args_append_hydra": [f"+{pair}" for pair in pairs],
        "args_override_hydra": [f"++{pair}" for pair in pairs],
        "args_json": [json.dumps(dict(parameters))],
    }
