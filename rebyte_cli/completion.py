"""The answer to TAB: what the scripts of `rebyte completion SHELL` call.

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

from .shell.answer import Answer, Item, answer

TYPE_CHECKING = False  # importing typing would cost as much as all the rest of an answer
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .app import App

VARIABLE = "_REBYTE_COMPLETE"
ABOUT = 72  # characters of a description at most


def respond(shell: str, arguments: list[str]) -> int:
    """Print the answer for `shell`; returns the exit status of the process.

    A history or a configuration that cannot be read means that there is nothing to offer: this
    is no place to complain.
    """
    try:
        lines = _respond(shell, arguments)
    except Exception as error:
        from .errors import RebyteError

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
    found = answer(words, word, _app)
    return [f"{found.files}\t{found.before}", *map(_described, found.items)]


def _bash(text: str = "", replaced: str = "") -> Iterator[str]:
    from .shell.bash import Line, paths, replacement

    line = Line(text)
    found = Answer(files="file") if line.redirect else answer(line.words[1:], line.word, _app)
    if found.files and found.before.endswith("@"):
        at = len(found.before)
        found.items = [Item(found.before + path) for path in paths(line.word[at:])]
        found.files = "nospace" if [item for item in found.items if item.value[-1] == "/"] else ""
    if any(item.value.endswith("=") for item in found.items):
        found.files = "nospace"
    yield f"{found.files}\t{found.before}"
    for item in found.items:
        reply = replacement(item.value, line, replaced)
        if reply is not None:
            yield reply


def _described(item: Item) -> str:
    about = item.about
    if not about.isprintable():
        from .output.terminal import one_line

        about = one_line(about)
    if len(about) > ABOUT:
        about = about[: ABOUT - 1] + "…"
    return f"{item.value}\t{item.shown}\t{about}"


def _app(options: dict[str, str]) -> App:
    from .app import App

    app = App(os.environ)
    for name, value in {"quiet": True, **options}.items():
        if value:
            app.set_option(name, value)
    return app
