"""What the service needs to know about an agent: how to start it and how to read its output.

One module per agent implements `Adapter` and `Parser`. Command lines, environment variables and
stream formats were measured with the versions in `Adapter.tested` (see the tests' samples).
"""

from __future__ import annotations

import contextlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

from .logins import LoginEntry

LONGEST_STRING = 65_536
STDERR_TAIL = 2_000
Logins: TypeAlias = Mapping[str, Sequence[LoginEntry]]


class AgentEvent(NamedTuple):
    """One event of the wire: its `eventType` and its payload."""

    kind: str
    payload: dict[str, Any]


class Outcome(NamedTuple):
    """How a run ended: `answer` is the final text, `reason` says why it failed.

    `usage` is what the agent reported (tokens, and `cost_usd` where it knows the price).
    """

    succeeded: bool
    answer: str
    reason: str
    usage: dict[str, Any]


class Invocation(NamedTuple):
    """What one run asks of an agent.

    `session` is the id of the agent's own session to resume; None starts one, under
    `new_session` where the agent lets the caller choose.
    """

    model: str | None
    session: str | None
    new_session: str


class Parser(ABC):
    """Turns an agent's output lines into events, and its end into an outcome."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.session: str | None = None
        self.model: str | None = None
        self.usage: dict[str, Any] = {}
        self.error = ""
        # Why waiting for the agent is pointless, as soon as that is known.
        self.hopeless = ""
        # Characters and bytes of the output that were not read.
        self.omitted = 0

    def feed(self, line: str) -> list[AgentEvent]:
        """The events of one line. A line that is not understood gives none."""
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            return []
        if not isinstance(document, dict):
            return []
        events = []
        # A line of an unknown shape ends here; what was read of it before is kept.
        with contextlib.suppress(AttributeError, IndexError, KeyError, TypeError, ValueError):
            for kind, payload in self.read(document):
                events.append(AgentEvent(kind, shorten(payload)))
        return events

    def skip(self, size: int) -> None:
        """Take note of a line of `size` bytes that was too long to be read."""
        self.omitted += size

    @abstractmethod
    def read(self, document: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
        """Yield the events of one JSON line as (eventType, payload)."""

    def pause(self) -> list[AgentEvent]:
        """The events that are due now, while more output may follow: asked a few times a second."""
        return []

    def flush(self) -> list[AgentEvent]:
        """The events that waited for more output which cannot come any more."""
        return []

    @abstractmethod
    def finish(self, status: int, stderr: str) -> Outcome:
        """The outcome, after the last line. `status` is the exit status, negative for a signal."""

    def success(self, answer: str) -> Outcome:
        """The agent answered."""
        return Outcome(True, answer, "", self.usage)

    def failure(self, reason: str, answer: str = "") -> Outcome:
        """The agent said itself that it failed."""
        return Outcome(False, answer, f"{self.agent} failed: {readable(reason)}", self.usage)

    def unfinished(self, status: int, stderr: str) -> Outcome:
        """The output broke off before the agent said how its work ended."""
        how = f"{end_of_process(status)} before it answered"
        return self.broken_off(how, readable(self.error) or last_line(stderr))

    def broken_off(self, how: str, detail: str) -> Outcome:
        """The agent ended badly: `how`, and what it said about that, which may be nothing."""
        reason = ": ".join(filter(None, (f"{self.agent} {how}", detail)))
        return Outcome(False, "", reason, self.usage)


@dataclass(frozen=True)
class Adapter(ABC):
    """One agent. `command` replaces the program found on PATH (`[local.agents.NAME] command`)."""

    command: tuple[str, ...] = ()
    extra_variables: tuple[str, ...] = ()
    extra_paths: tuple[str, ...] = ()

    name: ClassVar[str] = ""
    install: ClassVar[str] = ""
    tested: ClassVar[tuple[str, ...]] = ()
    # Environment variables that reach the agent; a trailing `*` stands for any ending.
    variables: ClassVar[tuple[str, ...]] = ()
    # Login files of the agent, relative to HOME, and what it refreshes in them.
    credentials: ClassVar[Logins] = {}

    # Folders of `/code` whose settings the agent would obey before the model says a word.
    hidden: ClassVar[tuple[str, ...]] = ()
    # The files of its HOME in which the agent keeps its sessions: only they stay for the next run.
    sessions: ClassVar[tuple[str, ...]] = ()

    @property
    def title(self) -> str:
        """The name that `-x` takes."""
        return self.name

    @property
    def program(self) -> str:
        """What to look for on PATH."""
        return self.command[0] if self.command else self.name

    @abstractmethod
    def arguments(self, invocation: Invocation) -> list[str]:
        """The arguments after the program. The prompt goes to stdin, whatever its size."""

    @abstractmethod
    def parser(self) -> Parser:
        """A fresh parser for one run."""

    def environment(self, outside: Mapping[str, str]) -> dict[str, str]:
        """Variables to set besides those let through; `outside` is the caller's environment."""
        return {}

    def files(self, outside: Mapping[str, str], user_home: Path) -> dict[str, str]:
        """Files to write into the private HOME before each run: relative path to text."""
        return {}

    def clean_sessions(self, home: Path, code: str) -> None:  # noqa: B027 - most need nothing
        """Remove what the agent would obey from the sessions that stayed in the private HOME.

        `code` is the folder in which it will start.
        """

    def keys_named_by(self, user_home: Path) -> Iterable[str]:
        """Further variables to let through, because the user's settings of the agent name them."""
        return ()

    def stdin(self, prompt: str) -> str:
        """What to write to stdin so that the model reads `prompt` as it was typed."""
        return prompt

    def lost_session(self, status: int, stderr: str) -> bool:
        """Whether the agent refused to start because it does not know the session."""
        return False

    def let_through(self, outside: Mapping[str, str], user_home: Path) -> dict[str, str]:
        """The part of the environment `outside` that is for this agent."""
        names = (*self.variables, *self.extra_variables, *self.keys_named_by(user_home))
        exact = {name for name in names if not name.endswith("*")}
        starts = tuple(name[:-1] for name in names if name.endswith("*"))
        return {
            name: value
            for name, value in outside.items()
            if (name in exact or (starts and name.startswith(starts)))
            and not name.startswith("REBYTE_")
        }


