"""Lending the user's terminal to a program in a jail, without handing it over.

The program has a separate terminal, whose bytes are passed on: in one that it shared with the
user's shell it could type commands (TIOCSTI) and leave any mode behind. What it draws is its own
affair, what else it asks of the terminal (`control_strings`) and how it leaves it are ours. Off a
terminal, the streams are pipes.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import io
import os
import re
import select
import signal
import stat
import subprocess
import sys
import termios
import time
import tty
from collections.abc import Callable
from functools import partial

from ....system.deadline import Deadline
from ....system.process_identity import stat_fields
from ....system.safe_text import clean
from ....system.signals import handled
from . import stand_in
from .control_strings import ControlStrings
from .jail_group import JailGroup
from .jailed_program import JailedProgram

TICK = 0.2  # seconds between two looks at what makes no noise
CHUNK = 65536
MASTERS = 5 << 8 | 2  # the device whose terminals are new ones each time it is opened
ANSWER_SECONDS = 0.5  # for a terminal to answer what it was asked, from one answer to the next
MOST_ANSWERS = 1000
LAST_ANSWER_SECONDS = 10.0  # for all of them
ASKED = re.compile(rb"5[\d;]*n")  # the end of a question that is answered as ours is
# What a terminal is asked last: once it has answered this, it has answered everything.
ASK, ANSWER = b"\x1b[5n", b"\x1b[0n"
# What may begin a sequence: an escape, or one of the characters that stand for it and another one.
# To an enquiry some terminals answer, too, and another set of characters needs no sequence.
STARTS = re.compile(rb"[\x05\x0e\x1b]|\xc2[\x80-\x9f]")
IGNORED = bytes({*range(0x20), 0x7F} - {0x18, 0x1A, 0x1B})  # by terminals, within a sequence
KEEP_TITLE, TITLE_BACK = b"\x1b[22;0t", b"\x1b[23;0t"
# Undone first, since a terminal is deaf to the rest: a sequence or string that does not end (in
# tmux, only the second ends it), the modes VT52 and Tektronix, a printer that is sent everything.
# Then answers in 8-bit characters.
HEARING = b"\x18\x1b\\\x1b<\x1b\x03\x1b[4i\x1b F"
# Locked keyboard, visible control characters, insert mode, newlines, local echo; then margins
# (whose reset moves the cursor), UTF-8, character set, keypad, modifiers, the keyboard, cursor
# shape, protected characters, colours, link.
PLAIN = (
    b"\x1b[2;3;4;20l\x1b[12h\x1b7\x1b[r\x1b8\x1b%G\x1b(B\x0f\x1b>"
    b"\x1b[>0m\x1b[>1m\x1b[>2m\x1b[>4m\x1b[=0u\x1b[0 q\x1bW\x1b[0m\x1b]8;;\x1b\\"
)
# A colour is set, not only asked for. It is reset only then: the user's shell may have set others.
COLOURING = re.compile(rb"\x1b\](?:1\d|[45];\d+)(?:;\?(?:;\d+(?=;))?+)*+;[^?]")
COLOURS = b"".join(b"\x1b]%d\x1b\\" % n for n in (104, 105, *range(110, 120)))
# Tab stops, too, may be the user's. Not all terminals have a sequence for the usual ones (DECST8C).
TABBING = re.compile(rb"\x1b\[[\d;]*g|\x1bH|\xc2(?:\x88|\x9b[\d;]*g)")
# Set, reset, or as it was when it was saved.
MODE = re.compile(rb"(?:\x1b\[|\xc2\x9b)(?:\?([\d;:]{1,2000})([hlr])|([<>])(\d{0,3})(?:;\d+)?u)")
ZEROS = re.compile(rb"(?<=[\[\x9b?;<>])0+(?=[\d;])")  # before a number, however many
LONGEST_SEQUENCE = 2048
USUALLY_ON = (2, 7, 8, 25)  # sequences as these, lines that wrap, keys that repeat, and a cursor
SCREENS = (47, 1047, 1049)
# The mouse, the focus, colours, sizes, keys and pasted text would be typed into the user's shell.
# However a program has written that it wants them, they are ended.
TYPING = (9, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 2004, 2031, 2048, 9001)


def lend(
    program: JailedProgram, watch: Callable[[], str], passed: tuple[int, ...] = ()
) -> tuple[int, str]:
    """Run a program, in the jail if there is one, with the terminal or streams of this process.

    On a terminal, it has to make standard input its controlling terminal. Returns the exit status
    as a shell tells it, and why it was stopped: what `watch`, which is asked a few times a second,
    said, or that the jail outlives it. It inherits the descriptors `passed`. Raises OSError when it
    cannot start, or what it prints cannot be written.
    """
    sys.stdout.flush()
    with contextlib.ExitStack() as stack:
        relay = _Terminal(stack) if stand_in.on_terminal() else _Pipes(stack)
        group = stack.enter_context(relay.start(partial(program.start, passed=passed)))
        reason = relay.pass_on(group, watch)
        status = group.process.wait()
    return 128 - status if status < 0 else status, reason


class _Pipes:
    """Three pipes: the program gets no descriptor of the user's, through which it could read back a
    file that its output is added to."""

    is_shown = True  # while the user's terminal is that of the shell, nothing is passed on

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._theirs, self.into = os.pipe()
        self.out_of: dict[int, int] = {}  # what the program prints to where it belongs
        self._to = {where: _without_waiting(where, stack) for where in (1, 2)}
        self._unwritten: dict[int, memoryview] = {}  # until that takes it, no more is read for it
        # What is left of a character, for each stream that a user sees. With the terminal's input
        # elsewhere, neither its modes nor its answers could be put right at the end.
        self._text = {where: _decoder() for where in self._to.values() if os.isatty(where)}
        os.set_blocking(self.into, False)
        stack.callback(self._close)

    def start(self, start: Callable[..., JailGroup]) -> JailGroup:
        pipe = subprocess.PIPE
        stdin = f"/proc/{os.getpid()}/fd/{self._theirs}"
        group = start(stdin=stdin, stdout=pipe, stderr=pipe)
        assert group.process.stdout is not None
        assert group.process.stderr is not None
        outputs = (group.process.stdout.fileno(), group.process.stderr.fileno())
        self.out_of = dict(zip(outputs, self._to.values(), strict=True))
        return group

    def pass_on(self, group: JailGroup, watch: Callable[[], str]) -> str:
        """Pass on what there is until the program has ended; why it was stopped."""
        reason = self._pass_on(group.process, lambda: watch() or group.overdue())
        if reason:
            group.kill()
        return reason

    def _pass_on(self, process: subprocess.Popen[bytes], watch: Callable[[], str]) -> str:
        """Until the program has ended, and all is written; why it is to be stopped.

        Nothing here may wait for a reader, such as a pager on its first page: meanwhile, neither
        `watch` nor the terminal would be looked at.
        """
        waiting, source, look = b"", [0], 0.0
        while self.out_of or self._unwritten:
            is_over = self.is_shown and not self._unwritten and process.poll() is not None
            given = [] if waiting else source
            into = [self.into] if waiting else []
            read = [each for each, where in self.out_of.items() if where not in self._unwritten]
            wanted = [*read, *given] if self.is_shown else []
            full = self._unwritten if self.is_shown else ()
            ready, free, _ = select.select(wanted, [*into, *full], [], TICK)
            for each in ready:
                data = _read(each)
                if each == 0:
                    waiting, source = data, source if data else []
                    if not data and self.at_end_of_input():
                        return "the terminal is gone"
                elif data:
                    where = self.out_of[each]
                    self._write(where, memoryview(self.shown(where, data)))
                else:
                    del self.out_of[each]
            for where in set(free) - {self.into}:
                self._write(where, self._unwritten.pop(where))
            if self.into in free:
                try:
                    waiting = waiting[os.write(self.into, waiting) :]
                except BlockingIOError:
                    pass
                except OSError:  # it reads no more
                    waiting, source = b"", []
            if time.monotonic() >= look:
                look = time.monotonic() + TICK
                if reason := self.tick() or watch():
                    return reason
            if is_over and not ready:
                break  # a child that it left behind has the other end
        return ""

    def at_end_of_input(self) -> bool:
        """Whether the end of the input ends the program, too."""
        self._close_input()
        return False

    def shown(self, where: int, data: bytes) -> bytes:
        """What to write for what the program printed: to a terminal, no control sequences."""
        if decoder := self._text.get(where):
            return clean(decoder.decode(data)).encode("utf-8", "replace")
        return data

    def tick(self) -> str:
        """Do what is to be done a few times a second; why the program is to be stopped."""
        return ""

    def _write(self, where: int, data: memoryview) -> None:
        """Write what is taken now, and keep the rest."""
        if left := _write_in_time(where, data, 0):
            self._unwritten[where] = left

    def _close_input(self) -> None:
        if self.into >= 0:
            os.close(self.into)
            self.into = -1

    def _close(self) -> None:
        os.close(self._theirs)
        self._close_input()


class _Terminal(_Pipes):
    """A terminal for the program, like that of the user, which is raw meanwhile."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.into, self._theirs = os.openpty()
        self._to, self._unwritten = {1: _without_waiting(1, stack)}, {}
        self._usual = termios.tcgetattr(0)
        self._strings, self._modes = ControlStrings(), _Modes()
        self._stopped = 0  # ticks in a row
        self._parent, self._has_session = os.getppid(), stand_in.is_of_terminal()
        termios.tcsetattr(self._theirs, termios.TCSANOW, self._usual)
        self._resize()
        stack.callback(self._close)

    def start(self, start: Callable[..., JailGroup]) -> JailGroup:
        group = start(stdin=None, stdout=self._theirs, stderr=self._theirs)
        os.set_blocking(self.into, False)
        self.out_of = {self.into: self._to[1]}
        return group

    def pass_on(self, group: JailGroup, watch: Callable[[], str]) -> str:
        os.close(self._theirs)  # so that reading ends with the last of its processes
        self._theirs = -1
        handlers = {
            signal.SIGWINCH: lambda *_: self._resize(),
            signal.SIGCONT: lambda *_: self._be_raw(),
            signal.SIGHUP: signal.SIG_IGN,  # the end of the input says the same
        }
        with handled(handlers):
            try:
                self._be_raw()
                return super().pass_on(group, watch)
            finally:
                if self.is_shown:
                    self._leave()

    def shown(self, where: int, data: bytes) -> bytes:
        return self._modes.seen(self._strings.passed(data))

    def at_end_of_input(self) -> bool:
        return True

    def tick(self) -> str:
        # When a shell is killed, its terminal may stay open, without a session.
        has_lost = self._has_session and not stand_in.is_of_terminal()
        if os.getppid() != self._parent or has_lost:
            return "the terminal is gone"
        if not self.is_shown:
            if stand_in.has_terminal():
                self._continue()
            return ""
        # A moment later a shell inside may have taken its terminal back.
        self._stopped = self._stopped + 1 if self._is_stopped() else 0
        if self._stopped > 1 and not self._unwritten:
            self._suspend()
        return ""

    def _is_stopped(self) -> bool:
        """Whether the program has stopped itself, as at Ctrl-Z: there is no shell to resume it."""
        with contextlib.suppress(OSError):
            return stat_fields(os.tcgetpgrp(self.into))[:1] == ["T"]
        return False

    def _suspend(self) -> None:
        """Have the user's shell see what the program did. What it left running is still watched."""
        self._stopped = 0
        self._leave()
        self.is_shown = False
        stand_in.step_back()

    def _continue(self) -> None:
        self.is_shown = True
        self._be_raw()
        self._resize()
        with contextlib.suppress(OSError):
            os.killpg(os.tcgetpgrp(self.into), signal.SIGCONT)

    def _resize(self) -> None:
        with contextlib.suppress(OSError):
            size = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))
            fcntl.ioctl(self.into, termios.TIOCSWINSZ, size)

    def _be_raw(self) -> None:
        with contextlib.suppress(termios.error):
            tty.setraw(0, termios.TCSANOW)

    def _leave(self) -> None:
        """Leave the terminal as it was found, without answers that nothing waits for any more."""
        with handled({signal.SIGTTOU: signal.SIG_IGN}):
            try:
                with contextlib.suppress(OSError):
                    undo = self._modes.undo()
                    last = memoryview(undo + ASK)
                    if undo and not _write_in_time(self._to[1], last, ANSWER_SECONDS):
                        self._await_answer()
            finally:
                with contextlib.suppress(termios.error):
                    termios.tcsetattr(0, termios.TCSAFLUSH, self._usual)

    def _await_answer(self) -> None:
        """Read what the terminal answers, up to the answer to our own question."""
        said, wanted = b"", 1 + self._modes.asked
        deadline = Deadline(LAST_ANSWER_SECONDS)
        while not deadline.has_passed:
            if said.count(ANSWER) >= wanted or not select.select([0], [], [], ANSWER_SECONDS)[0]:
                return
            said += os.read(0, CHUNK) or ANSWER * wanted

    def _close(self) -> None:
        if self._theirs >= 0:
            os.close(self._theirs)
        os.close(self.into)


