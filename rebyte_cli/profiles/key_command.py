"""A program of the user's that prints the key."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import KeyProblem
from .patience import within

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
        printed, said = within(seconds, listen)
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
