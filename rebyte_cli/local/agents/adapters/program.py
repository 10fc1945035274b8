"""Any program: the prompt on stdin, the answer on stdout, the exit status as the outcome.

What it prints becomes an event a few times a second, not for each line: a build prints thousands.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .adapter import (
    LONGEST_ANSWER,
    Adapter,
    AgentEvent,
    Invocation,
    Outcome,
    Parser,
    User,
    end_of_process,
    last_line,
    said,
    without_sequences,
)
from .model_access import VENDORS, AgentAccess, with_key


@dataclass(frozen=True)
class ProgramAdapter(Adapter):
    """`[local.agents.NAME] command = […]`. Each run starts from nothing: it has no sessions.

    Without `own_model` the gateway has no key for it.
    """

    label: str = ""

    @property
    def title(self) -> str:
        return self.label

    def access(self, user: User) -> AgentAccess:
        if not self.own_model:
            return AgentAccess()
        api, key, address = self._model_settings()
        return with_key(api, user.variables, key, address)

    def keys_named_by(self, user_home: Path) -> Iterable[str]:
        return self._model_settings()[1:] if self.own_model else ()

    def _model_settings(self) -> tuple[str, str, str]:
        """The API of its model, and the variables from which it reads its key and the address."""
        api, key, address = self.own_model
        return api, key or VENDORS[api].key_variable, address or VENDORS[api].url_variable

    def arguments(self, invocation: Invocation) -> list[str]:
        return []

    def parser(self) -> ProgramParser:
        return ProgramParser(self.label)


class ProgramParser(Parser):
    """Plain text: all of it is the answer, which says how much of a very long text is left out."""

    def __init__(self, agent: str) -> None:
        super().__init__(agent)
        self._lines: list[str] = []
        self._size = 0
        self._told = 0  # of the lines, how many are in events

    def feed(self, line: str) -> list[AgentEvent]:
        line = without_sequences(line)
        room = max(LONGEST_ANSWER - self._size, 0)
        if room:
            self._lines.append(line[:room])
        self.omitted += len(line[room:])
        self._size += len(line) + 1
        return []

    def skip(self, size: int) -> None:
        self.omitted += size

    def read(self, document: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
        return ()

    def pause(self) -> list[AgentEvent]:
        new = self._lines[self._told :]
        while new and not new[-1]:
            new.pop()  # a blank line waits for what it comes before
        text = "\n".join(new)
        if not self._told:
            text = text.lstrip("\n")
        self._told += len(new)
        return said(text)

    def flush(self) -> list[AgentEvent]:
        return [*self.pause(), *said(self.note())]

    def finish(self, status: int, stderr: str) -> Outcome:
        if status == 0:
            return self.success(self._text(), status, stderr)
        return self.broken_off(end_of_process(status), last_line(stderr or self._text()))

    def _text(self) -> str:
        return self.noted("\n".join(self._lines).strip("\n"))