class _Modes:
    """What a program has changed of a terminal, and how to undo it."""

    def __init__(self) -> None:
        self._is_used = False
        self._changed: dict[int, bool] = {}
        self.asked = 0  # how often the program has asked what we ask at the end
        self._is_coloured = self._is_tabbed = False
        self._keyboards = 0  # settings of the keyboard that it has put on the terminal's stack
        self._rest = b""

    def seen(self, data: bytes) -> bytes:
        """Note what `data` does, which may end within a sequence; what to write for it."""
        text, end = ZEROS.sub(b"", self._rest + data.translate(None, IGNORED)), 0
        new = len(ASKED.findall(text)) - len(ASKED.findall(self._rest))
        self.asked = min(MOST_ANSWERS, self.asked + new)
        self._is_coloured |= COLOURING.search(text) is not None
        self._is_tabbed |= TABBING.search(text) is not None
        for found in MODE.finditer(text):
            end = found.end()
            for mode in (found[1] or b"").split(b";"):
                if number := int(mode.partition(b":")[0][:5] or 0):
                    is_restored = found[2] == b"r"
                    is_usual = number in USUALLY_ON
                    self._changed[number] = not is_usual if is_restored else found[2] == b"h"
            if found[3] == b">":
                self._keyboards += 1
            elif found[3]:
                self._keyboards = max(0, self._keyboards - int(found[4] or 1))
        self._rest = text[end:][-LONGEST_SEQUENCE:]
        if self._is_used or not (STARTS.search(data) or STARTS.search(text)):
            return data
        self._is_used = True
        return KEEP_TITLE + data

    def undo(self) -> bytes:
        """The sequences that undo it all; nothing if the program has used none."""
        if not self._is_used:
            return b""
        self._is_used = False
        order = sorted(self._changed.items(), key=lambda item: item[0] in SCREENS)
        wrong = [mode for mode, is_on in order if is_on != (mode in USUALLY_ON)]
        wrong += [mode for mode in TYPING if mode not in wrong]
        back = [b"\x1b[?%d%c" % (mode, "lh"[mode in USUALLY_ON].encode()) for mode in wrong]
        keyboards = b"\x1b[<%du" % self._keyboards if self._keyboards else b""
        colours = COLOURS if self._is_coloured else b""
        tabs = _usual_tabs() if self._is_tabbed else b""
        self._changed, self._keyboards, self._is_coloured, self._is_tabbed = {}, 0, False, False
        return HEARING + keyboards + b"".join(back) + PLAIN + tabs + colours + TITLE_BACK


