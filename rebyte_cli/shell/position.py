"""Where in the command line the cursor is: which command, and what is wanted there."""

from __future__ import annotations

from .table import ROOT, Option, Section, load


class Position:
    """The words before the cursor, understood.

    `section`: the command being typed, or None when a word before names no command.
    `pending`: the option whose value is typed now, or None. `given`: the arguments so far.
    `literal`: whether `--` was seen. `seen`: each option given so far (by its last name, as in
    `--profile`) with its last value.
    """

    def __init__(self, words: list[str]) -> None:
        sections, self.shared = load(ROOT)
        self.section: Section | None = sections.get(ROOT)
        self.pending: Option | None = None
        self.given: list[str] = []
        self.literal = False
        self.seen: dict[str, str] = {}
        for word in words:
            self._take(word)

    def option(self, name: str) -> Option | None:
        """The option of that name that may stand here."""
        assert self.section is not None
        found = self.section.option(name)
        return found or next((option for option in self.shared if name in option.names), None)

    def options(self) -> list[Option]:
        """Those that may still be given here."""
        assert self.section is not None
        return [
            option
            for option in [*self.section.options, *self.shared]
            if option.many or option.names[-1] not in self.seen
        ]

    def argument(self) -> str:
        """What the argument under the cursor takes; empty for nothing."""
        assert self.section is not None
        arguments = self.section.arguments
        at = len(self.given)
        if at < len(arguments):
            return arguments[at][0]
        return arguments[-1][0] if arguments and arguments[-1][1] else ""

    def split(self, word: str) -> tuple[Option, int] | None:
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
        if self.section is None:
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
        assert self.section is not None
        if self.section.path == ROOT:
            self.section = load(word)[0].get(word)
            return
        path = f"{self.section.path} {word}"
        self.section = load(path.split()[0])[0].get(path)
