"""Reading a W&B sweep file, and everything that can be known to be wrong with it before the first trial."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from panoptic.sweeps.command import MACROS, command_line, composition, macros_in
from panoptic.sweeps.first_use import loaded_at_first_use

Compose = Callable[[str, Sequence[str], str | None], Any]
"""Composes a configuration (command, overrides, folder of own yamls); a ValueError says which override is wrong."""

_WEIGHTS = "loss_weights."

DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")


@dataclass(frozen=True)
class SweepFile:
    """A checked sweep file.

    Attributes:
        path: of the yaml.
        config: its content.
    """

    path: Path
    config: dict[str, Any]

    @property
    def command(self) -> list[str]:
        """The command with its macros, such as `${args_no_hyphens}`."""
        return [str(word) for word in self.config.get("command") or DEFAULT_COMMAND]

    @property
    def program(self) -> str:
        """What `${program}` stands for; empty where the file names none."""
        return str(self.config.get("program", ""))

    @property
    def metric(self) -> str | None:
        """The name of the metric that the sweep looks at."""
        name = self.config.get("metric", {}).get("name")
        return None if name is None else str(name)

    @property
    def deciding(self) -> dict[str, Any]:
        """The part that decides which trials there are and what they do: all but names and descriptions."""
        keys = ("program", "command", "method", "metric", "early_terminate", "parameters")
        return {key: self.config[key] for key in keys if key in self.config}


def read_sweep_file(path: Path, compose: Compose | None) -> SweepFile:
    """Read and check a sweep file.

    Args:
        path: of the yaml.
        compose: for the commands of this package, whose parameters must exist in the composed configuration; None
            leaves that out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the message names the file, the key and the nearest key that there is.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such sweep file: {path}{_nearest(path.name, _names_beside(path))}")
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid yaml: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path}: expected a mapping with method and parameters, got {type(config).__name__}")
    sweep = SweepFile(path, config)
    for problem in _problems(sweep, compose):
        raise ValueError(f"{path}: {problem}")
    return sweep


class _UniqueKeys(yaml.SafeLoader):  # type: ignore[misc]
    """A loader that refuses a key that is given twice, where yaml would take the last one."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """The mapping, if each of its keys is there once."""
        keys = [key.value for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"key {twice[0]!r} is given twice", node.start_mark)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def _problems(sweep: SweepFile, compose: Compose | None) -> Iterator[str]:
    """What is wrong, the most basic first; each check may rely on those before it."""
    schema = _schema()
    yield from _unknown_keys(sweep.config, schema)
    yield from _unusable_parameters(sweep.config.get("parameters"))
    yield from _schema_violations(sweep.config)
    yield from _engine_limits(sweep.config)
    yield from _unusable_command(sweep)
    if compose is not None:
        yield from _uncomposable(sweep, compose)


def _unknown_keys(config: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    definitions = schema["definitions"]
    kinds = [item for name, item in definitions.items() if name.startswith("param_")]
    parameter_keys = {key for kind in kinds for key in kind.get("properties", ())}
    nodes: list[tuple[str, Any, Iterable[str]]] = [("", config, schema["properties"])]
    nodes.append(("metric.", config.get("metric"), schema["properties"]["metric"]["properties"]))
    nodes.append(("early_terminate.", config.get("early_terminate"), definitions["hyperband_stopping"]["properties"]))
    parameters = config.get("parameters")
    for name, node in parameters.items() if isinstance(parameters, dict) else ():
        nodes.append((f"parameters.{name}.", node, parameter_keys))
    for prefix, node, known in nodes:
        for key in node if isinstance(node, dict) else ():
            if key not in known:
                yield f"unknown key {prefix}{key}{_nearest(str(key), known)}; there are {sorted(known)}"


def _unusable_parameters(parameters: Any) -> Iterator[str]:
    """What W&B's schema allows, but a command line cannot say."""
    if parameters is not None and not isinstance(parameters, dict):
        yield f"parameters: expected a mapping of names, got {parameters!r}"
    for name, node in parameters.items() if isinstance(parameters, dict) else ():
        if not isinstance(node, dict):
            yield f"parameters.{name}: expected a mapping such as {{values: [..]}}, got {node!r}"
        elif "parameters" in node:
            inner = next(iter(node["parameters"] or {"key": None}))
            yield f"parameters.{name}: nested parameters are not supported; write {name}.{inner} as one dotted name"
        else:
            for value in _values(node):
                if value is None:
                    yield f'parameters.{name}: null would be passed on as the text None; write the string "null"'
                if not _is_plain(value):
                    yield f"parameters.{name}: expected numbers, texts or lists, got {value!r}; put it in quotes"
            for bound in ("min", "max", "mu", "sigma", "q"):
                if isinstance(node.get(bound), str):
                    yield f"parameters.{name}.{bound}: {node[bound]!r} is a text to yaml; write a number such as 1.0e-3"


