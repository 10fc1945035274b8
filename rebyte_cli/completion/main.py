"""The process that answers TAB, called by the scripts of `rebyte completion SHELL`.

The script sets `_REBYTE_COMPLETE` to the shell's name. Bash gives its command line up to the
cursor and the part that it will replace; zsh and fish give the words, the one under the cursor
last. The first line of the answer says what the shell completes by itself (`file` or `dir`, a
tab, and what stands before the path in the same word) or is empty; bash may be told `nospace`
there. Then comes a line for each item: what to insert, and for zsh and fish a tab and the
description.
"""

from __future__ import annotations

import os
import sys

from .candidates import CompletionItem, Completions, offers

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..app import App


# Bash

_OPERATORS = "|&;()\n"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-")


class CommandLine:
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


def replacement(value: str, line: CommandLine, replaced: str) -> str | None:
    """What bash is to put in the place of `replaced`, the end of the word that readline takes.

    Readline breaks words at characters such as `:` and `=` too, so what stands before the break
    is left out of the reply. None when `value` cannot be put there.
    """
    kept = line.raw[: len(line.raw) - len(replaced)] if line.raw.endswith(replaced) else ""
    before = CommandLine(kept)
    if not value.startswith(before.word):
        return None
    return escaped(value[len(before.word) :], before.quote)


VARIABLE = "_REBYTE_COMPLETE"
ABOUT = 72  # characters of a description at most


def respond(shell: str, arguments: list[str]) -> int:
    """Print the answer for `shell`; returns the exit status of the process.

    If the history or configuration cannot be read, there is nothing to offer: errors would only
    disturb the prompt.
    """
    try:
        lines = _respond(shell, arguments)
    except Exception as error:
        from ..errors import RebyteError

        if not isinstance(error, RebyteError):
            raise
        return error.exit_status
    sys.stdout.buffer.write("".join(f"{line}\n" for line in lines).encode())
    return 0


def _respond(shell: str, arguments: list[str]) -> list[str]:
    if shell == "bash":
        return list(_bash(*arguments[:2]))
    if not arguments:
        return []
    *words, word = arguments
    found = offers(words, word, _app)
    return [f"{found.files}\t{found.before}", *map(_described, found.items)]


def _bash(text: str = "", replaced: str = "") -> Iterator[str]:
    line = CommandLine(text)
    found = Completions(files="file") if line.redirect else offers(line.words[1:], line.word, _app)
    if found.files and found.before.endswith("@"):
        at = len(found.before)
        found.items = [CompletionItem(found.before + path) for path in paths(line.word[at:])]
        found.files = "nospace" if [item for item in found.items if item.value[-1] == "/"] else ""
    if any(item.value.endswith("=") for item in found.items):
        found.files = "nospace"
    yield f"{found.files}\t{found.before}"
    for item in found.items:
        reply = replacement(item.value, line, replaced)
        if reply is not None:
            yield reply


def _described(item: CompletionItem) -> str:
    about = item.about
    if not about.isascii() or not about.isprintable():
        from ..output.console import one_line

        about = one_line(about)
    if len(about) > ABOUT:
        about = about[: ABOUT - 1] + "…"
    return f"{item.value}\t{item.shown}\t{about}"


def _app(options: dict[str, str]) -> App:
    from ..app import App

    app = App(os.environ)
    app.mends_config = True  # a misspelled name is no reason to offer nothing
    for name, value in {"quiet": True, **options}.items():
        if value:
            app.set_option(name, value)
    return app
