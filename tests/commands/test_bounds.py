"""Input without an end: an error in a moment, and no memory that grows."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from tests.conftest import COMMAND

MEMORY = 1 << 30  # bytes; a run that holds all it reads would need more


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def run(*words: str, stdin: str = os.devnull) -> subprocess.CompletedProcess[str]:
    with open(stdin, "rb") as source:
        return subprocess.run(
            [*COMMAND, "-P", "local", *words],
            stdin=source,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            preexec_fn=_limit if sys.platform != "win32" else None,
        )


@pytest.mark.parametrize(
    ("words", "stdin", "said"),
    [
        (
            ("api", "POST", "/tasks", "-d", "@/dev/zero"),
            os.devnull,
            "/dev/zero has more than 64 MiB",
        ),
        (("api", "POST", "/tasks", "-d", "-"), "/dev/zero", "standard input has more than 64 MiB"),
        (("create", "--prompt-file", "/dev/zero"), os.devnull, "/dev/zero has more than 16 MiB"),
        (("create", "-"), "/dev/zero", "standard input has more than 16 MiB"),
        (("get", "-"), "/dev/zero", "stdin, line 1: over 10000 characters"),
        (("delete", "-"), "/dev/urandom", "stdin, line 1: "),
    ],
)
def test_a_device_as_input_is_refused(
    home: object, words: tuple[str, ...], stdin: str, said: str
) -> None:
    done = run(*words, stdin=stdin)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_lines_without_an_end_are_refused(home: object) -> None:
    yes = subprocess.Popen(["yes", "@last-but-one"], stdout=subprocess.PIPE)
    assert yes.stdout is not None
    with yes:
        done = run("get", "-", stdin=f"/dev/fd/{yes.stdout.fileno()}")
        yes.kill()
    assert done.returncode in (2, 4)
    assert "line 1" in done.stderr