def _schema_violations(config: dict[str, Any]) -> Iterator[str]:
    with loaded_at_first_use("scipy.stats"):
        import sweeps.params  # noqa: F401  which the check would load

    from sweeps.config import schema_violations_from_proposed_config

    parameters = config.get("parameters")
    for name, node in parameters.items() if isinstance(parameters, dict) else ():
        for violation in schema_violations_from_proposed_config({"method": "random", "parameters": {name: node}}):
            yield f"parameters.{name} is not W&B's: {violation}"
    for violation in schema_violations_from_proposed_config(config):
        yield f"not a W&B sweep: {violation}"


def _engine_limits(config: Mapping[str, Any]) -> Iterator[str]:
    """What the schema allows, but the engine refuses at its first or its hundredth trial."""
    if config["method"] not in ("grid", "random", "bayes"):
        yield f"method {config['method']} has no engine here; use grid, random or bayes"
    if "metric" not in config and (config["method"] == "bayes" or "early_terminate" in config):
        yield "method bayes and early_terminate need a metric; add metric: {name: val_pq, goal: maximize}"
    for name, node in config["parameters"].items() if config["method"] == "grid" else ():
        is_discrete = "value" in node or "values" in node or node.get("distribution") in ("int_uniform", "q_uniform")
        is_whole = "distribution" not in node and all(isinstance(node.get(bound), int) for bound in ("min", "max"))
        if "probabilities" in node or not (is_discrete or is_whole):
            yield f"parameters.{name}: method grid needs values, or whole min and max; got {node}"


def _unusable_command(sweep: SweepFile) -> Iterator[str]:
    used = macros_in(sweep.command)
    for macro in used:
        if macro not in MACROS:
            yield f"command: unknown macro ${{{macro}}}{_nearest(macro, MACROS)}; there are {sorted(MACROS)}"
    if "program" in used and not sweep.program:
        yield "command uses ${program}, but the file names no program; add program: panoptic"
    if not any(macro.startswith("args") for macro in used):
        yield "command passes no parameters on; add ${args_no_hyphens}"


def _uncomposable(sweep: SweepFile, compose: Compose) -> Iterator[str]:
    """For commands of this package: every parameter and every choice must exist in the composed configuration."""
    parameters = {name: list(_values(node)) for name, node in sweep.config["parameters"].items()}
    first = {name: (*parameters[name], node.get("min", 1))[0] for name, node in sweep.config["parameters"].items()}
    line = composition(command_line(sweep.command, sweep.program, first))
    if line is None:
        return
    for override in line.overrides:
        if override.startswith(("run=", "resume=", "--")):
            yield f"the command passes {override}; expected key=value, and no run= or resume=, which each trial gets"
            return

    def composed_with(values: Mapping[str, Any]) -> Any:
        line = composition(command_line(sweep.command, sweep.program, values))
        assert line is not None, "the same words but for values"
        return compose(line.command, line.overrides, line.config_dir)

    # an override of a loss weight adds any name, so that a wrong one would not be noticed
    others = {name: value for name, value in first.items() if not name.startswith(_WEIGHTS)}
    try:
        composed = composed_with(others)
        for name in others:
            for value in parameters[name][1:]:
                # another number changes nothing but its key; another choice of a group may not exist
                if _is_choice(composed, name) or not isinstance(value, (int, float)):
                    composed_with(others | {name: value})
    except (ValueError, FileNotFoundError) as error:
        yield str(error)
        return
    yield from _unknown_weights({name: parameters[name] for name in first if name not in others}, composed)


def _unknown_weights(weights: Mapping[str, Sequence[Any]], composed: Any) -> Iterator[str]:
    known = [f"{_WEIGHTS}{name}" for name in composed.get("loss_weights", {})]
    for name, values in weights.items():
        if name not in known:
            yield f"unknown parameter {name}{_nearest(name, known)}; if it is not listed, add {name}=1 to the command"
        for value in values:
            if isinstance(value, (bool, str, list)):
                yield f"parameters.{name}: expected numbers, got {value!r}"


def _is_choice(composed: Any, name: str) -> bool:
    node: Any = composed
    for part in name.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return True
        node = node[part]
    return isinstance(node, Mapping)


def _values(node: Mapping[str, Any]) -> Iterator[Any]:
    if "value" in node:
        yield node["value"]
    values = node.get("values")
    yield from values if isinstance(values, list) else ()


def _is_plain(value: Any) -> bool:
    """Survives JSON unchanged, and can be written as an override."""
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (str, int, float))


def _schema() -> Mapping[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydantic, about a setting that its second version has renamed
        from sweeps.config.schema import sweep_config_jsonschema
    schema: Mapping[str, Any] = sweep_config_jsonschema
    return schema


def _names_beside(path: Path) -> list[str]:
    return [other.name for other in path.parent.glob("*.yaml")] if path.parent.is_dir() else []


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""
