"""Keyrings: fakes that misbehave, backends that protect nothing, and a real gnome-keyring.

The real one runs on a private bus and is hung, locked, dead, or not there.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keyring.core
import pexpect
import pytest

from rebyte_cli.config.credentials import KeyDoor
from rebyte_cli.config.keyring_store import WAYS_OUT, KeyringStore
from rebyte_cli.config.settings import Config, Settings, resolve
from rebyte_cli.errors import KeyProblem
from tests.conftest import COMMAND, Done
from tests.keyring_daemon import KeyringDaemon, keyring_daemon
from tests.terminals import finish

SECRET = "rbk_secret"


class Backend:
    """Keys in memory; `ask` runs before each answer.

    No subclass of the library's: it would take every subclass for one of this machine's.
    """

    def __init__(self, ask: Callable[[], object] = lambda: None) -> None:
        self.kept: dict[str, str] = {"someone": SECRET}
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
UNATTENDED, ON_A_TERMINAL = KeyringStore(interactive=False), KeyringStore(interactive=True)


def raising(problem: BaseException) -> Callable[[], object]:
    def ask() -> None:
        raise problem

    return ask


class CollectionLocked(Exception):
    """As libraries of keyrings name it."""


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (Exception(f"no luck with {SECRET}"), "the keyring cannot be used (Exception)"),
        (SystemExit(SECRET), "the keyring cannot be used (SystemExit)"),
        (OSError(SECRET), "the keyring cannot be used (OSError)"),
        (CollectionLocked(SECRET), "the keyring is locked"),
        (RuntimeError(f"{SECRET}: item is Locked"), "the keyring is locked"),
    ],
)
def test_any_exception_of_a_backend_is_one_line_without_its_text(
    use: Use, problem: BaseException, said: str
) -> None:
    use(Backend(raising(problem)))
    with pytest.raises(KeyProblem) as caught:
        UNATTENDED.fetch("someone")
    assert (caught.value.message, caught.value.hint) == (said, WAYS_OUT)


def test_someone_has_longer_to_unlock_it_than_a_script(use: Use) -> None:
    given_up = threading.Event()
    use(Backend(lambda: given_up.wait(60)))
    with ThreadPoolExecutor(1) as pool:
        fetched = pool.submit(ON_A_TERMINAL.fetch, "someone")
        with pytest.raises(KeyProblem, match="did not answer within 4 s") as caught:
            UNATTENDED.fetch("someone")
        given_up.set()
        assert fetched.result() == SECRET
    assert caught.value.hint == WAYS_OUT


def test_the_import_of_the_library_does_not_count(
    use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy machine takes seconds for it. What counts is done in a separate thread."""
    use(Backend())
    importing: list[threading.Thread] = []

    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "keyring":
                importing.append(threading.current_thread())

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "keyring")
    assert UNATTENDED.fetch("someone") == SECRET
    assert importing == [threading.current_thread()]


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
def test_the_installed_backend_is_used_if_the_recorded_one_is_gone(
    use: Use, recorded: str | None
) -> None:
    use(Backend())
    assert UNATTENDED.fetch("someone", backend=recorded) == SECRET


def test_the_backend_that_took_the_key_is_asked_unless_another_is_named(
    use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(Backend())
    with pytest.raises(KeyProblem, match="switched off"):
        UNATTENDED.fetch("someone", backend="keyring.backends.null.Keyring")
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "whatever was chosen")
    assert UNATTENDED.fetch("someone", backend="keyring.backends.null.Keyring") == SECRET


def test_a_forgotten_key_is_gone_from_the_keyring(use: Use, tmp_path: Path) -> None:
    backend = use(Backend())
    env = {"REBYTE_CONFIG_DIR": str(tmp_path / "config")}
    settings = resolve({}, env, Config({}, path=tmp_path / "c.toml"))

    def told(_text: str) -> Any:
        raise AssertionError("nothing to wait for")

    assert KeyDoor(env, False, told).store(settings, SECRET) == "keyring"
    assert KeyDoor(env, False, told).find(settings) == (SECRET, "keyring")
    assert KeyDoor(env).forget("default") == [settings.origin]
    assert list(backend.kept) == ["someone"]
    # And when it moves to the file.
    KeyDoor(env).store(settings, SECRET)
    assert len(backend.kept) == 2
    KeyDoor(env).store(settings, SECRET, insecure=True)
    assert list(backend.kept) == ["someone"]
    assert KeyDoor(env).forget("default") == [settings.origin]


