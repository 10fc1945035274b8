"""What a program in a jail may ask of the user's terminal in a control string.

Such a string does more than draw: it tells the terminal the folder of its next tab, replaces or
reads the clipboard, names files to show. Only what a screen needs is passed on, in one spelling
that every terminal reads alike; what the terminal sees in place of another is the end of a string.
"""

from __future__ import annotations

import codecs
import re

BEL, CAN, SUB, ESC = "\x07", "\x18", "\x1a", "\x1b"
ST = f"{ESC}\\"
# The letters after an escape that begin a string, and the characters that stand for both.
STARTS = {"\x90": "P", "\x98": "X", "\x9d": "]", "\x9e": "^", "\x9f": "_"}
# Besides those and an escape, but for one that begins something else: bytes that are not UTF-8, and
# would be such a character elsewhere.
SPECIAL = re.compile(r"[\x1b\x90\x98\x9d-\x9f\udc80-\udc9f](?!(?<=\x1b)[ -OQ-WY-\\`-~])")
ENDS = re.compile("[\x07\x18\x1a\x1b\x90\x98\x9c-\x9f]")
# Terminals do what these say within a sequence, and go back to it.
WITHIN = re.compile("[\x00-\x17\x19\x1c-\x1f\x7f]+")
UNPRINTED = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# Titles, colours, links, and the progress of ConEmu (whose other numbers run macros) or a message
# as of iTerm2; then the questions for what a terminal can do (XTGETTCAP) and has set (DECRQSS).
PASSED = re.compile(
    r"\](?:[012];.*|(?:[45]|1\d|10[45]|11\d)(?:;.*)?|8;.*;.*|9;(?:4;[\d;]*|[^\d;].*)|777;notify;.*)"
    r"|P(?:\+q[\dA-Fa-f;]*|\$q[ -~]{1,3})"
)
LONGEST_PASSED = 16_384  # characters
# After so many the rest is text: a string that a terminal would wait for the end of for ever.
LONGEST = 1 << 20


class ControlStrings:
    """A filter for the bytes that one program prints, in pieces that may end anywhere."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._is_escaped = False  # an escape came last
        self._string: str | None = None  # from its letter on; what is too long is only counted
        self._length = 0

    def passed(self, data: bytes) -> bytes:
        """What to write for `data`; the end of it is held back while it is not known what it is."""
        text, at, out = self._decoder.decode(data), 0, list[str]()
        while at < len(text):
            if self._is_escaped:
                at = self._after_escape(text, at, out)
            elif self._string is not None:
                at = self._in_string(text, at, out)
            else:
                at = self._in_text(text, at, out)
        return "".join(out).encode("utf-8", "surrogateescape")

    def _in_text(self, text: str, at: int, out: list[str]) -> int:
        found = SPECIAL.search(text, at)
        if found is None:
            out.append(text[at:])
            return len(text)
        out.append(text[at : found.start()])
        self._is_escaped = found[0] == ESC
        if found[0] in STARTS:
            self._begin(STARTS[found[0]])
        elif not self._is_escaped:
            out.append("\N{REPLACEMENT CHARACTER}")  # as a terminal draws it
        return found.end()

    def _after_escape(self, text: str, at: int, out: list[str]) -> int:
        if within := WITHIN.match(text, at):
            out.append(within[0])
            return within.end()
        character = text[at]
        self._is_escaped = character == ESC
        if self._string is not None:
            if character == "\\":
                self._end(out, ST)
                return at + 1
            self._drop(out)
        if character in STARTS.values():
            self._begin(character)
        elif not self._is_escaped:
            out.append(ESC)
            return at
        return at + 1

    def _in_string(self, text: str, at: int, out: list[str]) -> int:
        found = ENDS.search(text, at, at + LONGEST - self._length)
        end = found.start() if found else min(len(text), at + LONGEST - self._length)
        self._length += end - at
        assert self._string is not None
        if self._length <= LONGEST_PASSED:
            self._string += text[at:end]
        if found is None:
            if self._length == LONGEST:
                self._drop(out)
            return end
        if found[0] in (BEL, "\x9c"):
            self._end(out, BEL if found[0] == BEL else ST)
        elif found[0] == ESC:
            self._is_escaped = True
        else:
            self._drop(out)
            if found[0] in STARTS:
                self._begin(STARTS[found[0]])
        return found.end()

    def _begin(self, letter: str) -> None:
        self._string, self._length = letter, 0

    def _end(self, out: list[str], terminator: str) -> None:
        """Pass the string on without what some terminals would end it at, or drop it."""
        plain = UNPRINTED.sub("", self._string or "")
        if self._length <= LONGEST_PASSED and PASSED.fullmatch(plain):
            out.append(f"{ESC}{plain}{terminator}")
            self._string = None
        else:
            self._drop(out)

    def _drop(self, out: list[str]) -> None:
        """So that what came before the string and what comes after it do not make another one."""
        out.append(ST)
        self._string = None
