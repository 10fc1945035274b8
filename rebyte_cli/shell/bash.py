"""Bash: its command line read without expanding anything, and words written so that it keeps them.

Bash hands over raw text, quotes included, and inserts a reply as it is. Both directions are ours.
"""

from __future__ import annotations

import os

_OPERATORS = "|&;()\n"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-")


class Line:
    """The last command of a command line, up to the cursor.

    `words`: the complete ones, without quotes. `raw`: the one under the cursor as it was typed;
    `word`: the same without quotes; `quote`: the quote that is still open at its end, or empty.
    `redirect`: whether it is the target of `<` or `>`.
    """

    def __init__(self, text: str) -> None:
        self.words: list[str] = []
        self.raw = self.word = self.quote = ""
        self.redirect = False
        self._inside = False
        at = 0
        while at < len(text):
            at = self._step(text, at)

    def _step(self, text: str, at: int) -> int:
        """Take the character at `at`, and what belongs to it; returns where the next one is."""
        letter = text[at]
        following = text[at + 1 : at + 2]
        if self.quote:
            if letter == self.quote:
                self._add(letter, "", quote="")
            elif self.quote == '"' and letter == "\\" and following and following in '"\\$`':
                self._add(letter + following, following)
                return at + 2
            else:
                self._add(letter, letter)
        elif letter in "'\"":
            self._add(letter, "", quote=letter)
        elif letter == "\\":
            self._add(letter + following, following)
            return at + 2
        elif letter.isspace() and letter != "\n":
            self._end()
        elif letter in "<>":
            if not self.raw.isdigit():
                self._end()
            self.raw, self.word, self._inside, self.redirect = "", "", False, True
        elif letter in _OPERATORS:
            self._end()
            self.words, self.redirect = [], False
        else:
            self._add(letter, letter)
        return at + 1

    def _add(self, raw: str, word: str, quote: str | None = None) -> None:
        self.raw += raw
        self.word += word
        self._inside = True
        if quote is not None:
            self.quote = quote

    def _end(self) -> None:
        if self._inside:
            if not self.redirect:
                self.words.append(self.word)
            self.redirect = False
        self.raw, self.word, self._inside = "", "", False


def paths(start: str) -> list[str]:
    """The files and folders (with a slash) whose path begins with `start`, as bash lists them.

    For a path after `@`: readline takes that for a part of the name and finds nothing.
    """
    folder, name = os.path.split(start)
    try:
        with os.scandir(folder or ".") as found:
            return sorted(
                os.path.join(folder, entry.name) + ("/" if entry.is_dir() else "")
                for entry in found
                if entry.name.startswith(name or ".") == bool(name)
            )
    except OSError:
        return []


def escaped(text: str, quote: str) -> str | None:
    """`text` so that bash reads it back as it is, where `quote` is open (or empty for none).

    None when that cannot be done: nothing stops history expansion inside double quotes.
    """
    if quote == "'":
        return text.replace("'", "'\\''")
    if quote == '"':
        if "!" in text:
            return None
        return "".join(f"\\{letter}" if letter in '"\\$`' else letter for letter in text)
    return "".join(
        letter if letter in _PLAIN or ord(letter) > 127 else f"\\{letter}" for letter in text
    )


def replacement(value: str, line: Line, replaced: str) -> str | None:
    """What bash is to put in the place of `replaced`, the end of the word that readline takes.

    Readline breaks words at characters such as `:` and `=` too, so what stands before the break
    is left out of the reply. None when `value` cannot be put there.
    """
    kept = line.raw[: len(line.raw) - len(replaced)] if line.raw.endswith(replaced) else ""
    before = Line(kept)
    if not value.startswith(before.word):
        return None
    return escaped(value[len(before.word) :], before.quote)
