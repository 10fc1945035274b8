"""Profiles in `config.toml`, and how a setting gets its value."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..api.urls import BASE_URL, check_base_url, origin_of
from ..choices import FORMATS
from ..errors import BadUsage, NotFound, did_you_mean
from .atomic import LOCK_NAME, locked, write_private

# -- What a profile may hold: the name and type of each setting, and how it is typed.

# The names that people try for a key. It has no place in a file that is shown and shared.
_KEYLIKE = ("key", "api_key", "apikey", "token", "rebyte_api_key")


def _text(value: Any) -> Any:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text")
    return value


def _path(value: Any) -> Any:
    import os

    return os.path.expanduser(_text(value))


def _words(value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
        raise ValueError('must be a list of texts, as in ["a", "b"]')
    return value


def _argv(value: Any) -> Any:
    if not _words(value):
        raise ValueError('must name a program, as in ["pass", "show", "rebyte"]')
    return value


def _format(value: Any) -> Any:
    if value not in FORMATS:
        raise ValueError(f"must be one of {', '.join(FORMATS)}")
    return value


def _seconds(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number of seconds")
    if not math.isfinite(value) or not 0 < value <= 86400:
        raise ValueError("must be a number of seconds, above 0 and at most 86400")
    return float(value)


def _flag(value: Any) -> Any:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _url(value: Any) -> Any:
    return check_base_url(_text(value))


# Each takes what TOML gave and returns it usable, or raises ValueError saying what it must be.
# The value itself is never repeated: somebody may have put a key in the wrong place.
FIELDS: dict[str, Callable[[Any], Any]] = {
    "base_url": _url,
    "executor": _text,
    "model": _text,
    "skills": _words,
    "output": _format,
    "key_command": _argv,
    "ca_bundle": _path,
    "timeout": _seconds,
    "history": _flag,
}


def check_name(name: str) -> str:
    """The name of a setting, or BadUsage with the nearest and all known ones."""
    if name in FIELDS:
        return name
    if name.lower() in _KEYLIKE:
        raise BadUsage(
            "a key is not kept in config.toml",
            hint="`rebyte auth login` stores it in the keyring; key_command names a program",
        )
    hint = did_you_mean(name, FIELDS)
    known = f"settings: {', '.join(FIELDS)}"
    # A name is repeated when it can be one: a key that was typed in its place is not.
    plain = name.replace("_", "").isalpha() and not name.startswith("rbk")
    shown = f": {name}" if plain else ""
    raise BadUsage(f"no such setting{shown}", hint=f"{hint}\n{known}" if hint else known)


def parse(name: str, text: str) -> Any:
    """The value of `NAME=TEXT` as it is typed on a command line, ready for the file.

    Lists are separated by commas; `key_command` is split as a shell would split it; flags are
    true or false. Raises BadUsage, without repeating the text.
    """
    check_name(name)
    value: Any = text
    if name == "skills":
        value = [word.strip() for word in text.split(",") if word.strip()]
    elif name == "key_command":
        import shlex

        try:
            value = shlex.split(text)
        except ValueError:
            raise BadUsage("key_command has an open quote") from None
    elif name == "timeout":
        try:
            value = float(text)
            value = int(value) if value.is_integer() else value
        except (ValueError, OverflowError):
            raise BadUsage("timeout must be a number of seconds") from None
    elif name == "history":
        value = {"true": True, "yes": True, "on": True, "1": True}.get(text.lower())
        if text.lower() in ("false", "no", "off", "0"):
            value = False
    try:
        usable = FIELDS[name](value)
    except ValueError as problem:
        raise BadUsage(f"{name} {problem}") from None
    return usable if name == "base_url" else value


# -- Reading and rewriting TOML: errors that name the place and never repeat a value.


def read(raw: bytes, path: Path) -> tuple[str, dict[str, Any]]:
    """The text and the document of a TOML file.

    Raises BadUsage with the file's name, line and column. The parser's own words are kept
    without what they quote, which may be a key in the wrong place.
    """
    import tomllib

    try:
        # A byte order mark is what some editors on Windows leave in front.
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = raw[: problem.start].count(b"\n") + 1
        raise BadUsage(f"{path}, line {line}: not UTF-8 text") from None
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        said, _, place = str(problem).rpartition(" (at ")
        found = re.match(r"line (\d+), column (\d+)", place)
        where = f", line {found[1]}, column {found[2]}" if found else ""
        what = re.sub(r"(['\"]).*\1", "…", said) if found else "it ends too early"
        raise BadUsage(f"{path}{where}: not valid TOML: {what}") from None
    except RecursionError:
        raise BadUsage(f"{path}: not valid TOML: nested too deeply") from None
    except ValueError:  # Python refuses integers beyond 4,300 digits
        raise BadUsage(f"{path}: not valid TOML: a number that cannot be read") from None


def line_of(text: str, keys: Sequence[str]) -> int | None:
    """The line (from 1) where a dotted key is written in the usual way, or None.

    The parser does not keep positions, so this looks for the table's head and for `key =` under
    it; inline tables and dotted keys are not found.
    """
    *table, last = keys
    here = ""
    for number, line in enumerate(text.splitlines(), 1):
        head = re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line)
        if head:
            here = head[1].replace('"', "").replace("'", "")
            if here == ".".join(keys):
                return number
        elif here == ".".join(table) and re.match(rf"\s*[\"']?{re.escape(last)}[\"']?\s*=", line):
            return number
    return None


def has_comments(text: str) -> bool:
    """Whether a valid TOML text holds a comment: a `#` outside of its strings."""
    strings = r'"""(?:[^\\]|\\.)*?"""|\'\'\'.*?\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\''
    return "#" in re.sub(strings, "", text, flags=re.DOTALL)


@contextmanager
def edit(path: Path, *, note: Callable[[str], None] | None = None) -> Iterator[dict[str, Any]]:
    """Change a TOML file: the block gets its document and changes it in place.

    Under a lock beside the file the file is read again, so that two writers lose nothing; it is
    replaced in one step, mode 0600. Nothing is written when nothing changed or the block
    raised. `note` is told, before the file is replaced, when comments will be lost.
    """
    import copy

    with locked(path.parent / LOCK_NAME):
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            raw = b""
        except OSError as problem:
            raise BadUsage(f"cannot read {path}: {problem.strerror}") from None
        text, document = read(raw, path)
        before = copy.deepcopy(document)
        yield document
        if document == before:
            return
        import tomli_w

        if note is not None and has_comments(text):
            note(f"the comments in {path} are lost: the file is rewritten")
        write_private(path, tomli_w.dumps(document).encode())


LOCAL = "local"
# What `[profiles.local]` may say. It has no address and no key of the user's.
LOCAL_FIELDS = frozenset({"executor", "history", "model", "output", "skills", "timeout"})
DEFAULT = "default"

_OPTIONS = {"profile": "-P", "output": "-o", "executor": "-x", "model": "-m", "skills": "-s"}
_VARIABLES = {"output": "REBYTE_OUTPUT", "timeout": "REBYTE_REQUEST_TIMEOUT"}


class Setting(NamedTuple):
    """A value and, for people, where it came from: `option -o`, `REBYTE_OUTPUT`, `profile work`."""

    value: Any
    source: str


class Config:
    """What `config.toml` says. Unknown keys stay in `document` and are otherwise left alone."""

    def __init__(self, document: Mapping[str, Any], *, path: Path, text: str = "") -> None:
        self.document = dict(document)
        self.path = path
        self._text = text
        self.profiles: dict[str, dict[str, Any]] = self._checked("profiles", dict, {})
        for name, table in self.profiles.items():
            if not isinstance(table, dict):
                raise self.problem("must be a table", "profiles", name)
        if not set(self.profiles.get(LOCAL, {})) <= LOCAL_FIELDS:
            takes = ", ".join(sorted(LOCAL_FIELDS))
            raise self.problem(f"is built in and takes only {takes}", "profiles", LOCAL)
        self.default_profile: str = self._checked("default_profile", str, DEFAULT) or DEFAULT
        self.history: bool = self._checked("history", bool, True)

    @classmethod
    def load(cls, path: Path) -> Config:
        """Read the file; one that does not exist is an empty one.

        Raises BadUsage with the file's name and the place when it cannot be read, is not TOML
        or has a value of the wrong type.
        """
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return cls({}, path=path)
        except OSError as problem:
            raise BadUsage(f"cannot read {path}: {problem.strerror}") from None

        text, document = read(raw, path)
        return cls(document, path=path, text=text)

    def names(self) -> list[str]:
        """Every profile there is: the default and `local` always are."""
        return [*sorted({*self.profiles, DEFAULT}), LOCAL]

    def profile(self, name: str) -> dict[str, Any]:
        """The table of a profile; NotFound with the nearest and all known names otherwise."""
        if name in self.profiles:
            return self.profiles[name]
        if name in (LOCAL, DEFAULT):
            return {}
        known = f"profiles: {', '.join(self.names())}"
        hint = did_you_mean(name, self.names())
        raise NotFound(f"no profile {name!r}", hint=f"{hint}\n{known}" if hint else known)

    def value(self, profile: str, name: str) -> Any:
        """A setting of a profile, checked and usable; None when the profile does not have it."""
        found = self.profile(profile).get(name)
        if found is None:
            return None
        try:
            return FIELDS[name](found)
        except BadUsage as problem:
            raise self.problem(problem.message, "profiles", profile, name) from None
        except ValueError as problem:
            raise self.problem(str(problem), "profiles", profile, name) from None

    def problem(self, what: str, *keys: str) -> BadUsage:
        """An error that names the file, the line where it can be told, and the key."""

        line = line_of(self._text, keys)
        place = f"{self.path}, line {line}" if line else str(self.path)
        name = ".".join(key if key.isprintable() else repr(key) for key in keys)
        return BadUsage(f"{place}: {name}: {what}")

    def _checked(self, name: str, kind: type, otherwise: Any) -> Any:
        found = self.document.get(name, otherwise)
        if not isinstance(found, kind):
            wanted = {dict: "a table", str: "text", bool: "true or false"}[kind]
            raise self.problem(f"must be {wanted}", name)
        return found


class Settings(NamedTuple):
    """Everything one command needs to know, each value with its source.

    `profile` is its name; `named` says whether somebody asked for it by name (`-P`,
    `REBYTE_PROFILE`) rather than getting the default. `base_url` is None for `local`, whose
    service says itself where it listens. `timeout` is in seconds or None for the transport's own.
    `own_origin` is the origin of the profile's own base URL: what its `key_command` is for.
    `unnamed_url` is the base URL that a command without a profile's name would use: what
    `REBYTE_API_KEY` is for. It is checked only by whoever uses it.
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
    own_origin: str
    unnamed_url: str

    @property
    def is_local(self) -> bool:
        """Whether this is the service on this machine."""
        return self.profile == LOCAL

    @property
    def origin(self) -> str:
        """`https://host[:port]` of the base URL, or `local`."""
        return LOCAL if self.is_local else origin_of(self.base_url.value)

    def shown(self) -> Iterator[tuple[str, Setting]]:
        """The settings that `profile show` prints, in order."""
        for name in FIELDS:
            yield name, getattr(self, name)


