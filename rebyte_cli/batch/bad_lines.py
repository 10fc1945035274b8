"""The mistakes of an input file, gathered so that one error names them all."""

from __future__ import annotations

from ..errors import BadUsage

MOST_FOUND = 1000  # mistakes; a file with more is another kind of file
MOST_SHOWN = 10  # mistakes that are named; of the others only the number is shown
MOST_NUMBERS = 5  # lines that are named for one mistake


class BadLines:
    """What is wrong with which line of an input. `name` is what errors call the input."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._found: dict[str, dict[int, None]] = {}  # mistakes, and the lines that have each
        self._count = 0

    def __bool__(self) -> bool:
        """Whether there is a mistake."""
        return bool(self._found)

    def add(self, number: int, problem: str) -> None:
        """Note a mistake in the line with this number."""
        self._found.setdefault(problem, {})[number] = None
        self._count += 1

    @property
    def are_too_many(self) -> bool:
        """Whether there are so many mistakes that looking for more is of no use."""
        return self._count >= MOST_FOUND

    def refuse(self) -> None:
        """Raise BadUsage that explains each of the first mistakes once, if there are any.

        Each comes with the first lines that have it and the number of the others.
        """
        if not self:
            return
        count = len({number for numbers in self._found.values() for number in numbers})
        lines = "1 bad line" if count == 1 else f"{count} bad lines"
        if self.are_too_many:
            lines = f"at least {lines}"
        shown = list(self._found.items())[:MOST_SHOWN]
        message = [f"{self.name} has {lines}; nothing was sent"]
        message += [f"{_lines(list(numbers))}: {problem}" for problem, numbers in shown]
        if rest := len(self._found) - len(shown):
            message.append(f"and {rest} more mistake{'s' if rest > 1 else ''}")
        raise BadUsage("\n".join(message))


def _lines(numbers: list[int]) -> str:
    """`line 7`, `lines 1, 2 and 3`, or the first ones and the number of all others."""
    if len(numbers) == 1:
        return f"line {numbers[0]}"
    named = [str(number) for number in numbers[:MOST_NUMBERS]]
    rest = len(numbers) - len(named)
    last = f"{rest} more" if rest else named.pop()
    return f"lines {', '.join(named)} and {last}"
