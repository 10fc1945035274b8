"""The command tree as TAB needs it, read from `tables/NAME.txt`.

One file per top-level command and `rebyte.txt` for the root. Each line is a record of columns
that are separated by tabs:

    command  PATH  FIELDS             what follows belongs to this command
    sub      NAME  HELP               a command inside it
    option   NAMES  VALUES  MANY  HELP
    shared   NAMES  VALUES  MANY  HELP   an option that every command takes (root alone)
    argument VALUES  MANY

VALUES is empty for a flag. Otherwise it is `KIND=WORDS`: one of `KINDS` in values.py or nothing,
then the words that are always offered. MANY is `+` for what may be given again.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # importing typing would cost as much as all the rest of an answer
if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = "rebyte"


class Option:
    """An option: its names (`-o`, `--output`), what it takes, whether it may be repeated."""

    def __init__(self, names: str, values: str, many: str, about: str) -> None:
        self.names = names.split()
        self.values = values
        self.many = bool(many)
        self.about = about


class Section:
    """One command: the options and arguments it takes, the commands inside it."""

    def __init__(self, path: str = "", fields: str = "") -> None:
        self.path = path
        self.fields = fields
        self.subs: list[tuple[str, str]] = []
        self.options: list[Option] = []
        self.arguments: list[tuple[str, bool]] = []

    def option(self, name: str) -> Option | None:
        """The option of that name, or None."""
        return next((option for option in self.options if name in option.names), None)


def load(name: str) -> tuple[dict[str, Section], list[Option]]:
    """The sections of a file by their path (`workspace list`), and its shared options.

    Both are empty when there is no such command.
    """
    sections: dict[str, Section] = {}
    shared: list[Option] = []
    here = Section()
    for kind, *columns in _records(name):
        if kind == "command":
            here = sections[columns[0]] = Section(*columns)
        elif kind == "sub":
            here.subs.append((columns[0], columns[1]))
        elif kind == "argument":
            here.arguments.append((columns[0], bool(columns[1])))
        else:
            (shared if kind == "shared" else here.options).append(Option(*columns))
    return sections, shared


def _records(name: str) -> Iterator[list[str]]:
    if not name.replace("-", "").isalnum():
        return
    path = os.path.join(os.path.dirname(__file__), "tables", f"{name}.txt")
    try:
        # The loader reads from a folder and from inside a zip archive alike.
        data: bytes = __spec__.loader.get_data(path)  # type: ignore[union-attr]  # both have it
    except OSError:
        return
    for line in data.decode().splitlines():
        yield line.split("\t")
