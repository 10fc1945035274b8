"""The two output streams, and text made safe to print on them.

Text from elsewhere (the API, a file name, the command line) can hold control sequences that move
the cursor, change the clipboard or reorder what is read. `clean` turns them into visible escapes;
everything that people read goes through it.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from io import RawIOBase
from threading import RLock
from typing import Any, Literal, Protocol, TextIO

from ..errors import ReaderGone, RebyteError
from ..system.safe_text import clean as clean
from ..system.safe_text import is_plain as is_plain
from ..system.safe_text import one_line as one_line
from ..system.safe_text import replace_unsafe as replace_unsafe

Color = Literal["auto", "always", "never"]


def spells_unicode(stream: TextIO | None) -> bool:
    """Whether the stream's encoding can express every character."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")


def ellipsis_for(stream: TextIO | None) -> str:
    """What ends a text that was cut, as the stream's encoding can express it."""
    return "…" if spells_unicode(stream) else "..."


def _is_tty(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def _is_pipe(stream: TextIO | None) -> bool:
    try:
        mode = os.fstat(stream.fileno()).st_mode if stream is not None else 0
    except (OSError, ValueError):  # closed, or no file of the system
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _wants_color(environment: Mapping[str, str], color: Color, tty: bool) -> bool:
    """`--color`, then NO_COLOR, then FORCE_COLOR, then what the stream is."""
    if color != "auto":
        return color == "always"
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return tty and environment.get("TERM") != "dumb"


def _columns(environment: Mapping[str, str], out: TextIO | None) -> int:
    asked = environment.get("COLUMNS", "")
    if asked.isascii() and asked.isdigit() and int(asked) > 0:
        return int(asked)
    return _size(out)[0] or 80


def _size(stream: TextIO | None) -> tuple[int, int]:
    """Columns and rows of a terminal; 0 for what it does not tell, or what is none."""
    if stream is not None:
        with suppress(OSError, ValueError):
            return os.get_terminal_size(stream.fileno())
    return 0, 0


def _never_fail_to_encode(stream: TextIO | None) -> None:
    # A title that the locale cannot encode must not end the command.
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _with_buffer(stream: TextIO | None) -> TextIO | None:
    # With PYTHONUNBUFFERED, Python silently drops the rest of a write that a full disk or a closing
    # pipe accepted only in part. A buffer retries until everything is written, or raises.
    if stream is None or not isinstance(getattr(stream, "buffer", None), RawIOBase):
        return stream
    return open(
        stream.fileno(),
        "w",
        encoding=stream.encoding,
        errors="backslashreplace",
        closefd=False,
    )


class LiveRegion(Protocol):
    """A region at the foot of a terminal that is redrawn (see progress.py)."""

    def redraw(self) -> None:
        """Draw it now."""

    def erase(self) -> None:
        """Take it off the screen until it is redrawn; the caller holds the console's lock."""


class Console:
    """stdout and stderr: what each can show, and how much is printed.

    `out`, `err`: the text streams, or None when the process was started with one closed.
    `out_tty`, `err_tty`: whether each is a terminal. `width`: columns of the terminal, 80 where
    that is unknown. `out_color`, `err_color`: whether each gets colours. `live`: whether stderr
    can show a region that is redrawn, `out_live`: whether stdout can. `out_pipe`: whether stdout
    has a reader, which may print on the same terminal. `unicode`: whether stdout can
    encode any character. `styled`: whether stdout shows bold text and the like, which NO_COLOR
    leaves on. `quiet`: print nothing on stderr but warnings and errors.
    """

    def __init__(
        self,
        out: TextIO | None,
        err: TextIO | None,
        *,
        out_tty: bool = False,
        err_tty: bool = False,
        width: int = 80,
        out_color: bool = False,
        err_color: bool = False,
        live: bool = False,
        out_live: bool = False,
        out_pipe: bool = False,
        styled: bool | None = None,
        quiet: bool = False,
    ) -> None:
        self.out = out
        self.err = err
        self.out_tty = out_tty
        self.err_tty = err_tty
        self.width = width
        self.out_color = out_color
        self.err_color = err_color
        self.live = live
        self.out_live = out_live
        self.out_pipe = out_pipe
        self.styled = out_live and out_color if styled is None else styled
        self.quiet = quiet
        self.unicode = spells_unicode(out)
        # Held while something is written, so that a redraw never lands inside it.
        self.lock = RLock()
        self.region: LiveRegion | None = None  # the one that is being redrawn
        self.mid_line = False  # the cursor of the terminal stands behind unfinished text

    @classmethod
    def detect(
        cls,
        environment: Mapping[str, str],
        color: Color = "auto",
        quiet: bool = False,
    ) -> Console:
        """The streams of this process, as NO_COLOR, FORCE_COLOR, TERM and COLUMNS say."""
        # sys.stdout is None after `>&-`, which its type does not say.
        out: TextIO | None = sys.stdout
        err: TextIO | None = sys.stderr
        out_tty, err_tty = _is_tty(out), _is_tty(err)
        _never_fail_to_encode(out)
        _never_fail_to_encode(err)
        return cls(
            _with_buffer(out),
            err,
            out_tty=out_tty,
            err_tty=err_tty,
            width=_columns(environment, out),
            out_color=_wants_color(environment, color, out_tty),
            err_color=_wants_color(environment, color, err_tty),
            live=err_tty and not quiet and environment.get("TERM") != "dumb",
            out_live=out_tty and environment.get("TERM") != "dumb",
            out_pipe=_is_pipe(out),
            styled=out_tty and environment.get("TERM") != "dumb" and color != "never",
            quiet=quiet,
        )

    def size(self, *, on_out: bool = False) -> tuple[int, int]:
        """Columns and rows of the terminal that stderr (or stdout) is, as they are now."""
        columns, rows = _size(self.out if on_out else self.err)
        return (columns, rows) if columns and rows else (self.width, 24)

    def in_background(self, *, on_out: bool = False) -> bool:
        """Whether a shell has the terminal now that stderr (or stdout) is, as after `&` or `bg`."""
        stream = self.out if on_out else self.err
        if stream is None:
            return False
        try:
            return os.tcgetpgrp(stream.fileno()) != os.getpgrp()
        except (OSError, ValueError):  # the terminal of another session, or none
            return False

    def flush_out(self) -> None:
        """Flush stdout; raises as `write_out` does."""
        if self.out is not None:
            self.write_out("", flush=True)

    def write_out(self, data: str | bytes, *, flush: bool = False) -> None:
        """Write data to stdout, bytes unchanged.

        Raises ReaderGone if the reader went away, RebyteError if it cannot be written (a full
        disk, a closed stream).
        """
        if self.out is None:
            raise RebyteError("cannot write to stdout: it is closed", code="stdout")
        with self.lock:
            if self.out_tty:
                self._erase()
            elif self.out_pipe and data and self.live:
                # The reader prints at a moment of its choice, and a redraw would land inside it.
                self._erase()
                self.live = False
            try:
                if isinstance(data, bytes):
                    self.out.flush()
                    self.out.buffer.write(data)
                else:
                    self.out.write(data)
                    if self.out_tty and data:
                        self.mid_line = not data.endswith("\n")
                if flush:
                    self.out.flush()
            except (OSError, ValueError) as error:
                raise self._lost(error) from error

    def _erase(self) -> None:
        if self.region is not None:
            self.region.erase()

    def _lost(self, error: Exception) -> RebyteError:
        """Return the error for an stdout that cannot be written, and silence the stream."""
        _silence(self.out)
        if getattr(error, "errno", None) == errno.EPIPE:
            return ReaderGone()
        reason = getattr(error, "strerror", None) or "it is closed"
        return RebyteError(f"cannot write to stdout: {reason}", code="stdout")

    def write_err(self, text: str) -> None:
        """Write text to stderr. Never raises, since a failure could not be reported."""
        if self.err is None:
            return
        with self.lock:
            self._erase()
            if self.mid_line and self.err_tty:
                text = "\n" + text
            try:
                self.err.write(text)
                self.err.flush()
                if self.err_tty and text:
                    self.mid_line = not text.endswith("\n")
            except (OSError, ValueError):
                _silence(self.err)

    def draw(self, text: str, *, on_out: bool = False) -> None:
        """Write text with ANSI sequences to the terminal that stderr (or stdout) is.

        Raises OSError or ValueError if it is gone.
        """
        stream = self.out if on_out else self.err
        if stream is not None:
            stream.write(text)
            stream.flush()

    def notify(self, text: str, *, desktop: bool = True, in_tmux: bool = False) -> None:
        """Ring the bell of the terminal and, with `desktop`, have it show a notice there (OSC 9).

        tmux passes the notice on only if it is wrapped, and if its option allow-passthrough is on.
        The user asked for it, so `quiet` changes nothing.
        """
        if self.err is None or not self.err_tty:
            return
        notice = f"\x1b]9;{one_line(text)}\x1b\\" if desktop else ""
        if notice and in_tmux:
            notice = f"\x1bPtmux;{notice.replace(chr(27), chr(27) * 2)}\x1b\\"
        with self.lock, suppress(OSError, ValueError):
            self.err.write(f"\a{notice}")
            self.err.flush()


def _silence(stream: Any) -> None:
    # Python flushes its streams at exit. What is still buffered would fail again there, with
    # "Exception ignored" on stderr and status 120, so it goes to the null device.
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, stream.fileno())
        finally:
            os.close(null)
    except (OSError, ValueError, AttributeError):
        pass