def resolve(options: Mapping[str, Any], environment: Mapping[str, str], config: Config) -> Settings:
    """What holds for one command. Pure: reads no file and no clock.

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
      1. for `local`: none, its service listens where it listens;
      2. for a profile that was named: its own `base_url`, else the built-in one.
         `REBYTE_API_URL` is not looked at, so that `-P staging` cannot act on another account;
      3. with none named: `REBYTE_API_URL`, else as in 2.

    Which key goes with it is decided in credentials.py. Empty variables count as unset.
    Raises NotFound for an unknown profile, BadUsage for a value that cannot be used.
    """
    name, source, named = _profile(options, environment, config)
    config.profile(name)

    def setting(key: str, otherwise: Any = None) -> Setting:
        given = options.get(key)
        if given not in (None, (), []):
            return Setting(given, f"option {_OPTIONS.get(key, '--' + key.replace('_', '-'))}")
        variable = _VARIABLES.get(key, "")
        if environment.get(variable):
            return Setting(_from_variable(key, variable, environment[variable]), variable)
        found = config.value(name, key)
        if found is not None:
            return Setting(found, f"profile {name}")
        return Setting(otherwise, "default")

    own_url = Setting(BASE_URL, "default")
    base_url = Setting(None, "built in")
    if name != LOCAL:
        found = config.value(name, "base_url")
        if found is not None:
            own_url = Setting(found, f"profile {name}")
        base_url = own_url
        if not named and environment.get("REBYTE_API_URL"):
            base_url = _url_from_environment(environment)
    history = setting("history", config.history)
    if history.source == "default" and "history" in config.document:
        history = Setting(config.history, config.path.name)
    return Settings(
        profile=name,
        profile_source=source,
        named=named,
        base_url=base_url,
        output=setting("output", "auto"),
        executor=setting("executor"),
        model=setting("model"),
        skills=setting("skills", []),
        timeout=setting("timeout"),
        ca_bundle=setting("ca_bundle"),
        history=history,
        key_command=setting("key_command"),
        own_origin=LOCAL if name == LOCAL else origin_of(own_url.value),
        unnamed_url=environment.get("REBYTE_API_URL") or _default_url(config),
    )


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


