"""`[local]` of config.toml: how many agents run at once, how long, in which jail, and which.

The service reads the file by itself: it shares no code with the client, not even this.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...system.budgets import parse_budget
from ...system.durations import parse_duration
from ..gateway.allowed_hosts import is_entry
from .adapters.adapter import Adapter
from .adapters.built_in import BUILT_IN
from .adapters.model_access import VENDORS
from .adapters.program import ProgramAdapter
from .cluster import launcher
from .limits import usage_limit
from .sandbox import egress, user_tools

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
MODEL_SETTINGS = ("model", "key_env", "base_url_env")
AGENT_SETTINGS = ("command", "env", "read", *MODEL_SETTINGS)
DESCRIBED = ("command", "extra_variables", "extra_paths", "own_model")  # of an adapter
SIZES = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class ConfigError(ValueError):
    """`config.toml` says something that cannot be meant."""


class LocalConfig(NamedTuple):
    """The settings of `[local]`; `limit` and `stall` in seconds, 0 for none.

    `keep_free` are the bytes of the disk that an agent must leave free, `network` is one of
    `egress.NETWORKS`, and `allow` has hosts. `budget_per_day` has the `tokens` or the dollars
    (`cost`) that all runs of a day may use; it is empty for any amount. `on_limit` is what a run
    does at a usage limit: `wait`, `stop`, or the name of the agent that continues. `launcher` is a
    command that starts runs elsewhere, and `launcher_stop` one that ends them: see launcher.py.
    """

    parallel: int
    limit: float
    stall: float
    keep_free: int
    jail: bool
    network: str
    allow: tuple[str, ...]
    tools: tuple[str, ...]
    caches: tuple[str, ...]
    budget_per_day: Mapping[str, Any]
    on_limit: str
    launcher: tuple[str, ...]
    launcher_stop: tuple[str, ...]
    agents: dict[str, Adapter]


def load(config_file: Path | None, state_dir: Path | None = None) -> LocalConfig:
    """Read `[local]` of `config_file`; defaults when there is no file or no such table.

    Raises ConfigError for a value that cannot be used, a name that is not known, and a folder that
    must not be shown, such as one with that file or `state_dir` in it.
    """
    table = _table(config_file)
    _check_names(table, LocalConfig._fields, "[local]")
    parallel = table.get("parallel", 2)
    if type(parallel) is not int or not 1 <= parallel <= 64:
        raise ConfigError("[local] parallel must be a number from 1 to 64")
    jail = table.get("jail", "on")
    if jail not in ("on", "off"):
        raise ConfigError('[local] jail must be "on" or "off"')
    return LocalConfig(
        parallel,
        _seconds(table, "limit", "1h"),
        _seconds(table, "stall", "15m"),
        _keep_free(table),
        jail == "on",
        _choice(table, "network", egress.NETWORKS, "[local]") or egress.LIST,
        _hosts(table),
        _folders(table, "tools", config_file, state_dir),
        _folders(table, "caches", config_file, state_dir),
        _budget_per_day(table),
        _on_limit(table),
        *_launcher(table),
        _agents(table.get("agents", {})),
    )


def keep_free(config_file: Path | None) -> int:
    """`keep_free` in bytes; the default where the settings cannot be read."""
    try:
        return _keep_free(_table(config_file))
    except ConfigError:
        return _keep_free({})


def prices(config_file: Path | None) -> dict[str, list[float]]:
    """What models cost by `[prices]`: dollars per million tokens read, read from a cache and
    written.

    The command has checked the table. Raises ConfigError for one that no price can be read from.
    """
    table = _document(config_file).get("prices", {})
    found = {}
    for model, price in table.items() if isinstance(table, dict) else ():
        price = price if isinstance(price, dict) else {}
        given = [price.get("input"), price.get("cached", price.get("input")), price.get("output")]
        known = [float(each) for each in given if isinstance(each, int | float) and each >= 0]
        if len(known) < len(given):
            what = "needs input and output, in dollars per million tokens"
            raise ConfigError(f"[prices.{model}] {what}")
        found[model] = known
    return found


def _document(config_file: Path | None) -> Mapping[str, Any]:
    if config_file is None:
        return {}
    import tomllib

    try:
        return tomllib.loads(config_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{config_file} cannot be read: {error}") from None


def _table(config_file: Path | None) -> Mapping[str, Any]:
    table = _document(config_file).get("local", {})
    if not isinstance(table, dict):
        raise ConfigError("[local] must be a table")
    return table


def _on_limit(table: Mapping[str, Any]) -> str:
    value = table.get("on_limit", usage_limit.WAIT)
    if not isinstance(value, str) or not value:
        raise ConfigError('[local] on_limit must be "wait", "stop" or the name of an agent')
    return value


def _launcher(table: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The commands that start and end runs elsewhere; empty without one."""
    start, stop = (_strings(table, name, "[local]") for name in ("launcher", "launcher_stop"))
    for name, words, other in (("launcher", start, stop), ("launcher_stop", stop, start)):
        if name in table and not words:
            raise ConfigError(f"[local] {name} must name a program")
        if unknown := launcher.unknown_placeholder(words):
            known = " and ".join(f"{{{each}}}" for each in launcher.PLACEHOLDERS)
            raise ConfigError(f"[local] {name}: {{{unknown}}} means nothing; there are {known}")
        if other and not words:
            missing = "the command that ends" if name == "launcher_stop" else "the one that starts"
            raise ConfigError(f"[local] {name} is missing: {missing} what runs elsewhere")
    return start, stop


