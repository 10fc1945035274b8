"""`key_command`: what the program may do, and what is shown of it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from rebyte_cli.config.key_command import run_key_command as run
from rebyte_cli.errors import KeyProblem
from tests.keyring_daemon import eventually

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


def test_a_program_that_hangs_is_given_up_and_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    argv = ["sh", "-c", f"echo $$ > '{pid}'; exec sleep 60"]
    began = time.monotonic()
    with pytest.raises(KeyProblem, match=r"key_command: sh did not end within 1 s"):
        run(argv, interactive=False, seconds=1)
    assert time.monotonic() - began < 10
    eventually(lambda: not Path(f"/proc/{pid.read_text().strip()}").exists(), what="its end")


def test_without_a_terminal_it_cannot_eat_our_stdin() -> None:
    assert run(python("import sys; print(repr(sys.stdin.read()))"), interactive=False) == "''"