def _default_url(config: Config) -> str:
    """The base URL of the default profile, as the file has it."""
    found = config.profiles.get(config.default_profile, {}).get("base_url")
    return found if isinstance(found, str) and found else BASE_URL


def _from_variable(key: str, variable: str, text: str) -> Any:
    value: Any = text
    if key == "timeout":
        try:
            value = float(text)
        except ValueError:
            value = text
    try:
        return FIELDS[key](value)
    except ValueError as problem:
        raise BadUsage(f"{variable} {problem}") from None


def _url_from_environment(environment: Mapping[str, str]) -> Setting:
    try:
        return Setting(check_base_url(environment["REBYTE_API_URL"]), "REBYTE_API_URL")
    except BadUsage as problem:
        raise BadUsage(f"REBYTE_API_URL: {problem.message}", hint=problem.hint) from None


# -- Where files live. The only place that knows.


def config_dir(environment: Mapping[str, str]) -> Path:
    """The folder of `config.toml` and `credentials.json`; it may not exist.

    `REBYTE_CONFIG_DIR`, or the platform's own: `$XDG_CONFIG_HOME/rebyte` or `~/.config/rebyte`
    on Linux, `~/Library/Application Support/rebyte` on macOS, `%APPDATA%\\rebyte` on Windows.
    """
    return _folder(environment, "REBYTE_CONFIG_DIR", "XDG_CONFIG_HOME", ".config", "APPDATA")