# Backends of the keyring library, each judged in a separate process


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"REBYTE_CONFIG_DIR": str(tmp_path / "config"), "HOME": str(tmp_path)}


def settings(env: dict[str, str]) -> Settings:
    return resolve({}, env, Config({}, path=Path("c.toml")))


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
from rebyte_cli.config.credentials import KeyDoor
settings = resolve({}, os.environ, Config({}, path=Path("c")))
try:
    print(KeyDoor(os.environ).store(settings, "rbk_secret"))
    print(KeyDoor(os.environ).find(settings).source)
    print(KeyDoor(os.environ).forget("default"))
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
def test_backends_without_protection_are_refused(
    env: dict[str, str], name: str, module: str, why: str
) -> None:
    (said,) = judged(env, name, module)
    assert why in said


def test_other_backends_are_accepted_if_they_return_the_key(env: dict[str, str]) -> None:
    stored, source, forgotten = judged(env, "Vault", "company.keys")
    assert (stored, source) == ("keyring", "keyring")
    assert forgotten == "['https://api.rebyte.ai']"


@pytest.mark.parametrize("kept", ["None", "key + 'x'", "''"])
def test_a_backend_that_returns_another_key_is_refused(env: dict[str, str], kept: str) -> None:
    assert judged(env, "Vault", "company.keys", kept=kept) == [
        "the keyring accepted the key but does not return it"
    ]


def test_a_backend_that_keeps_a_removed_key_is_reported(env: dict[str, str]) -> None:
    said = judged(env, "Vault", "company.keys", deleted="pass")
    assert said[2:] == ["the keyring did not remove the key"]


