"""Hydra composition for the commands: where `conf/` is, what may be overridden, and clear errors."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException, InstantiationException, MissingConfigException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


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
        prog=f"panoptic {command}", description=line, epilog=_groups(), formatter_class=argparse.RawTextHelpFormatter
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
        ValueError: an unknown key or choice; the message names the nearest.
    """
    search = []
    if config_dir is not None:
        folder = Path(config_dir).expanduser().resolve()
        if not folder.is_dir():
            raise FileNotFoundError(f"--config-dir {folder} is not a folder")
        search = [f"hydra.searchpath=[file://{folder}]"]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        try:
            return compose(name, [*overrides, *search])
        except MissingConfigException as error:
            raise ValueError(_missing_choice(error, config_dir)) from None
        except (ConfigCompositionException, OmegaConfBaseException) as error:
            keys = list(_keys(OmegaConf.to_container(compose(name), resolve=False)))
            raise ValueError(_unknown_key(error, overrides, keys)) from None


def resolved(config: DictConfig) -> dict[str, Any]:
    """Plain dictionaries and lists with every interpolation filled in."""
    container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def build(node: Any, **arguments: Any) -> Any:
    """Instantiate a node; an error of what is built comes out as it was raised, with the node's `_target_`."""
    try:
        return instantiate(node, **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, (ValueError, OSError)):
            raise cause from None
        raise ValueError(str(error)) from cause


def _missing_choice(error: MissingConfigException, config_dir: str | None) -> str:
    missing = error.missing_cfg_file or ""
    group, _, choice = missing.rpartition("/")
    choices = _choices(config_folder() / group)
    if config_dir is not None:
        choices += _choices(Path(config_dir).expanduser() / group)
    return f"no {group or 'configuration'} {choice!r}{_nearest(choice, choices)}; there are {sorted(choices)}"


def _unknown_key(error: Exception, overrides: Sequence[str], keys: list[str]) -> str:
    names = [override.partition("=")[0].lstrip("+~") for override in overrides]
    unknown = [name for name in names if name not in keys]
    hints = "".join(f"; {name!r} is not a key{_nearest(name, keys)}" for name in unknown)
    return str(error).splitlines()[0] + hints


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{key}"
        yield from _keys(value, f"{prefix}{key}.")


def _choices(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _groups() -> str:
    folders = sorted(path for path in config_folder().iterdir() if path.is_dir())
    return "\n".join(["choices:", *(f"  {folder.name}={'|'.join(_choices(folder))}" for folder in folders)])
