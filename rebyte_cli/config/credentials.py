"""The one door to keys: environment, command, keyring, file.

A key belongs to the origin (scheme, host, port) that it was stored for. Only the key of the
settings' own origin comes out of here, so a base URL that moved takes no key along.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..api.urls import check_base_url, check_key, origin_of
from ..errors import KEYS_PAGE, BadUsage, KeyProblem, MissingKey
from .atomic import LOCK_NAME, locked, write_private
from .keyring_store import call_with_timeout
from .settings import Settings, config_dir

if TYPE_CHECKING:
    from .keyring_store import (
        KeyringStore,  # the keyring's; a key from the environment needs none of it
    )


# -- A program of the user's that prints the key.

SECONDS = 30.0
_MOST = 65536


def run(argv: Sequence[str], *, interactive: bool, seconds: float = SECONDS) -> str:
    """The first line of what the program prints on stdout. No shell is involved.

    Somebody at a terminal sees what it says on stderr and can answer it; otherwise it has no
    stdin and its last words go into the error. What it printed on stdout is never shown.
    Raises KeyProblem when it cannot be started, fails, prints nothing or takes too long.
    """
    import subprocess

    name = argv[0]
    theirs = None if interactive else subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=None if interactive else subprocess.PIPE,
        )
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or "a bad argument"
        raise KeyProblem(f"key_command: cannot run {name}: {reason}") from None

    def listen() -> tuple[bytes, bytes]:
        assert process.stdout is not None
        # Bounded: a program that never stops printing must not fill the memory.
        printed = process.stdout.read(_MOST)
        if len(printed) == _MOST:
            process.kill()
        said = process.stderr.read(_MOST) if process.stderr is not None else b""
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        return printed, said

    try:
        printed, said = call_with_timeout(seconds, listen)
    except TimeoutError:
        raise KeyProblem(f"key_command: {name} did not end within {seconds:g} s") from None
    finally:
        process.kill()
    if process.returncode != 0:
        raise KeyProblem(
            f"key_command: {name} ended with status {process.returncode}", hint=_last_words(said)
        )
    lines = printed.decode(errors="replace").splitlines()
    if not lines or not lines[0].strip():
        raise KeyProblem(f"key_command: {name} printed no key on its first line")
    return lines[0]


def _last_words(said: bytes) -> str | None:
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    return re.sub(r"rbk_[\w-]+", "rbk_…", lines[-1].strip())[:200] if lines else None


# -- `credentials.json`: which profile has a key for which origin, and where it is.

NAME = "credentials.json"
Keys = dict[str, dict[str, dict[str, str]]]


def read(folder: Path) -> Keys:
    """Profile to origin to record. Raises KeyProblem, without repeating what the file holds.

    A file with a key in it that others can read is refused, as ssh refuses such a file.
    """
    path = folder / NAME
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            document: Any = json.loads(file.read())
        keys: Keys = document["keys"]
        held = [record for origins in keys.values() for record in origins.values()]
        sane = all(
            isinstance(value, str)
            for record in held
            for value in (record["store"], *record.values())
        )
    except FileNotFoundError:
        return {}
    except OSError as problem:
        raise KeyProblem(f"cannot read {path}: {problem.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sane = False
    if not sane:
        raise KeyProblem(
            f"{path} is damaged", hint=f"rm {path}, then `rebyte auth login` for each profile"
        ) from None
    if os.name == "posix" and mode & 0o077 and any("key" in record for record in held):
        raise KeyProblem(f"others can read the key in {path}", hint=f"chmod 600 {path}")
    return keys


@contextmanager
def edit(folder: Path) -> Iterator[Keys]:
    """Change the records in place: under a lock, read again, replaced in one step, mode 0600."""
    with locked(folder / LOCK_NAME):
        keys = read(folder)
        before = json.dumps(keys)
        yield keys
        for profile in [name for name, origins in keys.items() if not origins]:
            del keys[profile]
        if json.dumps(keys) != before:
            text = json.dumps({"keys": keys}, indent=2, ensure_ascii=False)
            write_private(folder / NAME, f"{text}\n".encode())


VARIABLE = "REBYTE_API_KEY"
LOCAL_KEY = "rbk_local"
FILE_NAME = NAME

Note = Callable[[str], None]


class Found(NamedTuple):
    """A key that was checked for use, and for people where it came from."""

    key: str
    source: str


class _Choice(NamedTuple):
    """Which source is to be used, before it is asked. `value` is what that source needs."""

    source: str
    kind: Literal["given", "command", "file", "keyring"]
    value: Any


def find_key(
    settings: Settings,
    environment: Mapping[str, str],
    *,
    interactive: bool,
    note: Note | None = None,
) -> Found:
    """The key for the settings' profile and origin. The first of these that there is:

      1. for `local`, the built-in one; nothing else is looked at;
      2. `REBYTE_API_KEY`, when no profile was named: keyring is then not imported;
      3. what the profile's `key_command` prints, for the profile's own origin only;
      4. the key recorded for this profile and this origin, in the keyring or the file;
      5. `REBYTE_API_KEY` for a profile that was named and has no key of its own, but only when
         it is for this origin: the variable goes with the base URL that holds when no profile is
         named (`REBYTE_API_URL`, else the default profile's). `-P staging` therefore never
         sends the key of another service; `REBYTE_API_URL=https://staging…/v1` says that it is
         staging's.

    A source that has a key and cannot give it (locked, hung, failing) is an error and not a
    reason to try the next: that would act on another account. `interactive` says that somebody
    can unlock a keyring; `note` is told when it takes long. Raises MissingKey, KeyProblem.
    """
    choice = _choose(settings, environment)
    if choice.kind == "command":
        key = run(choice.value, interactive=interactive)
    elif choice.kind == "keyring":
        from .keyring_store import KeyringStore

        key = _from_keyring(settings, choice.value, KeyringStore(interactive, note))
    else:
        key = choice.value
    try:
        return Found(check_key(key), choice.source)
    except KeyProblem as problem:
        raise KeyProblem(f"{choice.source}: {problem.message}", hint=problem.hint) from None


def source_of_key(settings: Settings, environment: Mapping[str, str]) -> str:
    """What find_key would ask, without asking it. Raises as find_key does when there is none."""
    return _choose(settings, environment).source


def check_keyring(*, interactive: bool, note: Note | None = None) -> None:
    """Raise KeyProblem now when a key could not be stored in the keyring later."""
    from .keyring_store import KeyringStore

    KeyringStore(interactive, note).check()


def store_key(
    settings: Settings,
    key: str,
    environment: Mapping[str, str],
    *,
    interactive: bool,
    insecure: bool = False,
    note: Note | None = None,
) -> str:
    """Store a checked key for the settings' profile and origin; returns where, for people.

    In the keyring, or with `insecure` in a 0600 file; never in the file unless it was asked
    for. Raises KeyProblem when the keyring is absent, locked, or not one that protects a key.
    """
    from .keyring_store import KeyringStore

    folder = config_dir(environment)
    vault = KeyringStore(interactive, note)
    before = read(folder).get(settings.profile, {}).get(settings.origin)
    if insecure:
        record = {"store": "file", "key": key}
    else:
        backend = vault.store(_account(settings.profile, settings.origin), key)
        record = {"store": "keyring", "backend": backend}
    with edit(folder) as keys:
        keys.setdefault(settings.profile, {})[settings.origin] = record
    if insecure and before is not None and before["store"] == "keyring":
        # Best effort: that the keyring cannot be used is why somebody asks for the file.
        with suppress(KeyProblem):
            vault.remove(_account(settings.profile, settings.origin), backend=before.get("backend"))
    return "keyring" if not insecure else str(folder / NAME)


def forget_keys(
    profile: str,
    environment: Mapping[str, str],
    *,
    interactive: bool,
    note: Note | None = None,
) -> list[str]:
    """Remove every key stored for a profile; returns the origins that they were for.

    A key that the keyring no longer has counts as removed. Raises KeyProblem when the keyring
    cannot be asked; what was not removed stays recorded.
    """
    from .keyring_store import KeyringStore

    folder = config_dir(environment)
    vault = KeyringStore(interactive, note)
    origins = read(folder).get(profile, {})
    for origin, record in origins.items():
        if record["store"] == "keyring":
            vault.remove(_account(profile, origin), backend=record.get("backend"))
        with edit(folder) as keys:
            keys.get(profile, {}).pop(origin, None)
    return sorted(origins)


def stored_origins(profile: str, environment: Mapping[str, str]) -> list[str]:
    """The origins for which a key of this profile is stored."""
    return sorted(read(config_dir(environment)).get(profile, {}))


def ending(key: str) -> str:
    """What may be shown of a key: its last four characters, of a long one only."""
    return f"…{key[-4:]}" if len(key) >= 16 else "…"


def _choose(settings: Settings, environment: Mapping[str, str]) -> _Choice:
    if settings.is_local:
        return _Choice("built in", "given", LOCAL_KEY)
    given = environment.get(VARIABLE, "").strip()
    if given and not settings.named:
        return _Choice(VARIABLE, "given", given)
    if settings.key_command.value and settings.origin == settings.own_origin:
        argv = settings.key_command.value
        return _Choice(f"key_command of profile {settings.profile}", "command", argv)
    origins = read(config_dir(environment)).get(settings.profile, {})
    record = origins.get(settings.origin)
    if record is not None and record["store"] == "file":
        return _Choice(f"file {NAME}", "file", record.get("key", ""))
    if record is not None:
        return _Choice("keyring", "keyring", record.get("backend"))
    if given and _is_for(settings.unnamed_url, settings.origin):
        return _Choice(VARIABLE, "given", given)
    raise _missing(settings, sorted(origins), bool(given))


def _from_keyring(settings: Settings, backend: str | None, vault: KeyringStore) -> str:
    key = vault.fetch(_account(settings.profile, settings.origin), backend=backend)
    if key is None:
        from .keyring_store import WAYS_OUT

        raise KeyProblem(
            f"the keyring no longer has the key of profile {settings.profile}",
            hint=f"rebyte -P {settings.profile} auth login  (stores it again)\n{WAYS_OUT}",
        )
    return key


def _account(profile: str, origin: str) -> str:
    return f"{profile}@{origin}"


def _is_for(url: str, origin: str) -> bool:
    try:
        return origin_of(check_base_url(url)) == origin
    except BadUsage:
        return False


def _missing(settings: Settings, elsewhere: list[str], given: bool) -> MissingKey:
    named = f" -P {settings.profile}" if settings.named else ""
    variable = f"export {VARIABLE}=…"
    if given:
        variable = f"export REBYTE_API_URL={settings.base_url.value}  (if {VARIABLE} is for it)"
    lines = [
        f"get one at {KEYS_PAGE}",
        variable,
        f"rebyte{named} auth login",
        "or try `rebyte -P local …` with no account",
    ]
    if elsewhere:
        lines.insert(0, f"the key stored for {elsewhere[0]} is not sent to {settings.origin}")
    return MissingKey(
        f"no API key for {settings.origin} (profile {settings.profile})", hint="\n".join(lines)
    )
