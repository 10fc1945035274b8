"""What the service needs to know about an agent: how to start it and how to read its output.

One module per agent implements `Adapter` and `Parser`. Command lines, environment variables and
stream formats were measured with versions of the range `Adapter.tested` (see the tests' samples).
"""

from __future__ import annotations

import contextlib
import glob
import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ....system.safe_text import without_sequences as without_sequences
from ....system.untrusted import read_json, read_number
from ..exposed import SHARED_VARIABLES, Mount
from .model_access import AgentAccess

LONGEST_STRING = 65_536
LONGEST_ANSWER = 999_900  # characters, with room for a note below the million that is stored
STDERR_TAIL = 2_000
MOST_TOOLS, LONGEST_ID = 1_000, 200  # that are at work at once; any program can print more
# The name of a variable that counts as a login; `…_MAX_OUTPUT_TOKENS` is none.
KEY = re.compile(r"(KEY|TOKEN|CREDENTIALS)(_[A-Z]+)?$")


class AgentEvent(NamedTuple):
    """One event of the wire: its `eventType` and its payload."""

    kind: str
    payload: dict[str, Any]


class Outcome(NamedTuple):
    """How a run ended: `answer` is the final text, `reason` says why it failed.

    `usage` is what the agent reported, in the words of `token_counts`, and `cost_usd` where it
    knows the price.
    """

    succeeded: bool
    answer: str
    reason: str
    usage: dict[str, Any]


class User(NamedTuple):
    """Whose agent it is: the variables of the user's environment, and the user's HOME."""

    variables: Mapping[str, str]
    home: Path


class Invocation(NamedTuple):
    """What one run asks of an agent.

    `session` is the id of the agent's own session to resume; None starts one, under
    `new_session` where the agent lets the caller choose. `code` is the folder that it works in.
    """

    model: str | None
    session: str | None
    new_session: str
    code: str

    def model_and_session(self, option: str) -> list[str]:
        """The arguments for both, of agents that begin a session under a new id and resume it.

        `option` is that for the model.
        """
        model = [option, self.model] if self.model else []
        if self.session:
            return [*model, "--resume", self.session]
        return [*model, "--session-id", self.new_session]


class Parser(ABC):
    """Turns an agent's output lines into events, and its end into an outcome."""

    # What of `usage` the agent reports as the total of its session.
    of_session: ClassVar[frozenset[str]] = frozenset()
    # Whether a tool call is printed only when it has ended.
    hides_tools: ClassVar[bool] = False

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.session: str | None = None
        self.model: str | None = None
        self.usage: dict[str, Any] = {}
        self.error = ""
        # What is wrong with the model, from a retry until the agent continues.
        self.trouble = ""
        # The seconds for which its model refuses requests, if it says so itself.
        self.refused_for: float | None = None
        # Until when it waits to send a request again, by the monotonic clock.
        self.waits_until = 0.0
        # Whether its model has said something.
        self.has_worked = False
        # The tools that are at work.
        self.tools: set[str] = set()
        # Why waiting for the agent is pointless, as soon as that is known.
        self.hopeless = ""
        # Characters and bytes of the answer that were not kept.
        self.omitted = 0

    def feed(self, line: str) -> list[AgentEvent]:
        """The events of one line. A line that is not understood gives none."""
        if not line.lstrip().startswith("{"):  # what is wrong with it takes long to find out
            return []
        try:
            document = read_json(line)
        except ValueError:
            return []
        if not isinstance(document, dict):
            return []
        events = []
        self.trouble = ""
        # A line of an unknown shape ends here; what was read of it before is kept.
        with contextlib.suppress(Exception):
            for kind, payload in self.read(document):
                events.append(AgentEvent(kind, shorten(payload)))
        for event in events:
            self.has_worked |= event.kind in ("text", "thinking", "tool_use")
            if event.kind in ("tool_use", "tool_result"):
                call = str(event.payload.get("id"))[:LONGEST_ID]
                if event.kind == "tool_result":
                    self.tools.discard(call)
                elif len(self.tools) < MOST_TOOLS:
                    self.tools.add(call)
        return events

    def complain(self, line: str) -> list[AgentEvent]:
        """The events of one line on stderr, where some agents tell of their retries."""
        return []

    def retry(
        self, attempt: int | str, error: str, trouble: str = "", pause: float = 0.0
    ) -> AgentEvent:
        """The event of a request to the model that is sent again, for the time `attempt`, and why.

        `trouble` is the same in the words of a reason, `pause` the seconds until then.
        """
        self.trouble = trouble or error
        self.waits_until = time.monotonic() + pause
        count = read_number(int, attempt) if isinstance(attempt, str) else attempt
        return AgentEvent("retry", shorten({"attempt": count, "error": error}))

    def longer(self, answer: str, text: str) -> str:
        """The answer with `text` behind it, as far as there is room."""
        room = max(LONGEST_ANSWER - len(answer), 0)
        self.omitted += len(text[room:])
        return answer + text[:room]

    def note(self) -> str:
        """How much of the answer is left out, or an empty text."""
        return f"[{self.omitted} more characters]" if self.omitted else ""

    def noted(self, answer: str) -> str:
        """The answer with that note."""
        return "\n".join(filter(None, (answer, self.note())))

    def skip(self, size: int) -> None:  # noqa: B027 - what is no answer needs no note
        """Take note of a line of `size` bytes that was too long to be read."""

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

    def success(self, answer: str, status: int, stderr: str) -> Outcome:
        """The agent said that it was done, and its process ended well, or else that is void."""
        if status != 0:
            return self.unfinished(status, stderr, "after it answered")
        return Outcome(True, answer, "", self.usage)

    def failure(self, reason: str, answer: str = "") -> Outcome:
        """The agent said itself that it failed."""
        return Outcome(False, answer, f"{self.agent} failed: {readable(reason)}", self.usage)

    def unfinished(self, status: int, stderr: str, when: str = "before it answered") -> Outcome:
        """The process ended badly, or before the agent said how its work had ended."""
        how = f"{end_of_process(status)} {when}"
        return self.broken_off(how, self.last_error() or last_line(stderr))

    def last_error(self) -> str:
        """What the agent last said about an error that it has not got over, or ""."""
        return readable(self.error) or self.trouble

    def broken_off(self, how: str, detail: str) -> Outcome:
        """The agent ended badly: `how`, and what it said about that, which may be nothing."""
        reason = ": ".join(filter(None, (f"{self.agent} {how}", detail)))
        return Outcome(False, "", reason, self.usage)


