"""What may stand at the cursor, given the words before it."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # importing typing would cost as much as all the rest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..app import App


# The command tree, from `tables/NAME.txt`

ROOT = "rebyte"


class OptionSpec:
    """An option: its names (`-o`, `--output`), what it takes, whether it may be repeated."""

    def __init__(self, names: str, values: str, many: str, about: str) -> None:
        self.names = names.split()
        self.values = values
        self.many = bool(many)
        self.about = about


class CommandSpec:
    """One command: its options, arguments and subcommands."""

    def __init__(self, path: str = "", fields: str = "") -> None:
        self.path = path
        self.fields = fields
        self.subs: list[tuple[str, str]] = []
        self.aliases: dict[str, str] = {}  # hidden names of subcommands
        self.options: list[OptionSpec] = []
        self.arguments: list[tuple[str, bool]] = []

    def option(self, name: str) -> OptionSpec | None:
        """The option of that name, or None."""
        return next((option for option in self.options if name in option.names), None)


def load(name: str) -> tuple[dict[str, CommandSpec], list[OptionSpec]]:
    """The sections of a file by path (`workspace list`), and its shared options.

    Both are empty if there is no such command.
    """
    sections: dict[str, CommandSpec] = {}
    shared: list[OptionSpec] = []
    here = CommandSpec()
    for kind, *columns in _records(name):
        if kind == "command":
            here = sections[columns[0]] = CommandSpec(*columns)
        elif kind == "sub":
            here.subs.append((columns[0], columns[1]))
        elif kind == "alias":
            here.aliases[columns[0]] = columns[1]
        elif kind == "argument":
            here.arguments.append((columns[0], bool(columns[1])))
        else:
            (shared if kind == "shared" else here.options).append(OptionSpec(*columns))
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


# The position of the cursor


class Position:
    """What the words before the cursor mean.

    `section`: the command being typed; without a path when a word before names no command.
    `pending`: the option whose value is typed now, or None. `given`: the arguments so far.
    `literal`: whether `--` was seen. `seen`: each option given so far (by its last name, as in
    `--profile`) with its last value.
    """

    def __init__(self, words: list[str]) -> None:
        sections, self.shared = load(ROOT)
        self.section = sections.get(ROOT, CommandSpec())
        self.pending: OptionSpec | None = None
        self.given: list[str] = []
        self.literal = False
        self.seen: dict[str, str] = {}
        for word in words:
            self._take(word)

    def option(self, name: str) -> OptionSpec | None:
        """The option of that name that may stand here."""
        found = self.section.option(name)
        return found or next((option for option in self.shared if name in option.names), None)

    def options(self) -> list[OptionSpec]:
        """The options that may still be given here."""
        return [
            option
            for option in [*self.section.options, *self.shared]
            if option.many or option.names[-1] not in self.seen
        ]

    def argument(self) -> str:
        """What the argument under the cursor takes; empty for nothing."""
        arguments = self.section.arguments
        at = len(self.given)
        if at < len(arguments):
            return arguments[at][0]
        return arguments[-1][0] if arguments and arguments[-1][1] else ""

    def split(self, word: str) -> tuple[OptionSpec, int] | None:
        """The option that a word such as `--output=js` or `-ojs` gives a value to, and where
        that value starts; None when it does not."""
        if word.startswith("--"):
            name, equals, _ = word.partition("=")
            option = self.option(name) if equals else None
            return (option, len(name) + 1) if option and option.values else None
        for at in range(1, len(word)):
            option = self.option(f"-{word[at]}")
            if option is None:
                return None
            if option.values:
                return (option, at + 1) if at + 1 < len(word) else None
        return None

    def _take(self, word: str) -> None:
        if not self.section.path:
            return
        if self.pending is not None:
            self.seen[self.pending.names[-1]] = word
            self.pending = None
        elif word == "--" and not self.literal:
            self.literal = True
        elif word.startswith("-") and word != "-" and not self.literal:
            self._take_option(word)
        elif self.section.subs:
            self._enter(word)
        else:
            self.given.append(word)

    def _take_option(self, word: str) -> None:
        valued = self.split(word)
        if valued is not None:
            option, start = valued
            self.seen[option.names[-1]] = word[start:]
            return
        names = [word] if word.startswith("--") else [f"-{letter}" for letter in word[1:]]
        for name in names:
            found = self.option(name)
            if found is None:
                return
            self.seen.setdefault(found.names[-1], "")
            self.pending = found if found.values else None

    def _enter(self, word: str) -> None:
        word = self.section.aliases.get(word, word)
        if self.section.path == ROOT:
            self.section = load(word)[0].get(word, CommandSpec())
            return
        path = f"{self.section.path} {word}"
        self.section = load(path.split()[0])[0].get(path, CommandSpec())


COMMA_LISTS = ("fields", "places", "skills", "words")
FEW = 20  # ids offered before anything is typed: more would not fit on a screen


class CompletionItem:
    """One thing that may stand at the cursor.

    `value` replaces the whole word; `shown` is how a list names it; `about` describes it.
    """

    def __init__(self, value: str, about: str = "", shown: str | None = None) -> None:
        self.value = value
        self.about = about
        self.shown = value if shown is None else shown


class Completions:
    """The items, or what the shell completes by itself.

    `files` is `file`, `dir` or empty; `before` is the part of the word in front of the path.
    """

    def __init__(
        self, items: Iterable[CompletionItem] = (), files: str = "", before: str = ""
    ) -> None:
        self.items = list(items)
        self.files = files
        self.before = before


def offers(words: list[str], word: str, open_app: Callable[[dict[str, str]], App]) -> Completions:
    """What may replace `word`, which stands after `words` (without the command's own name).

    `open_app` makes the App for the options given so far (`{"profile": "work"}`); it is called
    only when a value is looked up on this machine.
    """
    at = Position(words)
    if not at.section.path:
        return Completions()
    if at.pending is not None:
        return _values(at, at.pending.values, "", word, open_app)
    if word.startswith("-") and not at.literal:
        split = at.split(word)
        if split is not None:
            option, start = split
            return _values(at, option.values, word[:start], word[start:], open_app)
        return Completions(
            CompletionItem(name, option.about)
            for option in at.options()
            for name in option.names
            if name.startswith(word)
        )
    if at.section.subs:
        subs = (sub for sub in at.section.subs if sub[0].startswith(word))
        return Completions(CompletionItem(*sub) for sub in subs)
    return _values(at, at.argument(), "", word, open_app)


def _values(
    at: Position,
    values: str,
    before: str,
    word: str,
    open_app: Callable[[dict[str, str]], App],
) -> Completions:
    kind, _, fixed = values.partition("=")
    if kind == "settings" and "=" in word:
        from .values import SETTINGS

        name, _, word = word.partition("=")
        return _values(at, SETTINGS.get(name, "="), f"{before}{name}=", word, open_app)
    if kind in ("file", "dir"):
        return Completions(files=kind, before=before)
    if kind == "data":
        is_file = word.startswith("@")
        return Completions(files="file", before=f"{before}@") if is_file else Completions()
    done: set[str] = set(at.given)
    if kind == "settings":
        done.update(f"{past.partition('=')[0]}=" for past in at.given)
    commas = kind in COMMA_LISTS
    if commas:
        head, comma, word = word.rpartition(",")
        before += head + comma
        # The number behind a place is not a part of its name.
        end = ":" if kind == "places" else ","
        done.update(each.partition(end)[0] for each in head.split(","))
    found: dict[str, str] = {}
    for value, about in _offered(at, kind, fixed, open_app):
        if not value.startswith(word) or value in done or (commas and "," in value):
            continue
        if value.isprintable():
            found.setdefault(value, about)
    if kind == "tasks" and not word:  # @last is the first id
        found = {value: about for value, about in found.items() if not value.startswith("@")}
    items = [CompletionItem(before + value, about, value) for value, about in found.items()]
    return Completions(items if word else items[:FEW] if kind in ("tasks", "workspaces") else items)


def _offered(
    at: Position, kind: str, fixed: str, open_app: Callable[[dict[str, str]], App]
) -> Iterable[tuple[str, str]]:
    if kind == "commands":
        path = " ".join([*at.given]) or ROOT
        section = load(path.split()[0])[0].get(path)
        yield from section.subs if section else ()
        if at.given:
            return
    for value in fixed.split(",") if fixed else ():
        yield value, ""
    if kind == "fields":
        for field in at.section.fields.split(",") if at.section.fields else ():
            yield field, ""
    elif kind not in ("", "commands", "settings", "words"):
        from .values import LISTS

        yield from LISTS[kind](open_app({"profile": at.seen.get("--profile", "")}))
