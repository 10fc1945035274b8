"""The one door to keys: environment, command, keyring, file.

A key belongs to the origin (scheme, host, port) that it was stored for. Only the key of the
settings' own origin comes out of here, so a base URL that moved takes no key along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..api.origin import check_base_url, check_key, origin_of
from ..errors import KEYS_PAGE, BadUsage, KeyProblem, MissingKey
from . import paths, records
from .config import Settings

if TYPE_CHECKING:
    from .vault import Vault  # the keyring's; a key from the environment needs none of it

VARIABLE = "REBYTE_API_KEY"
LOCAL_KEY = "rbk_local"
FILE_NAME = records.NAME

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
        from .key_command import run

        key = run(choice.value, interactive=interactive)
    elif choice.kind == "keyring":
        from .vault import Vault

        key = _from_keyring(settings, choice.value, Vault(interactive, note))
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
    from .vault import Vault

    Vault(interactive, note).check()


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
    from .vault import Vault

    folder = paths.config_dir(environment)
    vault = Vault(interactive, note)
    before = records.read(folder).get(settings.profile, {}).get(settings.origin)
    if insecure:
        record = {"store": "file", "key": key}
    else:
        backend = vault.store(_account(settings.profile, settings.origin), key)
        record = {"store": "keyring", "backend": backend}
    with records.edit(folder) as keys:
        keys.setdefault(settings.profile, {})[settings.origin] = record
    if insecure and before is not None and before["store"] == "keyring":
        # Best effort: that the keyring cannot be used is why somebody asks for the file.
        with suppress(KeyProblem):
            vault.remove(_account(settings.profile, settings.origin), backend=before.get("backend"))
    return "keyring" if not insecure else str(folder / records.NAME)


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
    from .vault import Vault

    folder = paths.config_dir(environment)
    vault = Vault(interactive, note)
    origins = records.read(folder).get(profile, {})
    for origin, record in origins.items():
        if record["store"] == "keyring":
            vault.remove(_account(profile, origin), backend=record.get("backend"))
        with records.edit(folder) as keys:
            keys.get(profile, {}).pop(origin, None)
    return sorted(origins)


def stored_origins(profile: str, environment: Mapping[str, str]) -> list[str]:
    """The origins for which a key of this profile is stored."""
    return sorted(records.read(paths.config_dir(environment)).get(profile, {}))


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
    origins = records.read(paths.config_dir(environment)).get(settings.profile, {})
    record = origins.get(settings.origin)
    if record is not None and record["store"] == "file":
        return _Choice(f"file {records.NAME}", "file", record.get("key", ""))
    if record is not None:
        return _Choice("keyring", "keyring", record.get("backend"))
    if given and _is_for(settings.unnamed_url, settings.origin):
        return _Choice(VARIABLE, "given", given)
    raise _missing(settings, sorted(origins), bool(given))


def _from_keyring(settings: Settings, backend: str | None, vault: Vault) -> str:
    key = vault.fetch(_account(settings.profile, settings.origin), backend=backend)
    if key is None:
        from .vault import WAYS_OUT

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
