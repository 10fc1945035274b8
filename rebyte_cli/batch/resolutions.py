"""What the user says with `--resolve` about lines whose outcome is not known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..errors import BadUsage
from .input import InputLine


class Resolution(NamedTuple):
    """What the user says of a line (by its index): the id of its task, or None for no task."""

    line: int
    task: str | None


def parse_resolutions(
    words: Iterable[str], lines: Sequence[InputLine], mine: Iterable[int]
) -> list[Resolution]:
    """`7=ID` and `7=none`, with a line's number or its key before the sign. Raises BadUsage."""
    found: list[Resolution] = []
    ours = set(mine)
    seen: set[int | str] = set()
    by_name = {line.key: index for index, line in enumerate(lines)}
    by_name.update({str(line.number): index for index, line in enumerate(lines)})
    for word in words:
        name, sign, task = word.rpartition("=")
        if not sign or not task:
            raise BadUsage(f"--resolve {word}: must be LINE=ID or LINE=none")
        index = by_name.get(name)
        if index is None or index not in ours:
            raise BadUsage(f"--resolve {word}: there is no line {name}")
        one = Resolution(index, None if task == "none" else task)
        if index in seen or one.task in seen:
            raise BadUsage(f"--resolve {word}: the line or the task is named twice")
        seen.add(index)
        if one.task is not None:
            seen.add(one.task)
        found.append(one)
    return found
