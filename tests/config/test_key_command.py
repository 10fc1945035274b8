"""`key_command`: what the program may do, and what is shown of it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pexpect
import pytest

from rebyte_cli.config.key_command import SECONDS
from rebyte_cli.config.key_command import run_key_command as run
from rebyte_cli.errors import KeyProblem
from tests.conftest import COMMAND
from tests.terminals import finish
from tests.waiting import eventually, is_running, with_time

SECRET = "rbk_from_a_vault"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_the_first_line_is_the_key(tmp_path: Path) -> None:
    assert run(python(f"print('{SECRET}'); print('url: x')"), interactive=False) == SECRET


def test_no_shell_reads_the_arguments(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    argv = [*python("import sys; print(sys.argv[1])"), f"$(touch {trap})"]
    assert run(argv, interactive=False) == f"$(touch {trap})"
    assert not trap.exists()


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        (f"print('{SECRET}'); raise SystemExit(3)", "ended with status 3", None),
        ("raise SystemExit('locked: x')", "ended with status 1", "locked: x"),
        (f"raise SystemExit('not {SECRET}')", "ended with status 1", "not rbk_…"),
        ("print()", "printed no key on its first line", None),
        ("pass", "printed no key on its first line", None),
        ("while True: print('x' * 9999)", "ended with status -9", None),
    ],
)
def test_a_failure_is_one_line_without_what_it_printed(
    code: str, message: str, hint: str | None
) -> None:
    with pytest.raises(KeyProblem) as problem:
        run(python(code), interactive=False)
    assert problem.value.message == f"key_command: {sys.executable} {message}"
    assert problem.value.hint == hint


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(KeyProblem, match="key_command: cannot run no-such-program: No such file"):
        run(["no-such-program"], interactive=False)


def _pid(file: Path) -> int:
    return int(file.read_text() or 0)  # it may be ended before it writes


def test_a_program_that_hangs_is_given_up_and_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    argv = ["sh", "-c", f"echo $$ > '{pid}'; exec sleep 60"]

    def check(limit: float) -> None:
        began = time.monotonic()
        with pytest.raises(KeyProblem, match=f"key_command: sh did not end within {limit:g} s"):
            run(argv, interactive=False, seconds=limit)
        assert time.monotonic() - began < limit + 15
        assert pid.exists()

    with_time(check)
    eventually(lambda: not is_running(_pid(pid)), what="its end")


def test_a_child_in_the_background_is_not_waited_for() -> None:
    assert SECONDS < 40
    assert run(["sh", "-c", f"sleep 40 & echo {SECRET}"], interactive=False) == SECRET


def test_what_was_printed_is_read_however_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that reads it may not run for a while on a busy machine."""
    read = os.read

    def late(handle: int, size: int) -> bytes:
        time.sleep(0.7)
        return read(handle, size)

    monkeypatch.setattr(os, "read", late)
    assert run(["echo", SECRET], interactive=False) == SECRET


def test_without_a_terminal_it_cannot_eat_our_stdin() -> None:
    assert run(python("import sys; print(repr(sys.stdin.read()))"), interactive=False) == "''"


# Cleaning up: processes and the state of the terminal


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("interactive", [False, True])
def test_case_68_its_children_end_with_it(tmp_path: Path, interactive: bool) -> None:
    child, grandchild = tmp_path / "child", tmp_path / "grandchild"
    inner = f"echo $$ > '{grandchild}'; sleep 60; true"
    script = f'sh -c "echo \\$\\$ > \'{child}\'; sh -c \\"$INNER\\"; true"; true'
    argv = ["env", f"INNER={inner}", "sh", "-c", script]

    def check(limit: float) -> None:
        with pytest.raises(KeyProblem, match="did not end within"):
            run(argv, interactive=interactive, seconds=limit)
        assert child.exists()
        assert grandchild.exists()

    with_time(check)
    eventually(
        lambda: not is_running(_pid(child)) and not is_running(_pid(grandchild)), what="their end"
    )


def asked(code: str, *options: str, home: Path, backend: str = "") -> pexpect.spawn:
    """`rebyte list` on a terminal, with a key_command or a keyring that asks for a password."""
    folder = home / ".config" / "rebyte"
    folder.mkdir(parents=True, mode=0o700)
    if backend:
        (home / "asking.py").write_text(backend)
        record = {"store": "keyring", "backend": "asking.Asking"}
        keys = {"keys": {"default": {"https://api.rebyte.ai": record}}}
        (folder / "credentials.json").write_text(json.dumps(keys))
    else:
        (folder / "config.toml").write_text(
            f"[profiles.default]\nkey_command = {json.dumps(python(code))}\n"
        )
    env = {**os.environ, "PYTHONPATH": str(home), "PYTHON_KEYRING_BACKEND": "asking.Asking"}
    return pexpect.spawn(
        COMMAND[0], [*COMMAND[1:], *options, "list"], env=env, encoding="utf-8", timeout=60
    )


ASK = "import getpass; print(getpass.getpass('Passphrase: '))"
BACKEND = """
import getpass
from keyring.backend import KeyringBackend
class Asking(KeyringBackend):
    priority = 1
    def get_password(self, service, account): return getpass.getpass("Passphrase: ")
    def set_password(self, service, account, key): pass
    def delete_password(self, service, account): pass
"""


@pytest.mark.parametrize("backend", ["", BACKEND], ids=["key_command", "keyring"])
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_case_69_a_prompt_that_is_cut_short_leaves_the_echo_on(
    home: Path, backend: str, signal_number: int
) -> None:
    child = asked(ASK, home=home, backend=backend)
    child.expect_exact("Passphrase: ")
    assert child.waitnoecho(60)
    ended = 1
    while ended:  # Python misses a signal that comes between its prompt and its read
        if signal_number == signal.SIGINT:
            child.sendintr()
        else:
            child.kill(signal_number)
        ended = child.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=10)
    assert child.getecho()
    assert finish(child) == 128 + signal_number


@pytest.mark.parametrize("backend", ["", BACKEND], ids=["key_command", "keyring"])
def test_case_70_nothing_asks_with_no_input(home: Path, backend: str) -> None:
    child = asked(ASK, "--no-input", home=home, backend=backend)
    assert finish(child) == 3
    assert "Passphrase" not in str(child.before).replace("getpass", "")


@pytest.mark.parametrize("backend", ["", BACKEND], ids=["key_command", "keyring"])
def test_case_70_nothing_asks_without_standard_input(home: Path, backend: str) -> None:
    """The terminal is there, and a program could open it."""
    asked(ASK, home=home, backend=backend).close(force=True)
    env = {**os.environ, "PYTHONPATH": str(home), "PYTHON_KEYRING_BACKEND": "asking.Asking"}
    line = f"{' '.join(COMMAND)} list </dev/null"
    child = pexpect.spawn("sh", ["-c", line], env=env, encoding="utf-8", timeout=60)
    assert finish(child) == 3
    assert "Passphrase" not in str(child.before)
