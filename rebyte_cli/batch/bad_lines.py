"""The mistakes of an input file, gathered so that one error names them all."""

from __future__ import annotations

from ..errors import BadUsage

MOST_FOUND = 1000  # mistakes; a file with more is another kind of file
MOST_SHOWN = 10  # bad lines that are named; of the others only the number is told


class BadLines:
    """What is wrong with which line of an input. `name` is what errors call the input."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._found: list[tuple[int, str]] = []

    def __bool__(self) -> bool:
        """Whether there is a mistake."""
        return bool(self._found)

    def add(self, number: int, problem: str) -> None:
        """Note a mistake in the line with this number."""
        self._found.append((number, problem))

    @property
    def are_too_many(self) -> bool:
        """Whether there are so many mistakes that looking for more is of no use."""
        return len(self._found) >= MOST_FOUND

    def refuse(self) -> None:
        """Raise BadUsage that names the first bad lines and the number of all, if there are any."""
        if not self:
            return
        numbers = list(dict.fromkeys(number for number, _ in self._found))
        count = "1 bad line" if len(numbers) == 1 else f"{len(numbers)} bad lines"
        if self.are_too_many:
            count = f"at least {len(numbers)} bad lines"
        shown = set(numbers[:MOST_SHOWN])
        message = [f"{self.name} has {count}; nothing was sent"]
        message += [f"line {number}: {why}" for number, why in self._found if number in shown]
        if rest := len(numbers) - len(shown):
            message.append(f"and {rest} more")
        raise BadUsage("\n".join(message))
