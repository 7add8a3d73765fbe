"""Hydra composition for the commands: where `conf/` is, what may be overridden, and clear errors."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

OPEN_NODES = {"train": ("loss_weights.",), "evaluate": ("data.", "fusion."), "predict": ("fusion.",)}
"""Nodes of each command to which keys may be added; whoever reads them checks the names."""

ANY_KIND = ("trainer.devices", "trainer.limit_train_batches", "trainer.limit_val_batches", "trainer.val_check_interval")
"""Keys whose values may be numbers or words."""

WHOLE_IF_GIVEN = ("max_images", "scheduler.warmup_images")
"""Keys that are null unless they are given, then as a whole number."""

INSTEAD_OF = {"trainer.max_epochs": "max_images", "trainer.max_steps": "max_images"}
"""{key: the one that replaces it}: an override of the first contradicts a value of the second."""


def config_folder() -> Path:
    """The package's `conf/`: inside an installed wheel, or at the top of the source tree of an editable install."""
    package = Path(__file__).parent
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"the package's conf/ folder is missing beside {package}; reinstall panoptic")


def parse_overrides(command: str, line: str, argv: Sequence[str]) -> DictConfig | None:
    """The composed configuration of a command.

    Args:
        command: "train" and so on: the name of its yaml in `conf/`.
        line: what it does, for `--help`.
        argv: `key=value` overrides and options.

    Returns:
        The configuration, or None when it was only to be printed.
    """
    parser = argparse.ArgumentParser(
        prog=f"panoptic {command.replace('_', '-')}",
        description=line,
        epilog=_epilog(command),
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides in Hydra's syntax")
    parser.add_argument("--config-dir", help="a conf/ folder of your own, searched beside the package's")
    parser.add_argument("--cfg", action="store_true", help="print the composed configuration and stop")
    options = parser.parse_args(argv)
    config = load_config(command, options.overrides, options.config_dir)
    if options.cfg:
        print(OmegaConf.to_yaml(config))
        return None
    return config


def load_config(name: str, overrides: Sequence[str] = (), config_dir: str | None = None) -> DictConfig:
    """Compose `conf/<name>.yaml` with overrides.

    Args:
        name: of the yaml.
        overrides: `key=value` in Hydra's syntax.
        config_dir: a folder of the user's own, searched after the package's.

    Raises:
        FileNotFoundError: `config_dir` does not exist.
        ValueError: an unknown key or choice, the message names the nearest; a value of the wrong kind, or one that
            another contradicts.
    """
    search = []
    if config_dir is not None:
        folder = Path(config_dir).expanduser().resolve()
        if not folder.is_dir():
            raise FileNotFoundError(f"--config-dir {folder} is not a folder")
        search = [f"hydra.searchpath=[file://{folder}]"]
    changes = [f"++{change}" if change.startswith(OPEN_NODES.get(name, ())) else change for change in overrides]
    choices: list[str] = []
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        try:
            parsed = OverridesParser.create().parse_overrides(changes)
            choices = [str(override.input_line) for override in parsed if _is_choice(override, config_dir)]
            config = compose(name, [*choices, *search])
            for override in parsed:
                if override.input_line not in choices:
                    _change(config, override)
        except MissingConfigException as error:
            raise ValueError(_missing_choice(error, config_dir)) from None
        except yaml.YAMLError as error:
            raise ValueError(f"a configuration file is not YAML: {error}") from None
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(_unknown_key(error, changes, list(_keys_of(name, choices, search)))) from None
    _check_contradictions(config, [override.key_or_group for override in parsed])
    return config


def resolved(config: DictConfig) -> dict[str, Any]:
    """Plain dictionaries and lists with every interpolation filled in.

    Raises:
        ValueError: a key without a default was not given.
    """
    try:
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        within = "full_key" if isinstance(error, MissingMandatoryValue) else "Missing mandatory value"
        missing = re.search(rf"{within}: (\S+)", str(error))
        if missing is None:
            raise ValueError(str(error)) from None
        raise ValueError(f"give {missing[1]}=..., it has no default") from None
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def options_and_fusion(config: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The resolved options of a command for a run, and its node `fusion` as it is: that refers to nodes of the run."""
    fusion = OmegaConf.to_container(config["fusion"])
    assert isinstance(fusion, dict)
    with open_dict(config):
        del config["fusion"]
    return resolved(config), {str(key): value for key, value in fusion.items()}


def with_fusion(config: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a run with changes of its fusion, or with another fusion.

    Args:
        config: of the run, resolved.
        change: keys of the run's fusion with new values; with a `_target_` it is another fusion, and replaces it.
    """
    node = {"_partial_": True, **change} if "_target_" in change else OmegaConf.merge(config["fusion"], change)
    return {**config, "fusion": resolved(OmegaConf.create({**config, "fusion": node}))["fusion"]}


def _missing_choice(error: MissingConfigException, config_dir: str | None) -> str:
    missing = error.missing_cfg_file or ""
    group, _, choice = missing.rpartition("/")
    choices = _choices(config_folder() / group)
    if config_dir is not None:
        choices += _choices(Path(config_dir).expanduser() / group)
    return f"no {group or 'configuration'} {choice!r}{_nearest(choice, choices)}; there are {sorted(choices)}"


def _unknown_key(error: Exception, overrides: Sequence[str], keys: list[str]) -> str:
    """Hydra's first line, and for each key that does not exist the nearest one."""
    wrong = [override for override in overrides if "=" not in override and not override.startswith("~")]
    if wrong:
        return f"expected key=value, got {wrong[0]!r}"
    names = [override.partition("=")[0] for override in overrides]
    unknown = [name for name in names if name not in keys and not name.startswith(("+", "~")) and "@" not in name]
    hints = "".join(f"; {name!r} is not a key{_nearest(name, keys)}" for name in unknown)
    return str(error).splitlines()[0] + hints


def _is_choice(override: Override, config_dir: str | None) -> bool:
    """Whether an override chooses a file of a group, or leaves the group out."""
    folders = [config_folder(), *([] if config_dir is None else [Path(config_dir).expanduser()])]
    is_group = any((folder / override.key_or_group).is_dir() for folder in folders)
    return is_group and not isinstance(override.value(), dict)


def _change(config: DictConfig, override: Override) -> None:
    """Carry out `key=value`, `+key=value`, `++key=value` or `~key`, as Hydra does; the kind of the value is kept.

    Hydra would do so while it composes, but then the default is gone, and a second composition takes 0.2 seconds.
    """
    key = override.key_or_group
    if override.is_sweep_override():
        raise ValueError(f"expected one value for {key}, got {override.input_line!r}; panoptic sweep runs several")
    if override.package is not None:
        raise ConfigCompositionException(f"could not override {override.input_line!r}: {key!r} is no group")
    default = OmegaConf.select(config, key, throw_on_resolution_failure=False)
    value = override.value()
    if override.is_delete():
        _delete(config, key, value)
        return
    if override.is_add() and default is not None and not isinstance(value, (dict, list)):
        raise ValueError(f"{key} is there already; write {str(override.input_line)[1:]}")
    try:
        OmegaConf.update(config, key, value, force_add=override.is_add() or override.is_force_add())
    except (ConfigKeyError, ConfigAttributeError):
        raise ConfigCompositionException(f"could not override {key!r}") from None
    _check_kind(key, default, OmegaConf.select(config, key, throw_on_resolution_failure=False))


def _delete(config: DictConfig, key: str, value: Any) -> None:
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig) or last not in node:
        keys = list(_keys(OmegaConf.to_container(config, resolve=False)))
        raise ValueError(f"could not delete {key!r}, which is not a key{_nearest(key, keys)}")
    if value is not None and value != node[last]:
        raise ValueError(f"could not delete {key}={value}: its value is {node[last]}; write ~{key}")
    with open_dict(config):
        del node[last]


def _keys_of(name: str, choices: Sequence[str], search: Sequence[str]) -> Iterator[str]:
    """Every key that may be changed, with the given choices if they compose."""
    yield from ("experiment", *_choices_of_groups())
    try:
        config = compose(name, [*choices, *search])
    except (HydraException, OmegaConfBaseException):
        config = compose(name)
    yield from _keys(OmegaConf.to_container(config, resolve=False))


def _check_kind(key: str, default: Any, value: Any) -> None:
    """Raise ValueError where a word or a number comes into the place of the other, or of a list."""
    if key in ANY_KIND or value is None:
        return
    expected = (
        "true or false" if isinstance(default, bool) and not isinstance(value, bool)
        else "a whole number" if (type(default) is int or key in WHOLE_IF_GIVEN) and type(value) is not int
        else "a number" if isinstance(default, float) and type(value) not in (int, float)
        else "a list" if OmegaConf.is_list(default) and not OmegaConf.is_list(value)
        else None
    )  # fmt: skip
    if expected is not None:
        shown = "null" if default is None else default
        raise ValueError(f"expected {expected} for {key}, got {value!r}; the default is {key}={shown}")


def _check_contradictions(config: DictConfig, overridden: Sequence[str]) -> None:
    for key in overridden:
        other = INSTEAD_OF.get(key)
        is_unlimited = OmegaConf.select(config, key) in (None, -1)
        if other is not None and not is_unlimited and OmegaConf.select(config, other) is not None:
            raise ValueError(f"expected {key} or {other}, got both; give {other}=null, or leave out {key}")


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{key}"
        yield from _keys(value, f"{prefix}{key}.")


def _choices(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _choices_of_groups() -> dict[str, list[str]]:
    """{group: choices} of `train`; `head` is chosen from within `heads`, `from` and `to` are of `convert`."""
    others = ("head", "from", "to")
    folders = sorted(path for path in config_folder().iterdir() if path.is_dir() and path.name not in others)
    return {folder.name: _choices(folder) for folder in folders}


def _epilog(command: str) -> str:
    """What can be given: the groups of `train`, or the keys of another command."""
    if command != "train":
        return (config_folder() / f"{command}.yaml").read_text()
    lines = [f"  {group}={'|'.join(choices)}" for group, choices in _choices_of_groups().items()]
    return "\n".join(["choices:", *lines, "--cfg lists every key with its value"])