def shorten(value: Any) -> Any:
    """The value with very long strings cut; the raw stream keeps them whole."""
    if isinstance(value, str):
        if len(value) <= LONGEST_STRING:
            return value
        return f"{value[:LONGEST_STRING]}\n[{len(value) - LONGEST_STRING} more characters]"
    if isinstance(value, dict):
        return {key: shorten(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shorten(item) for item in value]
    return value


def joined(content: object) -> str:
    """The text of a content value: a string, or blocks of which some are text."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(
            block["text"]
            for block in content
            if isinstance(block, dict) and isinstance(block.get("text"), str)
        )
    return "" if content is None else json.dumps(content)


def without_sequences(text: str) -> str:
    """The text without sequences for a terminal, such as colours (ECMA-48)."""
    return re.sub(
        r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])", "", text
    )


def readable(reason: str) -> str:
    """An error's own message, when the reason is an API's JSON envelope around it."""
    reason = without_sequences(reason).strip()
    start, end = reason.find("{"), reason.rfind("}")
    if start < 0 or end < start:
        return reason
    try:
        document = json.loads(reason[start : end + 1])
    except (ValueError, RecursionError):
        return reason
    inner = document.get("error") if isinstance(document, dict) else None
    inner = inner if isinstance(inner, dict) else document
    message = inner.get("message") if isinstance(inner, dict) else None
    if not isinstance(message, str) or not message:
        return reason
    message, code = without_sequences(message), inner.get("code")
    return f"{message} ({code})" if isinstance(code, int) and str(code) not in message else message


def end_of_process(status: int) -> str:
    """How a process ended that was not successful; `status` is negative for a signal."""
    return f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"


def last_line(text: str) -> str:
    """The last line of stderr that says something; stack frames and braces do not."""
    for line in reversed(without_sequences(text[-STDERR_TAIL:]).splitlines()):
        words = line.strip()
        if words and not words.startswith("at ") and any(letter.isalpha() for letter in words):
            return words
    return ""
