"""Every way in which a command can end badly, as one tree.

    RebyteError                        1
    ├── BadUsage                       2   a value the user gave cannot be used
    ├── NotFound                       4   no such profile, alias, file, reference
    ├── KeyProblem                     3   keyring locked or absent, key unusable
    │   └── MissingKey                 3   no key anywhere (also a ValueError)
    ├── APIError                       1   anything the wire answered or failed to
    │   ├── KeyRejected                3   401 and 403
    │   ├── ResourceNotFound           4   404 and 410
    │   ├── BudgetRefused             13   nothing more may be used today
    │   ├── AgentUnusable              3   no program, login or jail on the user's machine
    │   ├── NetworkError               5   nothing usable came back
    │   │   ├── Unsent                 5   provably never reached the API
    │   │   ├── ServerFault            5   5xx after all tries
    │   │   ├── BrokenAnswer           5   an answer that is not what it should be
    │   │   │   └── AnswerTooLarge     5   an answer that is larger than what is read into memory
    │   │   └── Redirected             5   a redirect; it is never followed with a key
    │   └── OutcomeUnknown             6   a create was sent and no answer came back
    ├── TaskFailed                    10   waited for, and it failed (carries the task)
    │   ├── TaskOutOfBudget           13   because what it may use was used up
    │   └── TaskLimited               13   because of a usage limit that it was not to wait for
    ├── TaskCanceled                  11   waited for, and it was canceled
    ├── CheckFailed                   10   the command that decides whether it is done did not pass
    ├── CheckBroken                    1   that command could not be run on its changes
    ├── SchemaMismatch                10   the answer is no JSON that fits what was asked for
    ├── NeedsAnswer                   12   waited for, and it asks a question (carries the task)
    │   └── QuestionAsked             12   raised by the library (also a WaitTimeout)
    ├── BudgetReached                 13   what tasks may use is used up, and more was to be done
    ├── LeftOut                       10   the changes of a task that are not on the branch
    ├── PromptChanged                  6   the prompt to send again is not what was sent
    ├── WaitTimeout                  124   the time limit passed (also a TimeoutError)
    └── ReaderGone                   141   the reader of stdout went away

    Interrupted                 130, 143   SIGINT, SIGTERM: not an Exception

Each class owns its exit status, its code (a machine word) and, where there is one thing
to do about it, its hint. Only the root of the command catches them all. An error is not changed
once it is raised: `copy_with` makes another one, for code that knows more than the place that
raised it.

What an error says is data until it is shown: the commands to type next and the names of options
are parts of a `Message`, and what the error is about is its `subject`. The console, JSON and the
tools of `rebyte mcp` each put that into words; no code compares or searches the text of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import EllipsisType
from typing import Any, Self

KEYS_PAGE = "https://app.rebyte.ai/settings/api-keys"

# Several tasks, several results: the first of these that occurred is the status.
RANK = (6, 3, 5, 1, 4, 13, 10, 11, 12, 124)


def worst(statuses: Iterable[int]) -> int:
    """The exit status that stands for several: the highest-ranking one, 0 for none.

    A status outside the ranking (2, 130, 143, 141) ends a command at once, so it wins here.
    """
    found = set(statuses) - {0}
    for status in found:
        if status not in RANK:
            return status
    return next((status for status in RANK if status in found), 0)


class Message(str):
    """A text for people in which commands and options are data until it is shown.

    As a str it is what a user without a profile reads. `+` keeps the data; an f-string and `join`
    do not, so put messages together with `+` and `lines`.
    """

    parts: tuple[str, ...]

    def __new__(cls, *parts: str) -> Message:
        made = super().__new__(cls, "".join(parts))
        made.parts = tuple(inner for part in parts for inner in getattr(part, "parts", (part,)))
        return made

    def __add__(self, other: str) -> str:
        return Message(self, other)

    def __radd__(self, other: str) -> str:
        return Message(other, self)


class Next(Message):
    """A command to type next: `"Resume with " + Next("wait", task_id)`.

    Its words are typed as they are.
    """

    words: tuple[str, ...]

    def __new__(cls, *words: str) -> Next:
        made = str.__new__(cls, f"`{' '.join(('rebyte', *words))}`")
        made.words, made.parts = words, (made,)
        return made

    def typed(self, profile: str | None) -> str:
        """The command in backticks, with `-P` if it depends on the profile.

        Without it, `rebyte wait ID` would look for the task in another account.
        """
        if not profile or self.words[0] in _WITHOUT_PROFILE:
            return self
        from shlex import quote

        return Next("-P", quote(profile), *self.words)


_WITHOUT_PROFILE = {
    *("man", "help", "completion", "profile", "local", "skill", "schema"),
    *("--help", "--version", "-P"),
}


class Term(Message):
    """What the command line calls `option`, and the tools of `rebyte mcp` call `tool`."""

    tool: str

    def __new__(cls, option: str, tool: str) -> Term:
        made = str.__new__(cls, option)
        made.tool, made.parts = tool, (made,)
        return made


AGAIN = Term("run the same command again", "call the tool again with the same arguments")


def worded(text: str, words: Callable[[Next | Term], str]) -> str:
    """A text with its commands and options in the words of what shows it."""
    parts = getattr(text, "parts", (text,))
    return "".join(words(part) if isinstance(part, Next | Term) else part for part in parts)


def typed(text: str, profile: str | None) -> str:
    """A text as the console and JSON show it, for the profile that was named, if any."""
    return worded(text, lambda part: part.typed(profile) if isinstance(part, Next) else part)


def lines(*texts: str | None) -> str | None:
    """The texts that there are, each on its own line; None if there are none."""
    parts = [part for text in texts if text for part in ("\n", text)]
    return Message(*parts[1:]) if parts else None


class RebyteError(Exception):
    """Anything this package raises on purpose.

    `message` is one line for a person; `hint` says what to do about it, or is None; `code` is
    a machine word; `exit_status` is the status of a command that ends with it. `subject` is the id,
    path or name that the error is about, which is put in front when the error is shown, unless
    `names_subject` says that the message has it. An empty one stands for what the message names.
    """

    exit_status = 1
    code = "error"
    subject: str | None = None
    names_subject = False

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        code: str | None = None,
        subject: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if subject is not None:
            self.subject = subject
        if code is not None:
            self.code = code

    @property
    def sentence(self) -> str:
        """The message with its subject in front: "Task not found" does not say which."""
        if not self.subject or self.names_subject:
            return self.message
        message = self.message
        if message[:1].isupper() and message[1:2].islower():  # as a service begins a sentence
            message = message[0].lower() + message[1:]
        return f"{self.subject}: " + message

    @property
    def record(self) -> Mapping[str, Any] | None:
        """What belongs on stdout although it is an error: the task that failed."""
        return None

    def about(self, subject: str) -> Self:
        """The same error as one of several, which says that it is about `subject`."""
        if self.subject in ("", subject):
            return self
        copy = self.copy_with()
        copy.subject, copy.names_subject = subject, False
        return copy

    def as_dict(self) -> dict[str, Any]:
        """The object printed on stderr when the output is JSON."""
        return _as_dict(self)

    def copy_with(
        self, *, message: str | None = None, hint: str | EllipsisType | None = ...
    ) -> Self:
        """The same error with another message, or another hint (None for no hint)."""
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.message = self.message if message is None else message
        copy.hint = self.hint if hint is ... else hint
        copy.args = (copy.message,)
        return copy.with_traceback(self.__traceback__)


# A record that a command prints, or the error in its place.
RowOrError = Mapping[str, Any] | RebyteError


class BadUsage(RebyteError):
    """A value that the user gave cannot be used; nothing was sent."""

    exit_status = 2
    code = "usage"


class NotFound(RebyteError):
    """Something named on the command line is not there: a profile, an alias, a file."""

    exit_status = 4
    code = "not_found"


class KeyProblem(RebyteError):
    """No key is available: the keyring is locked, absent or refused, or the key is unusable."""

    exit_status = 3
    code = "key_unavailable"


class MissingKey(KeyProblem, ValueError):
    """No key anywhere. Also a ValueError, which is what the vendor's client raises."""

    code = "missing_key"