def _budget_per_day(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """An amount such as `5usd`, `300ktok` or `2Mtok`; empty without one."""
    value = table.get("budget_per_day")
    if value is None:
        return {}
    found = parse_budget(value) if isinstance(value, str) else None
    if found is None:
        what = 'must be an amount such as "5usd", "300ktok" or "2Mtok"'
        raise ConfigError(f"[local] budget_per_day {what}")
    return found


def _check_names(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for name in table:
        if name not in known:
            raise ConfigError(f"{where} {name}: no such setting; it takes {', '.join(known)}")


def _seconds(table: Mapping[str, Any], name: str, default: str) -> float:
    """A duration such as `90s`, `15m` or `1h`, or a number of seconds."""
    value = table.get(name, default)
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    seconds = parse_duration(value) if isinstance(value, str) else None
    if seconds is None:
        raise ConfigError(f'[local] {name} must be a duration such as "90s", "15m" or "1h"')
    return seconds


def _keep_free(table: Mapping[str, Any]) -> int:
    """A size such as `500M` or `2G` (powers of 1000), or a number of bytes."""
    value = table.get("keep_free", "500M")
    if type(value) is int and value >= 0:
        return value
    found = re.fullmatch(r"(\d{1,9})\s*([kMGT])B?", value) if type(value) is str else None
    if found is None:
        raise ConfigError('[local] keep_free must be a size such as "500M" or "2G"')
    return int(found[1]) * SIZES[found[2]]


def _choice(table: Mapping[str, Any], name: str, choices: Sequence[str], where: str) -> str | None:
    """One of the choices; None when the setting is missing."""
    value = table.get(name)
    if value is not None and value not in choices:
        raise ConfigError(f"{where} {name} must be one of {', '.join(choices)}")
    return value


def _hosts(table: Mapping[str, Any]) -> tuple[str, ...]:
    hosts = _strings(table, "allow", "[local]")
    for host in hosts:
        if not is_entry(host):
            raise ConfigError(f"[local] allow: {host!r} is not a host such as pypi.org")
    return hosts


def _folders(
    table: Mapping[str, Any], name: str, config_file: Path | None, state_dir: Path | None
) -> tuple[str, ...]:
    paths = _strings(table, name, "[local]")
    own = user_tools.own_folders(config_file and config_file.parent, state_dir)
    for path in paths:
        if problem := user_tools.why_not(path, own):
            raise ConfigError(f"[local] {name}: {path} cannot be shown to agents: {problem}")
    return paths


def _agents(tables: object) -> dict[str, Adapter]:
    if not isinstance(tables, dict):
        raise ConfigError("[local.agents] must be a table")
    built_in = {kind.name: kind for kind in BUILT_IN}
    agents: dict[str, Adapter] = {name: kind() for name, kind in built_in.items()}
    for name, table in tables.items():
        where = f"[local.agents.{name}]"
        if not NAME.fullmatch(name):
            raise ConfigError(f"{where}: a name has letters, digits, `.`, `_` and `-`")
        if not isinstance(table, dict):
            raise ConfigError(f"{where} must be a table")
        _check_names(table, AGENT_SETTINGS, where)
        command = table.get("command", [])
        words = tuple([command] if isinstance(command, str) else _strings(table, "command", where))
        more = {
            "extra_variables": _strings(table, "env", where),
            "extra_paths": _strings(table, "read", where),
        }
        own = [key for key in MODEL_SETTINGS if key in table]
        if name in built_in and own:
            raise ConfigError(f"{where} {own[0]}: {name} has its own model settings")
        if name in built_in:
            agents[name] = built_in[name](command=words, **more)
        elif not words or not words[0]:
            raise ConfigError(f'{where} needs command = ["PROGRAM", "ARGUMENT", …]')
        else:
            wire = _choice(table, "model", tuple(VENDORS), where)
            names = tuple(_variable(table, key, where) for key in MODEL_SETTINGS[1:])
            if any(names) and not wire:
                raise ConfigError(f"{where} {own[0]} needs model = {' | '.join(VENDORS)}")
            more["own_model"] = (wire, *names) if wire else ()
            agents[name] = ProgramAdapter(words, label=name, **more)
    return agents


def _variable(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str) or (key in table and not VARIABLE.fullmatch(value)):
        raise ConfigError(f"{where} {key} must be the name of a variable")
    return value


def _strings(table: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ConfigError(f"{where} {key} must be a list of strings")
    return tuple(value)


def secret_variables(adapter: Adapter, user_home: Path) -> set[str]:
    """The names of variables that may hold keys, of this agent and of all built-in ones."""
    found = set(adapter.extra_variables)
    for each in (adapter, *(kind() for kind in BUILT_IN)):
        found |= {*each.key_variables, *each.private_variables, *each.keys_named_by(user_home)}
    return found


def describe(adapter: Adapter) -> dict[str, Any]:
    """An adapter as JSON, for the supervisor."""
    return {"name": adapter.title} | {name: getattr(adapter, name) for name in DESCRIBED}


def adapter_of(described: Mapping[str, Any]) -> Adapter:
    """The adapter that `describe` described."""
    more = {name: tuple(described.get(name, ())) for name in DESCRIBED}
    for kind in BUILT_IN:
        if kind.name == described["name"]:
            return kind(**more)
    return ProgramAdapter(label=described["name"], **more)