def _usual_tabs() -> bytes:
    """What sets tab stops eight columns apart. Raises OSError."""
    columns = range(9, 1 + (os.get_terminal_size(0).columns or 80), 8)
    stops = b"".join(b"\x1b[%dG\x1bH" % column for column in columns)
    return b"\x1b7\x1b[3g" + stops + b"\x1b8"


def _decoder() -> io.IncrementalNewlineDecoder:
    """Text of pieces of UTF-8; a carriage return, which would draw over the line, ends it."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return io.IncrementalNewlineDecoder(decoder, translate=True)


def _read(descriptor: int) -> bytes:
    """What can be read now; nothing at the end."""
    try:
        return os.read(descriptor, CHUNK)
    except OSError:  # how Linux says that the other side of a terminal was closed
        return b""


def _without_waiting(where: int, stack: contextlib.ExitStack) -> int:
    """A descriptor of the same terminal or pipe that never waits; itself where there is none.

    It is opened again: O_NONBLOCK on a descriptor is shared with the user's shell.
    """
    with contextlib.suppress(OSError):
        found = os.fstat(where)
        if stat.S_ISFIFO(found.st_mode) or (os.isatty(where) and found.st_rdev != MASTERS):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
            where = os.open(f"/proc/self/fd/{where}", flags)
            stack.callback(os.close, where)
    return where


def _write_in_time(where: int, data: memoryview, seconds: float) -> memoryview:
    """Write until nothing is taken for so long; what is left. Raises OSError."""
    never_waits = stat.S_ISREG(os.fstat(where).st_mode) or not os.get_blocking(where)
    size = len(data) if never_waits else select.PIPE_BUF
    with contextlib.suppress(BlockingIOError):
        while data and select.select([], [where], [], seconds)[1]:
            data = data[os.write(where, data[:size]) :]
    return data