class APIError(RebyteError):
    """The API refused, or what came back cannot be used.

    `status_code` is the HTTP status, or None when there was no answer. `response` is the
    decoded body (a dict, a list, text) or None. `code` is the API's own `error.code` where
    it sent one. `retried` says that an earlier try of the same call may have been carried out,
    which makes the 404 of a DELETE a success. `seconds` is the time
    limit of a call that timed out, and None for every other error. `retry_after` is what the
    answer asked for with `Retry-After`, in seconds, or None.
    """

    code = "api_error"

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        response: Any = None,
        hint: str | None = None,
        code: str | None = None,
        seconds: float | None = None,
        subject: str | None = None,
        names_subject: bool = False,
        retried: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint, code=code, subject=subject)
        self.status_code = status_code
        self.response = response
        self.seconds = seconds
        self.names_subject = names_subject
        self.retried = retried
        self.retry_after = retry_after


class KeyRejected(APIError):
    """401 and 403: the key is missing, unknown, expired or lacks a scope."""

    exit_status = 3
    code = "unauthorized"


class ResourceNotFound(APIError):
    """404 and 410: no such thing, or it belongs to another account."""

    exit_status = 4
    code = "not_found"


class BudgetRefused(APIError):
    """A create or a follow-up that was not accepted: what all tasks may use is used up."""

    exit_status = 13
    code = "budget_reached"


