"""Doors that must stay shut: keys for another service, plain files, backends that keep nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rebyte_cli.config.credentials import ending, find_key, store_key
from rebyte_cli.config.settings import Config, Settings, resolve
from rebyte_cli.errors import KeyProblem, MissingKey

DOCUMENT = {"profiles": {"staging": {"base_url": "https://staging.example/v1"}}}


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"REBYTE_CONFIG_DIR": str(tmp_path / "config"), "HOME": str(tmp_path)}


def settings(env: dict[str, str], profile: str) -> Settings:
    return resolve({"profile": profile}, env, Config(DOCUMENT, path=Path("c.toml")))


@pytest.mark.parametrize(
    "url", ["http://staging.example/v1", "staging.example", "https://u:p@staging.example/v1", "\n"]
)
def test_a_variable_beside_a_url_that_is_refused_is_for_nobody(
    env: dict[str, str], url: str
) -> None:
    """It names the host of the profile, but nothing may be believed of such a URL."""
    env |= {"REBYTE_API_KEY": "rbk_variable", "REBYTE_API_URL": url}
    with pytest.raises(MissingKey):
        find_key(settings(env, "staging"), env, interactive=False)
    env["REBYTE_API_URL"] = "https://staging.example/v1"
    assert find_key(settings(env, "staging"), env, interactive=False).key == "rbk_variable"


def test_where_a_key_was_stored_is_said_as_it_is(env: dict[str, str]) -> None:
    where = store_key(settings(env, "staging"), "rbk_secret", env, interactive=False, insecure=True)
    assert where == str(Path(env["REBYTE_CONFIG_DIR"]) / "credentials.json")
    assert "rbk_secret" in Path(where).read_text()


def test_of_sixteen_characters_four_are_shown() -> None:
    assert ending("rbk_123456789abc") == "…9abc"
    assert ending("rbk_123456789ab") == "…"


# -- backends of the keyring library, each judged in a process of its own ------------------------

BACKEND = """
import sys, keyring, keyring.backend
class Kind(keyring.backend.KeyringBackend):
    priority = 1
    kept = {}
    def set_password(self, service, account, key): self.kept[account] = KEPT
    def get_password(self, service, account): return self.kept.get(account)
    def delete_password(self, service, account): DELETED
Kind.__name__ = Kind.__qualname__ = sys.argv[1]
Kind.__module__ = sys.argv[2]
keyring.set_keyring(Kind())
import os
from pathlib import Path
from rebyte_cli.errors import KeyProblem
from rebyte_cli.config.settings import Config, resolve
from rebyte_cli.config.credentials import find_key, forget_keys, store_key
settings = resolve({}, os.environ, Config({}, path=Path("c")))
try:
    print(store_key(settings, "rbk_secret", os.environ, interactive=False))
    print(find_key(settings, os.environ, interactive=False).source)
    print(forget_keys("default", os.environ, interactive=False))
except KeyProblem as problem:
    print(problem.message)
"""


FORGET = "del self.kept[account]"


def judged(
    env: dict[str, str], name: str, module: str, *, kept: str = "key", deleted: str = FORGET
) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", BACKEND.replace("KEPT", kept).replace("DELETED", deleted), name,
         module],
        env={**os.environ, **env, "PYTHON_KEYRING_BACKEND": ""},
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    folder = Path(env["REBYTE_CONFIG_DIR"])
    assert not [path for path in folder.rglob("*") if "rbk_secret" in path.read_text()]
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("name", "module", "why"),
    [
        ("Vault", "keyrings.alt.other", "does not protect keys"),
        ("MyPlainTextStore", "company.keys", "does not protect keys"),
        ("Keyring", "keyring.backends.null", "switched off"),
        ("Keyring", "keyring.backends.fail", "no keyring on this machine"),
    ],
)
def test_what_protects_nothing_is_refused(
    env: dict[str, str], name: str, module: str, why: str
) -> None:
    (said,) = judged(env, name, module)
    assert why in said


def test_any_other_is_believed_when_it_gives_the_key_back(env: dict[str, str]) -> None:
    stored, source, forgotten = judged(env, "Vault", "company.keys")
    assert (stored, source) == ("keyring", "keyring")
    assert forgotten == "['https://api.rebyte.ai']"


@pytest.mark.parametrize("kept", ["None", "key + 'x'", "''"])
def test_one_that_gives_something_else_back_is_not(env: dict[str, str], kept: str) -> None:
    assert judged(env, "Vault", "company.keys", kept=kept) == [
        "the keyring took the key and does not give it back"
    ]


def test_one_that_keeps_what_it_was_told_to_remove_is_told_on(env: dict[str, str]) -> None:
    said = judged(env, "Vault", "company.keys", deleted="pass")
    assert said[2:] == ["the keyring kept the key although it was told to remove it"]


def test_without_a_keyring_no_file_is_written_by_itself(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    import keyring.core

    monkeypatch.setattr(keyring.core, "_keyring_backend", None)  # another test may have chosen one
    with pytest.raises(KeyProblem):
        store_key(settings(env, "staging"), "rbk_secret", env, interactive=False)
    assert not list(Path(env["REBYTE_CONFIG_DIR"]).glob("*"))