@dataclass(frozen=True)
class Adapter(ABC):
    """One agent. `command` replaces the program found on PATH (`[local.agents.NAME] command`).

    `own_model` has the settings `model`, `key_env` and `base_url_env` of a program of the user's.
    """

    command: tuple[str, ...] = ()
    extra_variables: tuple[str, ...] = ()
    extra_paths: tuple[str, ...] = ()
    own_model: tuple[str, ...] = ()

    name: ClassVar[str] = ""
    install: ClassVar[str] = ""
    # The oldest and the newest version that was tested.
    tested: ClassVar[tuple[str, str] | None] = None
    # Whether it can do nothing without a login or a key, and how to log in.
    log_in: ClassVar[str] = ""
    # Environment variables that reach the agent, one by one: no secret has one of these names.
    variables: ClassVar[tuple[str, ...]] = ()
    # Those with a key. They stay outside where the gateway sends the key.
    key_variables: ClassVar[tuple[str, ...]] = ()
    # Addresses and headers, which may have a password in them: they stay where the keys are.
    private_variables: ClassVar[tuple[str, ...]] = ()
    # Login files of the agent, relative to HOME.
    logins: ClassVar[tuple[str, ...]] = ()

    # Folders of `/code` whose settings the agent would obey before the model says a word.
    hidden: ClassVar[tuple[str, ...]] = ()
    # Such files, in JSON. They appear to set nothing.
    hidden_files: ClassVar[tuple[str, ...]] = ()
    # Those that only its own screen would obey, with what each appears to say. An absolute path
    # names a file that the jail has besides.
    hidden_on_screen: ClassVar[Mapping[str, str]] = {}
    # Folders of `/code` in which it finds the repository's skills by itself.
    finds_skills: ClassVar[tuple[str, ...]] = ()
    # The files of its HOME in which the agent keeps its sessions: only they stay for the next run.
    sessions: ClassVar[tuple[str, ...]] = ()
    # What it says when it does not know a session.
    no_session: ClassVar[str] = ""

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

    def screen(self, invocation: Invocation) -> list[str]:
        """The arguments that open the agent's own screen on a session; none if it has no screen."""
        return []

    def started(self, words: list[str]) -> list[str]:
        """The command line for the agent's own, `words`, which begins in the folder of the code."""
        return words

    def screen_files(self, user: User, code: Mount, access: AgentAccess) -> dict[str, str]:
        """As `files`, with what keeps the screen from asking about trust and keys first."""
        return self.files(user, code, access)

    @abstractmethod
    def parser(self) -> Parser:
        """A fresh parser for one run."""

    def access(self, user: User) -> AgentAccess:
        """How the user's own agent reaches its models.

        Raises LoginExpired.
        """
        return AgentAccess()

    def asked_model(self, model: str, user: User) -> str | None:
        """A pattern (fnmatch) for the name in requests of the model that `-m` names.

        None if only the agent knows which that is.
        """
        return glob.escape(model)

    def asked_route(self, model: str) -> str | None:
        """The name of the route to the model that `-m` names; None if the agent has only one."""
        return None

    def login_for_jail(self, text: str, access: AgentAccess) -> str:
        """What of a login file may be inside: no token that is invalid once it was used there.

        `access` is that of the run. Raises ValueError or LookupError for other files.
        """
        return text

    def environment(self) -> dict[str, str]:
        """Variables to set besides those let through."""
        return {}

    def files(self, user: User, code: Mount, access: AgentAccess) -> dict[str, str]:
        """Files to write into the private HOME before each run: relative path to text.

        `user` has the variables that the jail may see; `access` is that of the run.
        """
        return {}

    def memory(self, user_home: Path) -> Sequence[str]:
        """The files in HOME that tell the agent what the user wants of it, as glob patterns."""
        return ()

    def settings_variables(self, user_home: Path) -> dict[str, str]:
        """The variables that the user's settings of the agent set."""
        return {}

    def unused_settings(self, user_home: Path, *, has_gateway: bool = True) -> list[str]:
        """The names of such settings that are for no jail, though the agent may need them.

        `has_gateway`: without one, the agent reaches its models itself.
        """
        names = self.settings_variables(user_home)
        return [name for name in names if not self._is_for_agent(name, user_home)]

    def surroundings(self, user: User) -> User:
        """The user with those variables of the agent's settings too that are for the agent."""
        more = self.settings_variables(user.home).items()
        own = {k: v for k, v in more if self._is_for_agent(k, user.home)}
        return user._replace(variables={**user.variables, **own})

    def clean_sessions(self, home: Path, code: str, room: int) -> str:
        """Remove what the agent would obey from the sessions that stayed in the private HOME.

        `code` is the folder in which it will start, and `room` the bytes of the disk that may be
        filled. What the user is to know of sessions that were lost, or an empty text. Raises
        OSError.
        """
        return ""

    def keys_named_by(self, user_home: Path) -> Iterable[str]:
        """Further variables to let through, because the user's settings of the agent name them."""
        return ()

    def stdin(self, prompt: str) -> str:
        """What to write to stdin so that the model reads `prompt` as it was typed."""
        return prompt

    def lost_session(self, status: int, stderr: str) -> bool:
        """Whether the agent refused to start because it does not know the session."""
        said = self.no_session and re.search(self.no_session, stderr)
        return status != 0 and bool(said)

    def found_login(self, user: User) -> str | None:
        """The login file, or the variable with a key, that a run would have; None without one."""
        files = [f"~/{name}" for name in self.logins if (user.home / name).exists()]
        let_through = sorted(self.let_through(user).items())
        keys = [name for name, value in let_through if value and KEY.search(name)]
        return next(iter([*files, *keys]), None)

    def keys(self, user: User) -> list[str]:
        """The variables for this agent that may hold secrets, but for those that `env` names."""
        secret = {*self.key_variables, *self.private_variables, *self.keys_named_by(user.home)}
        names = self.let_through(user)
        return [name for name in names if name in secret and name not in self.extra_variables]

    def let_through(self, user: User) -> dict[str, str]:
        """The variables of the user that are for this agent."""
        names = {
            *self.variables,
            *self.key_variables,
            *self.private_variables,
            *self.extra_variables,
            *self.keys_named_by(user.home),
        }
        return {
            name: value
            for name, value in user.variables.items()
            if name in names and not name.startswith("REBYTE_")
        }

    def _is_for_agent(self, name: str, user_home: Path) -> bool:
        return name in SHARED_VARIABLES or bool(self.let_through(User({name: ""}, user_home)))


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


def said(text: str) -> list[AgentEvent]:
    """What an agent said as an event; none for an empty text."""
    return [AgentEvent("text", shorten({"content": text}))] if text else []


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


def readable(reason: str) -> str:
    """An error's own message, when the reason is an API's JSON envelope around it."""
    reason = without_sequences(reason).strip()
    start, end = reason.find("{"), reason.rfind("}")
    if start < 0 or end < start:
        return reason
    try:
        document = read_json(reason[start : end + 1])
    except ValueError:
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
        is_log = words.startswith(("at ", "timestamp="))
        if words and not is_log and any(letter.isalpha() for letter in words):
            return words
    return ""
