"""A pager for text that may be longer than the screen, as git has one."""

from __future__ import annotations

import io
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from ..errors import ReaderGone
from ..system.signals import handled
from .console import Console

# For a less whose user has set no options: leave at once if the text fits on the screen, and keep
# on the screen what was shown.
LESS = "FRX"


@contextmanager
def paged(console: Console, environment: Mapping[str, str], variable: str) -> Iterator[None]:
    """Send what the block prints, on a terminal also its errors, through a pager.

    The pager is what the variable of that name holds, else $PAGER, less or more. With `cat` or an
    empty value, or if no pager can be started, the block prints as ever. Returns when the user
    leaves the pager; leaving early ends the block without an error.
    """
    pager = _start(environment, variable)
    if pager is None:
        yield
        return
    assert pager.stdin is not None
    before = console.out, console.err, console.live
    pipe = io.TextIOWrapper(
        pager.stdin, getattr(console.out, "encoding", None), "backslashreplace", newline="\n"
    )
    console.out, console.live = pipe, False
    if console.err_tty:
        console.err = pipe
    try:
        yield
    except ReaderGone:
        pass
    finally:
        # Ctrl-C in a pager ends a search there; it is not for this process.
        with handled({signal.SIGINT: signal.SIG_IGN}):
            console.out, console.err, console.live = before
            with suppress(OSError, ValueError):
                pipe.close()
            pager.wait()


def _start(environment: Mapping[str, str], variable: str) -> subprocess.Popen[bytes] | None:
    chosen = environment.get(variable, environment.get("PAGER"))
    if chosen is not None and chosen.strip() in ("", "cat"):
        return None
    for command in filter(None, (chosen, "less", "more")):
        with suppress(OSError, ValueError, IndexError):
            words = shlex.split(command)
            if os.path.basename(words[0]) == "less":
                words.append("-R")  # let styles through
            env = {"LESS": LESS, **environment}
            return subprocess.Popen(words, stdin=subprocess.PIPE, env=env)
    return None