def state_dir(environment: Mapping[str, str]) -> Path:
    """The folder of the history and of the local service; it may not exist.

    `REBYTE_STATE_DIR`, or the platform's own: `$XDG_STATE_HOME/rebyte` or `~/.local/state/rebyte`
    on Linux, `~/Library/Application Support/rebyte/state` on macOS, `%LOCALAPPDATA%\\rebyte` on
    Windows.
    """
    return _folder(
        environment, "REBYTE_STATE_DIR", "XDG_STATE_HOME", ".local/state", "LOCALAPPDATA"
    )


def _folder(
    environment: Mapping[str, str], own: str, xdg: str, under_home: str, windows: str
) -> Path:
    named = environment.get(own)
    if named:
        # Absolute at once: a later chdir must not move the files.
        return Path(os.path.abspath(_expand(named, environment)))
    if sys.platform == "win32":
        base = environment.get(windows)
        subfolder = "Roaming" if windows == "APPDATA" else "Local"
        return (Path(base) if base else _home(environment) / "AppData" / subfolder) / "rebyte"
    if sys.platform == "darwin":
        support = _home(environment) / "Library" / "Application Support" / "rebyte"
        return support / "state" if xdg == "XDG_STATE_HOME" else support
    base = environment.get(xdg)
    # The XDG specification says that a relative path there is to be ignored.
    if base and os.path.isabs(base):
        return Path(base) / "rebyte"
    return _home(environment) / under_home / "rebyte"


def _home(environment: Mapping[str, str]) -> Path:
    home = environment.get("HOME") or os.path.expanduser("~")
    if not os.path.isabs(home):
        raise BadUsage(
            "there is no home folder to keep files in",
            hint="set HOME, or REBYTE_CONFIG_DIR and REBYTE_STATE_DIR",
        )
    return Path(home)


def _expand(path: str, environment: Mapping[str, str]) -> str:
    if path == "~" or path.startswith("~/"):
        return str(_home(environment)) + path[1:]
    return path