class AgentUnusable(APIError):
    """The service on the user's machine cannot run an agent: no program, no login, or no jail."""

    exit_status = 3
    code = "executor_unavailable"


class NetworkError(APIError):
    """Nothing usable came back: no connection, a time limit, a broken line."""

    exit_status = 5
    code = "network"


class Unsent(NetworkError):
    """The request provably never reached the API, so sending it again doubles nothing."""

    code = "unreachable"


class ServerFault(NetworkError):
    """5xx after all tries."""

    code = "server_fault"


class BrokenAnswer(NetworkError):
    """An answer came, but it is not what the contract says: HTML, cut JSON, too large."""

    code = "broken_answer"


class AnswerTooLarge(BrokenAnswer):
    """An answer is larger than what is read into memory."""

    code = "answer_too_large"


class Redirected(NetworkError):
    """The API answered with a redirect. It is not followed: the key would go along."""

    code = "redirected"


def too_busy(error: APIError) -> bool:
    """Whether the same question may be answered later: a fault of the line, or a 429."""
    if isinstance(error, Redirected):
        return False
    return isinstance(error, NetworkError) or error.status_code == 429


class OutcomeUnknown(APIError):
    """A create or a follow-up was sent and no answer came back.

    `candidates` are the task summaries (dicts with `id`, `url`, `createdAt`) that could be the
    one; it may be empty.
    """

    exit_status = 6
    code = "outcome_unknown"

    def __init__(
        self, message: str, *, candidates: Iterable[Mapping[str, Any]] = (), **rest: Any
    ) -> None:
        super().__init__(message, **rest)
        self.candidates = [dict(candidate) for candidate in candidates]

    def as_dict(self) -> dict[str, Any]:
        """As its parent's, with the candidates beside the other keys."""
        document = super().as_dict()
        document["error"]["candidates"] = self.candidates
        return document


class CarriesTask(RebyteError):
    """What is wrong with one task; its document `task` is shown on stdout first."""

    subject = ""
    task: dict[str, Any]

    @property
    def record(self) -> Mapping[str, Any] | None:
        """The task itself."""
        return self.task

    def with_task(self, task: Mapping[str, Any]) -> Self:
        """The same error with another document of the task."""
        copy = self.copy_with()
        copy.task = dict(task)
        return copy


class TaskEnded(CarriesTask):
    """A task that was waited for did not complete.

    `reason` is why, or an empty string; `summary` says it in one line.
    """

    verb = "ended"

    def __init__(self, task: Mapping[str, Any], reason: str = "", summary: str = "") -> None:
        how = f"task {task.get('id')} {self.verb}"
        super().__init__(f"{how}: {reason}" if reason else how)
        self.task = dict(task)
        self.reason, self.summary = reason, summary or reason
        self._shown = False

    @property
    def record(self) -> Mapping[str, Any] | None:
        """The task itself, unless what belongs on stdout is there already."""
        return None if self._shown else self.task

    def without_record(self) -> Self:
        """The same error for a task whose text or events were printed."""
        copy = self.copy_with()
        copy._shown = True
        return copy


class TaskFailed(TaskEnded):
    """Waited for: the task failed."""

    exit_status = 10
    code = "task_failed"
    verb = "failed"


class TaskOutOfBudget(TaskFailed):
    """Waited for: the task failed because what it may use of its model was used up."""

    exit_status = 13
    code = "budget_reached"


class TaskLimited(TaskFailed):
    """Waited for: the task failed at a usage limit of its model, for which it was not to wait."""

    exit_status = 13
    code = "usage_limit"


class TaskCanceled(TaskEnded):
    """Waited for: the task was canceled."""

    exit_status = 11
    code = "task_canceled"
    verb = "was canceled"


class CheckFailed(TaskEnded):
    """The command that decides whether a task is done did not pass on its changes."""

    exit_status = 10
    code = "check_failed"
    verb = "did not pass its check"


