"""Profiles in `config.toml`, and how a setting gets its value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from .. import __version__
from ..api.urls import BASE_URL, check_base_url, origin_of
from ..errors import BadUsage, Next, NotFound, did_you_mean, lines
from .fields import FIELDS, KEY_NAMES, KEY_PLACES, LOCAL, LOCAL_FIELDS, NO_KEYS, PRICES
from .json_schema import UnknownName, unknown_names
from .toml import line_of, read_toml

DEFAULT = "default"
HIGHEST_PRICE = 1e6  # dollars per million tokens: whatever is counted costs a finite number

_OPTIONS = {"profile": "-P", "output": "-o", "executor": "-x", "model": "-m", "skills": "-s"}
_DEFAULTS = {"output": "auto", "skills": [], "env_key": False, "remote_command": ["rebyte"]}
_VARIABLES = {"output": "REBYTE_OUTPUT", "timeout": "REBYTE_REQUEST_TIMEOUT"}


class Setting(NamedTuple):
    """A value and where it came from, for people: `option -o`, `REBYTE_OUTPUT`, `profile work`."""

    value: Any
    source: str


class Config:
    """What `config.toml` says."""

    def __init__(self, document: Mapping[str, Any], *, path: Path, text: str = "") -> None:
        self.document = dict(document)
        self.path = path
        self._text = text
        self.profiles: dict[str, dict[str, Any]] = self._checked("profiles", dict, {})
        for name, table in self.profiles.items():
            if not isinstance(table, dict):
                raise self.problem("must be a table", "profiles", name)
        self.default_profile: str = self._checked("default_profile", str, DEFAULT) or DEFAULT
        self.history: bool = self._checked("history", bool, True)

    @classmethod
    def load(cls, path: Path) -> Config:
        """Read the file; one that does not exist is an empty one.

        Raises BadUsage with the file's name and the place when it cannot be read, is not TOML,
        has a value of the wrong type, or can be changed by other users.
        """
        text, document = read_toml(path)
        return cls(document, path=path, text=text)

    @property
    def unknown(self) -> BadUsage | None:
        """An error that names every key that means nothing here, with its line; None without one.

        A setting that is skipped because it is misspelled would send a task to another service.
        """
        reasons, hints = [], []
        for name in unknown_names(self.document):
            what, hint = _explained(name)
            reasons.append(f"{self._line(name.keys)}: {what}")
            hints.append(hint)
        if not reasons:
            return None
        more = "".join(f";{reason[1:]}" for reason in reasons[1:])
        return BadUsage(f"{self.path}{reasons[0]}{more}", hint=lines(*hints))

    def prices(self) -> dict[str, tuple[float, float, float]]:
        """What models cost, by name: dollars per million tokens read, read from a cache, written.

        Raises BadUsage for a price that is none, or for a model without one for both directions.
        """
        found = {}
        for model, table in self._checked("prices", dict, {}).items():
            if not isinstance(table, dict):
                raise self.problem("must be a table", "prices", model)
            for name in PRICES:
                price = table.get(name, 0)
                is_number = isinstance(price, int | float) and not isinstance(price, bool)
                if not is_number or not 0 <= price <= HIGHEST_PRICE:
                    what = "must be a number of dollars per million tokens, from 0 to a million"
                    raise self.problem(what, "prices", model, name)
            if missing := [name for name in ("input", "output") if name not in table]:
                raise self.problem(f"needs {' and '.join(missing)}", "prices", model)
            read, written = float(table["input"]), float(table["output"])
            found[str(model)] = (read, float(table.get("cached", read)), written)
        return found

    def names(self) -> list[str]:
        """Every profile, `default` and `local` included, which always exist."""
        return [*sorted({*self.profiles, DEFAULT}), LOCAL]

    def local_agents(self) -> list[str]:
        """Names of the agents that `[local.agents]` defines; the local service checks them."""
        local = self.document.get("local")
        agents = local.get("agents") if isinstance(local, dict) else None
        return list(map(str, agents)) if isinstance(agents, dict) else []

    def profile(self, name: str) -> dict[str, Any]:
        """The table of a profile; NotFound with the nearest and all known names otherwise."""
        if name in self.profiles:
            return self.profiles[name]
        if name in (LOCAL, DEFAULT):
            return {}
        near = did_you_mean(name, self.names())
        known = f"The profiles are {', '.join(self.names())}"
        hint = (
            f"{near}\n{known}"
            if near
            else f"{known}; " + Next("profile", "create", "NAME") + " adds one"
        )
        raise NotFound(f"no such profile: {_shown(name)}", hint=hint)

    def value(self, profile: str, name: str) -> Any:
        """A setting of a profile, checked and usable; None when the profile does not have it."""
        found = self.profile(profile).get(name)
        if found is None:
            return None
        try:
            return FIELDS[name](found)
        except (BadUsage, ValueError) as problem:
            raise self.problem(str(problem), "profiles", profile, name) from None

    def problem(self, what: str, *keys: str) -> BadUsage:
        """An error that names the file, the line where it can be told, and the key."""
        return BadUsage(f"{self.place(keys)}: {what}")

    def place(self, keys: Sequence[str]) -> str:
        """The file, the line where it can be told, and the key."""
        return f"{self.path}{self._line(keys)}"

    def _line(self, keys: Sequence[str]) -> str:
        line = line_of(self._text, keys)
        return (f", line {line}: " if line else ": ") + ".".join(map(_shown, keys))

    def _checked(self, name: str, kind: type, otherwise: Any) -> Any:
        found = self.document.get(name, otherwise)
        if not isinstance(found, kind):
            wanted = {dict: "a table", str: "text", bool: "true or false"}[kind]
            raise self.problem(f"must be {wanted}", name)
        return found


class Settings(NamedTuple):
    """Everything one command needs to know, each value with its source.

    `profile` is its name; `named` says whether it was asked for by name (`-P`, `REBYTE_PROFILE`)
    rather than being the default. `base_url` is None for `local`, whose service says itself where
    it listens, and for a profile with `ssh`. `timeout` is in seconds, or None for the transport's
    own. `own_origin` is the origin of the profile's own base URL: what its `key_command` is for.
    `variable_url` is what `REBYTE_API_KEY` is for unless `env_key` is true: `REBYTE_API_URL`, else
    the built-in base URL. It is checked only where it is used.
    """

    profile: str
    profile_source: str
    named: bool
    base_url: Setting
    output: Setting
    executor: Setting
    model: Setting
    skills: Setting
    timeout: Setting
    ca_bundle: Setting
    history: Setting
    key_command: Setting
    env_key: Setting
    ssh: Setting
    remote_command: Setting
    own_origin: str
    variable_url: str

    @property
    def is_local(self) -> bool:
        """Whether this is the service on this machine."""
        return self.profile == LOCAL

    @property
    def is_own_service(self) -> bool:
        """Whether it is the service that rebyte carries: on this machine, or over ssh."""
        return self.is_local or self.ssh.value is not None

    @property
    def origin(self) -> str:
        """`https://host[:port]` of the base URL, `ssh://target`, or `local`."""
        if self.ssh.value is not None:
            return f"ssh://{self.ssh.value}"
        return LOCAL if self.is_local else origin_of(self.base_url.value)


def resolve(options: Mapping[str, Any], environment: Mapping[str, str], config: Config) -> Settings:
    """The settings of one command. Pure: reads no file and no clock.

    The profile is the one of
      1. `-P`,
      2. `REBYTE_PROFILE`,
      3. `default_profile` of the file, `default` otherwise.

    A setting comes from
      1. the option,
      2. its variable (`REBYTE_OUTPUT`, `REBYTE_REQUEST_TIMEOUT`),
      3. the profile,
      4. the top level of the file (`history` alone),
      5. the built-in default.

    The base URL is
      1. for `local`, and a profile with `ssh`: none, the service says where it is;
      2. for a profile that was named: its own `base_url`, else the built-in one.
         `REBYTE_API_URL` is ignored, so that `-P staging` cannot act on another account;
      3. with none named: `REBYTE_API_URL`, else as in 2.

    Which key goes with it is decided in credentials.py. Empty variables count as unset.
    Raises NotFound for an unknown profile, BadUsage for a value that cannot be used.
    """
    name, source, named = _profile(options, environment, config)
    try:
        config.profile(name)
    except NotFound as error:
        if source == "option -P":
            raise
        place = config.place(["default_profile"]) if source == config.path.name else source
        raise error.copy_with(message=f"{place}: {error.message}") from None

    def setting(key: str, otherwise: Any = None) -> Setting:
        given = options.get(key)
        if given not in (None, (), []):
            return Setting(given, f"option {_OPTIONS.get(key, '--' + key.replace('_', '-'))}")
        in_variable = from_variable(key, environment)
        if in_variable is not None:
            return Setting(in_variable, _VARIABLES[key])
        found = config.value(name, key)
        if found is not None:
            return Setting(found, f"profile {name}")
        return Setting(otherwise, "default")

    own_url, base_url = _base_urls(name, named, environment, config)
    defaults = {**_DEFAULTS, "history": config.history}
    found = {key: setting(key, defaults.get(key)) for key in FIELDS if key != "base_url"}
    if base_url.source == "REBYTE_API_URL":
        found["ssh"] = Setting(None, base_url.source)
    if found["history"].source == "default" and "history" in config.document:
        found["history"] = Setting(config.history, config.path.name)
    return Settings(
        profile=name,
        profile_source=source,
        named=named,
        base_url=base_url,
        own_origin=LOCAL if name == LOCAL else origin_of(own_url.value),
        variable_url=environment.get("REBYTE_API_URL") or BASE_URL,
        **found,
    )


def _base_urls(
    name: str, named: bool, environment: Mapping[str, str], config: Config
) -> tuple[Setting, Setting]:
    """The base URL of the profile itself, and the one to use (None for `local`)."""
    if name == LOCAL:
        return Setting(BASE_URL, "default"), Setting(None, "built in")
    found = config.value(name, "base_url")
    own = Setting(BASE_URL, "default") if found is None else Setting(found, f"profile {name}")
    if not named and environment.get("REBYTE_API_URL"):
        try:
            return own, Setting(check_base_url(environment["REBYTE_API_URL"]), "REBYTE_API_URL")
        except BadUsage as problem:
            raise BadUsage(f"REBYTE_API_URL: {problem.message}", hint=problem.hint) from None
    if config.value(name, "ssh") is not None:
        if found is not None:
            raise config.problem("cannot be set together with base_url", "profiles", name, "ssh")
        return own, Setting(None, f"profile {name}")
    return own, own


def _profile(
    options: Mapping[str, Any], environment: Mapping[str, str], config: Config
) -> tuple[str, str, bool]:
    if options.get("profile"):
        return str(options["profile"]), "option -P", True
    if environment.get("REBYTE_PROFILE"):
        return environment["REBYTE_PROFILE"], "REBYTE_PROFILE", True
    if "default_profile" in config.document:
        return config.default_profile, config.path.name, False
    return DEFAULT, "default", False


def from_variable(key: str, environment: Mapping[str, str]) -> Any:
    """The value of a setting from its variable; None without one. Raises BadUsage for a bad one."""
    variable = _VARIABLES.get(key, "")
    value: Any = environment.get(variable)
    if not value:
        return None
    if key == "timeout":
        with suppress(ValueError):
            value = float(value)
    try:
        return FIELDS[key](value)
    except ValueError as problem:
        raise BadUsage(f"{variable} {problem}") from None


def _explained(name: UnknownName) -> tuple[str, str]:
    """Why a name is refused, and what to do about it."""
    *tables, last = name.keys
    what = "no such table" if name.is_table else "no such setting"
    if last.lower() in KEY_NAMES:
        what, hint = NO_KEYS, KEY_PLACES
    elif tables == ["profiles", LOCAL] and last in FIELDS:
        what = f"the profile {LOCAL} is built in"
        hint = f"It takes only {', '.join(sorted(LOCAL_FIELDS))}"
    else:
        near = did_you_mean(last, name.known)
        newer = f"This is rebyte {__version__}; a newer version may know it"
        known = f"{newer}. Known here: {', '.join(name.known)}"
        hint = "\n".join([*filter(None, [near]), *([known] if name.is_table or not near else [])])
    if tables[:1] == ["profiles"]:
        from shlex import quote

        hint += (
            "\n" + Next("profile", "unset", f"{quote(tables[1])}", f"{quote(last)}") + " removes it"
        )
    return what, hint


def _shown(name: str) -> str:
    """A name from the file for an error, which is one line whatever the name holds."""
    return name if name.isprintable() else repr(name)
