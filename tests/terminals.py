"""Terminals to look at in tests: pyte draws what is written, in memory or by a real process."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import pexpect
import pyte

from rebyte_cli.output.console import Console
from tests.conftest import COMMAND
from tests.fork_server import commands

# Settings of the keyboard, and saved modes, at which pyte fails.
UNKNOWN = re.compile(r"\x1b\[(?:[?>][\d;?]*[mrs]|=\d*u)")


def lines_of(screen: pyte.Screen) -> list[str]:
    """What a screen shows, without blanks at the ends of lines and empty lines at its end."""
    lines = [line.rstrip() for line in screen.display]
    while lines and not lines[-1]:
        lines.pop()
    return lines


class Terminal(io.StringIO):
    """A terminal in memory, for stdout and stderr of a `Console` alike."""

    encoding = "utf-8"

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        super().__init__()
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.Stream(self.screen)

    def write(self, text: str) -> int:
        """Draw it as a terminal driver passes it on."""
        self._stream.feed(text.replace("\n", "\r\n"))
        return super().write(text)

    def resize(self, columns: int, rows: int, *, wraps: bool) -> None:
        """Resize the window; `wraps`: as terminals do that wrap lines which no longer fit."""
        if not wraps:
            self.screen.resize(rows, columns)
            return
        above = [line.rstrip() for line in self.screen.display[: self.screen.cursor.y]]
        below = [line.rstrip() for line in self.screen.display[self.screen.cursor.y :]]
        assert self.screen.cursor.x < columns
        x, y = self.screen.cursor.x, sum(max(-(-len(line) // columns), 1) for line in above)
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.Stream(self.screen)
        self._stream.feed("\r\n".join([*above, *below]).rstrip())
        assert y < rows
        self.screen.cursor_position(y + 1, x + 1)

    @property
    def lines(self) -> list[str]:
        """See `lines_of`."""
        return lines_of(self.screen)

    def console(self, **more: Any) -> Console:
        """A console whose streams both are this terminal."""
        tty: dict[str, Any] = {"out_tty": True, "err_tty": True, "live": True}
        return Console(self, self, **{**tty, "width": self.screen.columns, **more})


def finish(child: pexpect.spawn[Any]) -> int:
    """Read all that a process still prints, into `before`; returns its exit status."""
    child.expect(pexpect.EOF)
    return _ended(child)


def _ended(child: pexpect.spawn[Any]) -> int:
    child.wait()  # `close` kills a process that has closed its terminal and not ended yet
    child.close()
    return int(child.exitstatus)


class Session:
    """A process on a pseudo-terminal, and what its user sees."""

    def __init__(
        self,
        command: list[str],
        columns: int = 80,
        rows: int = 24,
        *,
        echo: bool = False,
        answers: bool = False,
        fork: bool = True,
        env: Mapping[str, str] | None = None,
        **environment: str,
    ) -> None:
        """`env` takes the place of this process's environment, to which `environment` adds.

        With `answers`, the terminal answers what programs ask it, such as where its cursor is.

        COMMAND is forked, which is faster (see `fork_server`): `child` then stands for it, and
        SIGSTOP would not reach it.
        """
        if fork and command[: len(COMMAND)] == COMMAND:
            command = [str(commands() / "rebyte"), *command[len(COMMAND) :]]
        ours = {"LC_ALL": "C.UTF-8", "TERM": "xterm-256color", **environment}
        self.child = pexpect.spawn(
            command[0],
            command[1:],
            env={**os.environ, **ours} if env is None else {**env, **environment},
            dimensions=(rows, columns),
            encoding="utf-8",
            codec_errors="replace",  # Ctrl-C and Ctrl-Z cut what was written and not yet read
            echo=echo,
            timeout=60,
        )
        self.screen = pyte.HistoryScreen(columns, rows, history=10_000)
        if answers:
            self.screen.write_process_input = self.child.send  # type: ignore[method-assign]
        self._stream = pyte.Stream(self.screen)
        self.raw = ""

    @classmethod
    def python(cls, program: str, *arguments: str, **more: Any) -> Session:
        """A session that runs a Python program."""
        return cls([sys.executable, "-c", program, *arguments], **more)

    def read(self, seconds: float = 0.05) -> bool:
        """Draw what comes within that time; False when the process has ended."""
        try:
            text = self.child.read_nonblocking(65536, seconds)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.raw += text
        self._stream.feed(UNKNOWN.sub("", text))
        return True

    def until(self, seen: Callable[[list[str]], object], seconds: float = 60) -> list[str]:
        """Read until what is shown satisfies `seen`; returns the lines."""
        end = time.monotonic() + seconds
        while not seen(self.lines):
            assert self.read(), f"ended: {self.lines}"
            assert time.monotonic() < end, self.lines
        return self.lines

    def finish(self, seconds: float = 60) -> int:
        """Read to the end; returns the exit status."""
        end = time.monotonic() + seconds
        while self.read(1):
            assert time.monotonic() < end, self.lines
        return _ended(self.child)

    def kill(self) -> None:
        """End the process, whatever it does."""
        self.child.kill(signal.SIGKILL)
        self.child.wait()
        self.child.close()

    def resize(self, columns: int, rows: int) -> None:
        """As a user does with the window."""
        self.screen.resize(rows, columns)
        self.child.setwinsize(rows, columns)

    @property
    def lines(self) -> list[str]:
        """What the screen shows; see `lines_of`."""
        return lines_of(self.screen)

    @property
    def everything(self) -> list[str]:
        """The lines that have scrolled away, then those on the screen."""
        width = self.screen.columns
        gone = ["".join(row[at].data for at in range(width)).rstrip() for row in self.scrolled]
        return [*gone, *self.lines]

    @property
    def scrolled(self) -> list[Any]:
        """The rows above the screen, as pyte keeps them."""
        return list(self.screen.history.top)
