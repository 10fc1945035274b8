"""The one door to keys: environment, command, keyring, file.

A key belongs to the origin (scheme, host, port) that it was stored for. Only the key of the
settings' own origin comes out of here, so a base URL that moved takes no key along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ..api.urls import check_base_url, check_key, origin_of
from ..errors import KEYS_PAGE, BadUsage, KeyProblem, MissingKey, Next, lines
from .credentials_file import FILE_NAME, edit_keys, read_keys
from .paths import config_dir
from .settings import Settings

if TYPE_CHECKING:
    from .keyring_store import KeyringStore

VARIABLE = "REBYTE_API_KEY"
LOCAL_KEY = "rbk_local"


class FoundKey(NamedTuple):
    """A key that was checked for use and, for people, where it came from ("": it was typed)."""

    key: str
    source: str = ""

    @property
    def if_rejected(self) -> str:
        """What to do when the API does not accept it: `auth login` replaces a stored key alone."""
        if self.source == VARIABLE:
            how = f"Set {VARIABLE} to another key, or unset it"
        elif self.source in ("keyring", f"file {FILE_NAME}"):
            how = "Run " + Next("auth", "login") + " to replace it"
        else:
            how = f"It comes from {self.source}: change it there" if self.source else ""
        create = f"create a key at {KEYS_PAGE}"
        return how + "; " + create if how else create


class KeyDoor(NamedTuple):
    """Finds, stores and removes the keys of a user, as `environment` says.

    `interactive` says that the user can unlock a keyring; `note` reports when it takes long.
    """

    environment: Mapping[str, str]
    interactive: bool = False
    note: Callable[[str], None] | None = None

    def find(self, settings: Settings) -> FoundKey:
        """The key for the settings' profile and origin: the first of these that exists.

          1. For `local`, the built-in one. Nothing else is looked at.
          2. `REBYTE_API_KEY`, when no profile was named. keyring is then not imported.
          3. What the profile's `key_command` prints, for the profile's own origin only.
          4. The key recorded for this profile and this origin, in the keyring or the file.
          5. `REBYTE_API_KEY`, for a selected profile without its own key.

        `REBYTE_API_KEY` is for the origin of `REBYTE_API_URL`, or for the built-in one. A profile
        of another origin gets it only with `env_key = true`; otherwise 2 is an error and 5 does not
        count, so that neither `-P staging` nor a `base_url` sends the key of another service.

        A source that has a key and cannot give it (locked, hung, failing) is an error and not a
        reason to try the next: that would act on another account. Raises MissingKey, KeyProblem.
        """
        source, ask = self._choose(settings)
        key = ask()
        try:
            return FoundKey(check_key(key), source)
        except KeyProblem as problem:
            raise KeyProblem(f"{source}: {problem.message}", hint=problem.hint) from None

    def source(self, settings: Settings) -> str:
        """What `find` would ask, without asking it. Raises as `find` does when there is none."""
        return self._choose(settings)[0]

    @property
    def keyring(self) -> KeyringStore:
        """The keyring, before it is asked for anything."""
        from .keyring_store import KeyringStore

        return KeyringStore(self.interactive, self.note)

    def store(self, settings: Settings, key: str, *, insecure: bool = False) -> str:
        """Store a checked key for the settings' profile and origin; returns where, for people.

        In the keyring, or with `insecure` in a 0600 file; never in the file unless it was asked
        for. Raises KeyProblem when the keyring is absent, locked, or not one that protects a key.
        """
        folder = config_dir(self.environment)
        account = _account(settings.profile, settings.origin)
        before = read_keys(folder).get(settings.profile, {}).get(settings.origin)
        if insecure:
            record = {"store": "file", "key": key}
        else:
            record = {"store": "keyring", "backend": self.keyring.store(account, key)}
        with edit_keys(folder) as keys:
            keys.setdefault(settings.profile, {})[settings.origin] = record
        if insecure and before is not None and before["store"] == "keyring":
            # Best effort: a keyring that cannot be used is a reason to ask for the file.
            with suppress(KeyProblem):
                self.keyring.remove(account, backend=before.get("backend"))
        return str(folder / FILE_NAME) if insecure else "keyring"

    def forget(self, profile: str) -> list[str]:
        """Remove every key stored for a profile; returns the origins that they were for.

        A key that the keyring no longer has counts as removed. Raises KeyProblem when the keyring
        cannot be asked; what was not removed stays recorded.
        """
        folder = config_dir(self.environment)
        origins = read_keys(folder).get(profile, {})
        for origin, record in origins.items():
            if record["store"] == "keyring":
                self.keyring.remove(_account(profile, origin), backend=record.get("backend"))
            with edit_keys(folder) as keys:
                keys.get(profile, {}).pop(origin, None)
        return sorted(origins)

    def origins(self, profile: str) -> list[str]:
        """The origins for which a key of this profile is stored."""
        return sorted(read_keys(config_dir(self.environment)).get(profile, {}))

    def _choose(self, settings: Settings) -> tuple[str, Callable[[], str]]:
        """The source to use, for people, and what asks it."""
        if settings.is_own_service:
            return "built in", lambda: LOCAL_KEY
        given = self.environment.get(VARIABLE, "").strip()
        if given and not settings.named:
            if not _takes_variable(settings):
                raise MissingKey(
                    f"{VARIABLE} is not sent to {settings.origin}, which profile {settings.profile}"
                    " names",
                    hint="\n".join(_ways_to_mean_it(settings)),
                )
            return VARIABLE, lambda: given
        if settings.key_command.value and settings.origin == settings.own_origin:
            from .key_command import run_key_command

            run = partial(run_key_command, settings.key_command.value, interactive=self.interactive)
            return f"key_command of profile {settings.profile}", run
        origins = read_keys(config_dir(self.environment)).get(settings.profile, {})
        record = origins.get(settings.origin)
        if record is not None and record["store"] == "file":
            return f"file {FILE_NAME}", lambda: record.get("key", "")
        if record is not None:
            return "keyring", partial(self._from_keyring, settings, record.get("backend"))
        if given and _takes_variable(settings):
            return VARIABLE, lambda: given
        raise _missing(settings, sorted(origins), bool(given))

    def _from_keyring(self, settings: Settings, backend: str | None) -> str:
        key = self.keyring.fetch(_account(settings.profile, settings.origin), backend=backend)
        if key is None:
            from .keyring_store import WAYS_OUT

            raise KeyProblem(
                f"the keyring no longer has the key of profile {settings.profile}",
                hint=f"rebyte -P {settings.profile} auth login  (stores it again)\n" + WAYS_OUT,
            )
        return key


def ending(key: str) -> str | None:
    """What may be shown of a key: its last four characters, and nothing of a short one."""
    return f"…{key[-4:]}" if len(key) >= 16 else None


def _takes_variable(settings: Settings) -> bool:
    """Whether `REBYTE_API_KEY` may go to the settings' origin."""
    if settings.env_key.value and settings.origin == settings.own_origin:
        return True
    try:
        return origin_of(check_base_url(settings.variable_url)) == settings.origin
    except BadUsage:
        return False


def _account(profile: str, origin: str) -> str:
    return f"{profile}@{origin}"


def _ways_to_mean_it(settings: Settings) -> tuple[str, str]:
    return (
        f"export REBYTE_API_URL={settings.base_url.value}  (if {VARIABLE} is for it)",
        f"rebyte profile set {settings.profile} env_key=true  (if it always is)",
    )


def _missing(settings: Settings, elsewhere: list[str], given: bool) -> MissingKey:
    named = f" -P {settings.profile}" if settings.named else ""
    url = "" if _takes_variable(settings) else f"REBYTE_API_URL={settings.base_url.value} "
    ways = [
        f"Get one at {KEYS_PAGE}, then use one of these:",
        f"rebyte{named} auth login  (stores it)",
        *(_ways_to_mean_it(settings) if given else [f"export {url}{VARIABLE}=…  (for this shell)"]),
        "Without an account, " + Next("-P", "local", "…") + " runs tasks on this machine",
    ]
    if elsewhere:
        ways.insert(0, f"the key stored for {elsewhere[0]} is not sent to {settings.origin}")
    return MissingKey(
        f"no API key for {settings.origin} (profile {settings.profile})", hint=lines(*ways)
    )
