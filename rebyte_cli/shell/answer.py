"""From the words before the cursor to what may stand there."""

from __future__ import annotations

from .position import Position
from .table import ROOT, Section, load

TYPE_CHECKING = False  # importing typing would cost as much as all the rest of an answer
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..app import App

COMMA_LISTS = ("fields", "skills")


class Item:
    """One thing that may stand at the cursor.

    `value` replaces the whole word; `shown` is how a list names it; `about` describes it.
    """

    def __init__(self, value: str, about: str = "", shown: str | None = None) -> None:
        self.value = value
        self.about = about
        self.shown = value if shown is None else shown


class Answer:
    """The items, or the word that says what the shell completes by itself.

    `files` is `file`, `dir` or empty; `before` is the part of the word in front of the path.
    """

    def __init__(self, items: Iterable[Item] = (), files: str = "", before: str = "") -> None:
        self.items = list(items)
        self.files = files
        self.before = before


def answer(words: list[str], word: str, open_app: Callable[[dict[str, str]], App]) -> Answer:
    """What may replace `word`, which stands after `words` (without the command's own name).

    `open_app` makes the App for the options given so far (`{"profile": "work"}`); it is called
    only when a value is looked up on this machine.
    """
    at = Position(words)
    if at.section is None:
        return Answer()
    if at.pending is not None:
        return _values(at, at.pending.values, "", word, open_app)
    if word.startswith("-") and not at.literal:
        split = at.split(word)
        if split is not None:
            option, start = split
            return _values(at, option.values, word[:start], word[start:], open_app)
        return Answer(
            Item(name, option.about)
            for option in at.options()
            for name in option.names
            if name.startswith(word)
        )
    if at.section.subs:
        return Answer(_named(at.section, word))
    return _values(at, at.argument(), "", word, open_app)


def _named(section: Section, word: str) -> Iterable[Item]:
    return (Item(name, about) for name, about in section.subs if name.startswith(word))


def _values(
    at: Position,
    values: str,
    before: str,
    word: str,
    open_app: Callable[[dict[str, str]], App],
) -> Answer:
    kind, _, fixed = values.partition("=")
    if kind == "settings" and "=" in word:
        from .values import SETTINGS

        name, _, word = word.partition("=")
        return _values(at, SETTINGS.get(name, "="), f"{before}{name}=", word, open_app)
    if kind in ("file", "dir"):
        return Answer(files=kind, before=before)
    if kind == "data":
        return Answer(files="file", before=f"{before}@") if word.startswith("@") else Answer()
    done: set[str] = set(at.given)
    if kind == "settings":
        done.update(f"{past.partition('=')[0]}=" for past in at.given)
    commas = kind in COMMA_LISTS
    if commas:
        head, comma, word = word.rpartition(",")
        before += head + comma
        done.update(head.split(","))
    found: dict[str, str] = {}
    for value, about in _offered(at, kind, fixed, open_app):
        if not value.startswith(word) or value in done or (commas and "," in value):
            continue
        if value.isprintable():
            found.setdefault(value, about)
    if kind == "tasks" and not word:  # @last says no more than the first id does
        found = {value: about for value, about in found.items() if not value.startswith("@")}
    return Answer(Item(before + value, about, value) for value, about in found.items())


def _offered(
    at: Position, kind: str, fixed: str, open_app: Callable[[dict[str, str]], App]
) -> Iterable[tuple[str, str]]:
    assert at.section is not None
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
    elif kind not in ("", "commands", "settings"):
        from .values import LISTS

        yield from LISTS[kind](open_app({"profile": at.seen.get("--profile", "")}))