def test_without_a_keyring_no_file_is_written_by_itself(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    monkeypatch.setattr(keyring.core, "_keyring_backend", None)  # another test may have chosen one
    with pytest.raises(KeyProblem):
        KeyDoor(env).store(settings(env), "rbk_secret")
    assert not list(Path(env["REBYTE_CONFIG_DIR"]).glob("*"))


# A real keyring, on a private bus

Rebyte = Callable[..., Done]
KEY = "rbk_0123456789abcdef"
LATE = "the keyring did not answer within 4 s"


@pytest.fixture
def daemon(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyringDaemon]:
    with keyring_daemon(home) as running:
        for name, value in running.env.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def rebyte(rebyte: Rebyte) -> Rebyte:
    """The command, up to five times: on a busy machine, a keyring that works may be late."""

    def run(*words: str, tries: int = 5, **options: Any) -> Done:
        done = rebyte(*words, **options)
        return run(*words, tries=tries - 1, **options) if LATE in done.err and tries > 1 else done

    return run


def origin(url: str) -> str:
    return url.removesuffix("/v1")


def ways_out(done: Done) -> bool:
    """Whether it ended as a missing keyring does: 3, one error, and the three ways out."""
    told = json.loads(done.err)["error"]
    hint = told["hint"].splitlines()
    assert "Traceback" not in done.err
    return done.status == told["exit"] == 3 and [line.split("=")[0] for line in hint[-3:]] == [
        "export REBYTE_API_KEY",
        "`rebyte profile set NAME key_command",
        "`rebyte auth login --insecure-storage`  (a file that only you can read)",
    ]


def login(rebyte: Rebyte, *options: str, key: str = KEY, **rest: Any) -> Done:
    return rebyte(*options, "auth", "login", "--with-key", "-o", "json", stdin=key, **rest)


@pytest.mark.slow
def test_case_1_no_bus(rebyte: Rebyte, url: str) -> None:
    assert ways_out(login(rebyte, "-q"))
    # Said before the key is read, so that a user does not type one in vain.
    assert ways_out(login(rebyte, "-q", key="rbk_invalid"))
    named = login(rebyte, "-q", "-P", "default")
    assert "`rebyte -P default auth login --insecure-storage`" in named.err
    missing = rebyte("list")
    assert (missing.status, json.loads(missing.err)["error"]["code"]) == (3, "missing_key")


@pytest.mark.slow
def test_case_2_locked(
    rebyte: Rebyte, url: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keyring_daemon(home) as daemon:
        assert login(rebyte, env=daemon.env).status == 0
    with keyring_daemon(home, unlocked=False) as daemon:
        done = rebyte("list", env=daemon.env)
        assert ways_out(done)
        assert "the keyring is locked" in done.err  # and not "did not answer"
        assert ways_out(login(rebyte, "-q", env=daemon.env))


@pytest.mark.slow
def test_case_3_case_4_a_hung_daemon(rebyte: Rebyte, url: str, daemon: KeyringDaemon) -> None:
    assert login(rebyte).status == 0
    daemon.hang()
    began = time.monotonic()
    done = rebyte("list", tries=1)
    assert 4 <= time.monotonic() - began < 30
    assert ways_out(done)
    assert LATE in done.err
    done = rebyte("list", env={"REBYTE_API_KEY": KEY})
    assert (done.status, done.err) == (0, "")


@pytest.mark.slow
def test_a_user_at_a_terminal_is_told_and_waited_for(
    rebyte: Rebyte, url: str, daemon: KeyringDaemon
) -> None:
    assert login(rebyte).status == 0
    daemon.hang()
    child = pexpect.spawn(COMMAND[0], [*COMMAND[1:], "list"], env=dict(os.environ), timeout=60)
    child.expect_exact("Waiting for the keyring")
    daemon.go_on()
    assert finish(child) == 0
    daemon.hang()
    child = pexpect.spawn(COMMAND[0], [*COMMAND[1:], "list"], env=dict(os.environ), timeout=60)
    child.expect_exact("Waiting for the keyring")
    child.sendintr()
    assert finish(child) == 130


def test_case_4_the_variable_spares_the_keyring(rebyte: Rebyte, url: str) -> None:
    told = {"REBYTE_API_KEY": KEY, "PYTHONPROFILEIMPORTTIME": "1"}
    done = rebyte("list", env=told)
    assert done.status == 0
    assert "requests" in done.err
    assert not re.search(r"\|\s+keyring\b", done.err)  # the library; our own module may load


@pytest.mark.parametrize(
    ("backend", "says"),
    [
        pytest.param("keyring.backends.null.Keyring", "switched off", id="case_5_null"),
        pytest.param("keyring.backends.fail.Keyring", "no keyring on this machine", id="fail"),
        pytest.param("keyrings.alt.file.PlaintextKeyring", "does not protect", id="case_6_alt"),
        pytest.param("nonsense", "PYTHON_KEYRING_BACKEND", id="case_7_no_module"),
        pytest.param("os.path.join", "PYTHON_KEYRING_BACKEND", id="case_7_no_backend"),
        pytest.param("no.such.Backend", "PYTHON_KEYRING_BACKEND", id="case_7_not_there"),
    ],
)
def test_backends_that_are_refused(
    rebyte: Rebyte, url: str, home: Path, backend: str, says: str
) -> None:
    done = login(rebyte, "-q", env={"PYTHON_KEYRING_BACKEND": backend})
    assert ways_out(done)
    assert says in done.err
    assert done.err.count("\n") == 1
    assert not [
        path for path in home.rglob("*") if path.is_file() and KEY in path.read_text("latin-1")
    ]


@pytest.mark.parametrize("line", ["something-else=1", "default-keyring=no.such.Backend"])
def test_case_7_nonsense_in_the_file_of_the_keyring_library(
    rebyte: Rebyte, url: str, home: Path, line: str
) -> None:
    file = home / ".config" / "python_keyring" / "keyringrc.cfg"
    file.parent.mkdir(parents=True)
    file.write_text(f"[backend]\n{line}\n")
    done = login(rebyte, "-q")
    assert ways_out(done)
    assert done.err.count("\n") == 1
    assert "PYTHON_KEYRING_BACKEND" not in done.err  # which is not set


def test_case_6_a_plaintext_backend_is_not_taken_for_want_of_another(
    rebyte: Rebyte, url: str, home: Path
) -> None:
    chain = {"PYTHON_KEYRING_BACKEND": "keyring.backends.chainer.ChainerBackend"}
    for env in ({}, chain):
        assert ways_out(login(rebyte, "-q", env=env))
    assert not list(home.rglob("*_pass.cfg"))


@pytest.mark.slow
def test_case_8_login_use_logout(rebyte: Rebyte, url: str, daemon: KeyringDaemon) -> None:
    done = login(rebyte, key=f"{KEY}\n")
    assert done.status == 0
    assert done.json["keyEnding"] == "…cdef"
    assert KEY not in done.out + done.err
    assert daemon.items() == {f"default@{origin(url)}": KEY}
    assert rebyte("list").status == 0
    off = rebyte("list", env={"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"})
    assert "switched off" in off.err  # what is chosen by hand wins over where the key is
    status = rebyte("auth", "status").json
    assert (status["source"], status["accepted"]) == ("keyring", True)
    assert rebyte("auth", "logout").status == 0
    assert daemon.items() == {}
    assert json.loads(rebyte("list").err)["error"]["code"] == "missing_key"


def test_case_9_logout_with_nothing_stored(rebyte: Rebyte, home: Path) -> None:
    done = rebyte("auth", "logout")
    assert (done.status, done.out, done.err) == (0, "", "No key is stored for profile default\n")


@pytest.mark.slow
def test_case_10_the_daemon_dies_between_two_calls(
    rebyte: Rebyte, url: str, daemon: KeyringDaemon
) -> None:
    assert login(rebyte).status == 0
    assert rebyte("list").status == 0
    daemon.die()
    # The bus starts another one, which is locked.
    assert ways_out(rebyte("list"))
    daemon.bus.kill()
    daemon.bus.wait()
    assert ways_out(rebyte("list"))


@pytest.mark.slow
def test_case_11_two_profiles_two_keys(rebyte: Rebyte, url: str, daemon: KeyringDaemon) -> None:
    for name in ("one", "two"):
        rebyte("profile", "create", name, f"base_url={url}")
        assert login(rebyte, "-P", name, key=f"rbk_{name}_0123456789").status == 0
    assert daemon.items() == {
        f"one@{origin(url)}": "rbk_one_0123456789",
        f"two@{origin(url)}": "rbk_two_0123456789",
    }
    assert rebyte("-P", "one", "auth", "logout").status == 0
    assert list(daemon.items()) == [f"two@{origin(url)}"]
    assert rebyte("-P", "one", "list").status == 3
    assert rebyte("-P", "two", "list").status == 0


@pytest.mark.slow
def test_a_key_that_another_program_removed(
    rebyte: Rebyte, url: str, daemon: KeyringDaemon
) -> None:
    assert login(rebyte).status == 0
    delete = f"import keyring; keyring.delete_password('rebyte', 'default@{origin(url)}')"
    subprocess.run([sys.executable, "-c", delete], check=True)
    done = rebyte("list")
    assert done.status == 3
    assert "the keyring no longer has the key" in done.err
    assert rebyte("auth", "logout").status == 0


@pytest.mark.slow
def test_a_key_moves_from_the_keyring_to_the_file_when_told(
    rebyte: Rebyte, url: str, daemon: KeyringDaemon, home: Path
) -> None:
    assert login(rebyte).status == 0
    done = rebyte("auth", "login", "--with-key", "--insecure-storage", stdin=KEY)
    assert done.status == 0
    assert daemon.items() == {}
    file = home / ".config" / "rebyte" / "credentials.json"
    assert KEY in file.read_text()
    assert login(rebyte).status == 0
    assert KEY not in file.read_text()
    assert daemon.items() == {f"default@{origin(url)}": KEY}