class CheckBroken(TaskEnded):
    """A task could not be checked: its patch does not apply, or the command cannot run."""

    code = "check_error"
    verb = "could not be checked"


class SchemaMismatch(TaskEnded):
    """The answer of a task is not JSON that fits the schema that was asked for."""

    exit_status = 10
    code = "schema_mismatch"
    verb = "gave no answer that fits the schema"


class NeedsAnswer(CarriesTask):
    """Waited for: the task asks a question, and no one is there to answer it.

    Its `task` has `question` set to true.
    """

    exit_status = 12
    code = "needs_answer"

    def __init__(self, message: str, *, task: Mapping[str, Any], hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.task = dict(task)


class BudgetReached(RebyteError):
    """What tasks may use together is used up, and there was more to do."""

    exit_status = 13
    code = "budget_reached"


class LeftOut(RebyteError):
    """A task of `rebyte land` whose changes are not on the branch; it carries its row."""

    exit_status = 10
    code = "left_out"
    subject = ""

    def __init__(self, message: str, *, row: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.row = row

    @property
    def record(self) -> Mapping[str, Any]:
        """The row."""
        return self.row


class PromptChanged(RebyteError):
    """The service shows another prompt than the one that was sent, so it cannot be sent again."""

    exit_status = 6
    code = "prompt_changed"
    subject = ""


class WaitTimeout(RebyteError, TimeoutError):
    """The time limit passed. `pending` are the ids still running."""

    exit_status = 124
    code = "timeout"
    subject = ""

    def __init__(self, message: str, *, pending: Iterable[str] = (), hint: str | None = None):
        super().__init__(message, hint=hint)
        self.pending = list(pending)


class QuestionAsked(NeedsAnswer, WaitTimeout):
    """`wait_for_task`: the run asks its user a question, and continues when it is answered.

    `question` is the payload of its event: `messageId`, `actionId`, and `question`, `options` and
    `multiSelect`, or `questions` with several of those. `hint` is the call that answers it. Also a
    WaitTimeout, thus a TimeoutError, which a script for the vendor's client expects here.
    """

    def __init__(
        self,
        message: str,
        *,
        task: Mapping[str, Any],
        question: Mapping[str, Any],
        hint: str | None = None,
    ) -> None:
        super().__init__(message, task=task, hint=hint)
        self.question = dict(question)
        self.pending = [str(task.get("id"))]


class ReaderGone(RebyteError):
    """stdout's reader went away; there is no one left to tell."""

    exit_status = 141
    code = "reader_gone"

    def __init__(self) -> None:
        super().__init__("stdout was closed")


class Interrupted(BaseException):
    """SIGINT (130) or SIGTERM (143).

    Like KeyboardInterrupt it is not an Exception, so that code which recovers from faults never
    swallows the request to stop. `hint` says what became of the work, or is None.
    """

    code = "interrupted"
    message = sentence = "interrupted"
    record = None

    def __init__(self, exit_status: int = 130, *, hint: str | None = None) -> None:
        super().__init__(self.message)
        self.exit_status = exit_status
        self.hint = hint

    @classmethod
    def of(cls, stop: KeyboardInterrupt | Interrupted, hint: str | None = None) -> Interrupted:
        """What a KeyboardInterrupt stands for, or the interrupt, with `hint` if it has none."""
        stop = stop if isinstance(stop, cls) else cls()
        stop.hint = stop.hint or hint
        return stop

    def as_dict(self) -> dict[str, Any]:
        """The object printed on stderr when the output is JSON."""
        return _as_dict(self)


def _as_dict(error: RebyteError | Interrupted) -> dict[str, Any]:
    return {
        "error": {
            "code": error.code,
            "message": error.sentence,
            "status": getattr(error, "status_code", None),
            "hint": error.hint,
            "exit": error.exit_status,
        }
    }


def did_you_mean(word: str, known: Iterable[str], *, prefix: str = "") -> str | None:
    """The hint for a mistyped word, `Did you mean 'list'?`; None when nothing is near.

    `prefix` is what all words begin with, which makes none of them nearer.
    """
    from difflib import get_close_matches

    def compared(name: str) -> str:
        return name.casefold().removeprefix(prefix.casefold())

    found = {compared(name): name for name in known}
    near = get_close_matches(compared(word), found, n=3, cutoff=0.6)
    return f"Did you mean {alternatives([repr(found[name]) for name in near])}?" if near else None


def alternatives(words: Sequence[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    between = [*[", "] * (len(words) - 2), " or ", ""][-len(words) :]
    return Message(*(part for pair in zip(words, between, strict=True) for part in pair))
