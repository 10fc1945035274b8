"""What the keyring's door lets out of a backend: its key, or one line with the ways out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keyring.core
import pytest

from rebyte_cli.config import keyring_store
from rebyte_cli.config.credentials import find_key, forget_keys, store_key
from rebyte_cli.config.keyring_store import WAYS_OUT, KeyringStore
from rebyte_cli.config.settings import Config, resolve
from rebyte_cli.errors import KeyProblem

KEY = "rbk_secret"


class Backend:
    """Keys in memory; `ask` runs before each answer.

    No subclass of the library's: it would take every subclass for one of this machine's.
    """

    def __init__(self, ask: Callable[[], object] = lambda: None) -> None:
        self.kept: dict[str, str] = {"somebody": KEY}
        self.ask = ask

    def get_password(self, service: str, username: str) -> str | None:
        self.ask()
        return self.kept.get(username)

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[username]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Backend], Backend]:
    """Makes a backend the one that the keyring library chose on this machine."""
    monkeypatch.delenv("PYTHON_KEYRING_BACKEND", raising=False)

    def choose(backend: Backend) -> Backend:
        monkeypatch.setattr(keyring.core, "_keyring_backend", backend)
        return backend

    return choose


Use = Callable[[Backend], Backend]
ALONE, WITH_SOMEBODY = KeyringStore(interactive=False), KeyringStore(interactive=True)


def raising(problem: BaseException) -> Callable[[], object]:
    def ask() -> None:
        raise problem

    return ask


class CollectionLocked(Exception):
    """As libraries of keyrings name it."""


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (Exception(f"no luck with {KEY}"), "the keyring cannot be used (Exception)"),
        (SystemExit(KEY), "the keyring cannot be used (SystemExit)"),
        (OSError(KEY), "the keyring cannot be used (OSError)"),
        (CollectionLocked(KEY), "the keyring is locked"),
        (RuntimeError(f"{KEY}: item is Locked"), "the keyring is locked"),
    ],
)
def test_whatever_a_backend_raises_is_one_line_without_its_words(
    use: Use, problem: BaseException, said: str
) -> None:
    use(Backend(raising(problem)))
    with pytest.raises(KeyProblem) as caught:
        ALONE.fetch("somebody")
    assert (caught.value.message, caught.value.hint) == (said, WAYS_OUT)


def test_somebody_has_longer_to_unlock_it_than_a_script(
    use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring_store, "SECONDS_ALONE", 0.05)
    unlocked = threading.Event()
    use(Backend(lambda: unlocked.wait(0.3)))
    with pytest.raises(KeyProblem, match=r"did not answer within 0\.05 s") as caught:
        ALONE.fetch("somebody")
    assert caught.value.hint == WAYS_OUT
    assert WITH_SOMEBODY.fetch("somebody") == KEY


@pytest.mark.parametrize(
    "recorded",
    [
        "keyring.backends.no_such_module.Keyring",
        "keyring.backends.fail.NoSuchClass",
        "company.keys.Vault",
        "",
        None,
    ],
)
def test_a_backend_that_is_not_here_any_more_is_looked_for(use: Use, recorded: str | None) -> None:
    use(Backend())
    assert ALONE.fetch("somebody", backend=recorded) == KEY


def test_the_backend_that_took_the_key_is_asked_unless_another_is_named(
    use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(Backend())
    with pytest.raises(KeyProblem, match="switched off"):
        ALONE.fetch("somebody", backend="keyring.backends.null.Keyring")
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "whatever was chosen")
    assert ALONE.fetch("somebody", backend="keyring.backends.null.Keyring") == KEY


def test_what_is_forgotten_is_gone_from_the_keyring(use: Use, tmp_path: Path) -> None:
    backend = use(Backend())
    env = {"REBYTE_CONFIG_DIR": str(tmp_path / "config")}
    settings = resolve({}, env, Config({}, path=tmp_path / "c.toml"))

    def told(_text: str) -> Any:
        raise AssertionError("nothing to wait for")

    assert store_key(settings, KEY, env, interactive=False, note=told) == "keyring"
    assert find_key(settings, env, interactive=False, note=told) == (KEY, "keyring")
    assert forget_keys("default", env, interactive=False) == [settings.origin]
    assert list(backend.kept) == ["somebody"]
    # And when it moves to the file.
    store_key(settings, KEY, env, interactive=False)
    assert len(backend.kept) == 2
    store_key(settings, KEY, env, interactive=False, insecure=True)
    assert list(backend.kept) == ["somebody"]
    assert forget_keys("default", env, interactive=False) == [settings.origin]
